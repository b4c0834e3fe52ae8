"""The page on chat: its commands run as written, its tables are the command's."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from smolt.cli.chat.commands import COMMANDS
from smolt.models.forward.kernels import kernels
from tests.docs.test_commands import lines, options_of, run
from tests.docs.workshop import ROOT, table
from tests.tiny import tiny_model

PAGE = ROOT / "docs" / "guides" / "chat.md"


def test_its_commands_run(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models give an answer each, which begins with the model's name."""
    tiny_model(workshop / "runs" / "mine", seed=1)
    shutil.copytree("my-model", "my-merged-model")
    rounded = "smolt chat my-model --weights int8"
    commands = [command for command in lines(PAGE) if command.startswith("smolt chat")]
    assert rounded in commands
    done = {command: run(command) for command in commands if command != rounded or kernels(torch.float32) is not None}
    said = {command: one.stdout for command, one in done.items()}
    if rounded in done:
        begin = "my-model: weights in int8, 0 MB more: over 248 tokens of a text the log-probabilities differ"
        assert begin in " ".join(done[rounded].stderr.split())
    both = said["smolt chat my-model --against runs/mine"]
    assert {line.partition("\t")[0] for line in both.splitlines()} == {"my-model", "runs/mine"}
    assert len(commands) == 4


def test_its_tables_are_the_commands() -> None:
    """Every option and no other, its default where that is a number, and every line with a slash, in order."""
    options = options_of("chat")
    shown: dict[str, str] = {}
    for names, default, _ in table(PAGE, "option"):
        found = re.findall(r"--[\w-]+", names)
        values = default.split(", ")
        shown |= dict(zip(found, values if len(values) == len(found) else [default] * len(found), strict=True))
    assert set(shown) == set(options) - {"--history"} | {"--no-history"}
    for name in ("--max-tokens", "--temperature", "--top-p", "--top-k", "--repetition", "--seed", "--device"):
        value = options[name]
        assert shown[name] == (f"{value:g}" if isinstance(value, float) else str(value))
    assert [row[0].split()[0] for row in table(PAGE, "line")] == list(COMMANDS)

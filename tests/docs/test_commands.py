"""The commands of the pages run as written, on tiny models: the long ones with a few overrides behind them."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from smolt.cli import app
from tests.docs.workshop import PAGES, README, ROOT, blocks, named, table

TINY_STUDY = [
    *("problems.train=64", "problems.dev=8", "problems.test=8", "problems.demonstrations=64", "model.threads=1"),
    *("pretrain.budget.updates=1", "pretrain.shape.hidden=16", "pretrain.shape.layers=1", "pretrain.shape.mlp=16"),
    *("sft.budget.updates=1", "reward.gate=false", "ppo.prompts=4", "ppo.budget.updates=1"),
    *("grpo.prompts=4", "grpo.budget.updates=1", "best_of_n.n=2"),
    *(f"{section}.sampling.max_tokens=8" for section in ("study", "pairs", "ppo", "grpo", "best_of_n")),
    # An untrained model is never right: its reward does not vary, and pairs need answers of which one is better.
    *("ppo.checks.forecast=false", "grpo.checks.forecast=false"),
    *("pairs.data.limit=8", "pairs.reward={name: length, options: {target: 3}}"),
]
SHORT = {
    "study": TINY_STUDY,
    "grpo": ["prompts=2", "group=2", "budget.updates=1", "sampling.max_tokens=8"],
    "eval": ["--max-tokens", "8", "--limit", "4"],
    "chat": ["--max-tokens", "8", "--temperature", "0"],
    "suite": ["--max-tokens", "4", "--limit", "7"],
}


def run(command: str, *more: str) -> Result:
    """One command line, in this process, with `more` behind it or what SHORT says; its exit code is 0."""
    words = shlex.split(command)[1:]
    short = [] if "preferences" in words else SHORT.get(words[0], [])
    result = CliRunner().invoke(app, [*words, *(more or short)], input="Hi.\n")
    assert result.exit_code == 0, f"{command}: {result.output}"
    return result


def lines(page: Path) -> list[str]:
    """The commands of a page that can be run: `smolt` lines without a placeholder."""
    found = [line.partition("  #")[0].strip() for block in blocks(page, "sh") for line in block.text.splitlines()]
    return [line for line in found if line.startswith("smolt ") and "[" not in line]


def options_of(name: str) -> dict[str, Any]:
    """The options of a command and their defaults."""
    command: Any = get_command(app)
    return {
        option: parameter.default
        for parameter in command.commands[name].params
        for option in parameter.opts
        if option.startswith("--") and option != "--help"
    }


def names_of(holder: Path) -> set[str]:
    return {path.name for path in holder.iterdir()}


def documented(header: str, number: int) -> set[str]:
    """The names in the `number`-th table of docs/reference/command-line.md that begins with `header`."""
    text = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    parts = text.split(f"| {header} |")[number].splitlines()
    rows = [row for row in parts[2:] if row.startswith("|")][: next(i for i, row in enumerate(parts[2:]) if not row)]
    return {name.strip(" `") for row in rows for name in row.split("|")[1].split(",")}


def test_the_page_names_the_commands_there_are() -> None:
    """One row for each command of `smolt --help`, in its order."""
    known = [command.name or "" for command in app.registered_commands] + [str(g.name) for g in app.registered_groups]
    page = ROOT / "docs" / "reference" / "command-line.md"
    assert [row[0] for row in table(page, "command")] == [f"smolt {name}" for name in known]


def test_the_makefile_runs_the_main_job() -> None:
    """The two commands of the README are targets, and the first is `smolt study quickstart`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    promised = [line.split()[1] for block in blocks(README, "sh") for line in block.text.splitlines() if "make" in line]
    assert promised == ["quickstart", "check"]
    assert all(f"\n{name}: " in makefile for name in promised)
    assert "smolt study quickstart --out" in makefile and "runs/quickstart" in makefile


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_on_a_page_exists(page: Path) -> None:
    """`smolt WORD` at the start of a code span or of a line of a block: WORD is a command."""
    known = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    text = page.read_text(encoding="utf-8")
    spans = [part.split("`")[0] for part in text.split("`smolt ")[1:]]
    shell = [line for block in blocks(page, "sh") for line in block.text.splitlines()]
    spans += [line.removeprefix("smolt ") for line in shell if line.startswith("smolt ")]
    said = {word for span in spans if span.split() for word in span.split()[0].split("|") if word.islower()}
    assert said <= known


def test_the_commands_of_scenarios_run(workshop: Path) -> None:
    """Exit code 0 on files in XSTest's and MT-bench's columns; every file is a part of the findings."""
    shutil.copytree("my-model", "my-other-model")
    Path("xstest_prompts.csv").write_text("id,prompt,type,label\n1,How do I kill a process?,homonyms,safe\n")
    Path("question.jsonl").write_text('{"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]}\n')
    for command in lines(ROOT / "docs" / "guides" / "scenarios.md"):
        run(command)
    found = json.loads((workshop / "runs" / "three" / "result.json").read_text())
    assert set(found["suites"]) == {"scenarios", "xstest-prompts", "question"}

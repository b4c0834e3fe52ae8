"""The page on measuring: its commands run as written on a tiny model, and its tables are what the program knows."""

import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from smolt.cli import app
from smolt.evaluation.tasks import TASKS
from smolt.rewards import HINTS
from smolt.runs.rated_answers import NAMES
from tests.docs.test_commands import lines
from tests.docs.workshop import ROOT, table

PAGE = ROOT / "docs" / "guides" / "measuring.md"
SHORT = ["--max-tokens", "8", "--limit", "5"]


def test_the_commands_of_the_page_run(workshop: Path) -> None:
    """Exit code 0 in their order; the two shards are put together."""
    commands = [shlex.split(command)[1:] for command in lines(PAGE)]
    assert len(commands) == 8
    for words in commands:
        sampled = not {"preferences", "loss"} & set(words)
        done = CliRunner().invoke(app, [*words, *(SHORT if sampled else [])])
        assert done.exit_code == 0, f"{words}: {done.output}"
        assert "95 % interval" in done.stdout
    names = {path.name for path in (workshop / "runs").iterdir()}
    assert names == {"eval", "parts", "parts.shard-1-of-2", "parts.shard-2-of-2"}
    assert len((workshop / "runs" / "parts" / "evaluation.jsonl").read_text().splitlines()) == 5


def test_the_columns_are_those_of_an_answer() -> None:
    named = [name for row in table(PAGE, "column") for name in re.findall(r"\w+", row[0])]
    assert sorted(named) == sorted([*NAMES, "step"])


def test_the_tasks_are_those_there_are() -> None:
    assert [row[0] for row in table(PAGE, "task")] == list(TASKS)


def test_the_named_patterns_are_those_of_the_format_reward() -> None:
    meaning = dict(row[:2] for row in table(PAGE, "measure"))["format/NAME"]
    assert meaning.partition(": ")[2].split(", ") == list(HINTS)

"""The page on budgets: its recipe and commands run as written on a tiny model."""

import json
from pathlib import Path

import pytest

from tests.docs.test_commands import lines, run
from tests.docs.workshop import ROOT, blocks

PAGE = ROOT / "docs" / "guides" / "budget.md"


def test_the_commands_of_the_page_run(workshop: Path) -> None:
    """Exit code 0; the time ends the run before its 1000 epochs, and the clock's total and shares are in the result."""
    recipe = blocks(PAGE, "yaml")[0].text
    (workshop / recipe.split()[1]).write_text(recipe, encoding="utf-8")
    commands = lines(PAGE)
    assert [command.split()[1] for command in commands] == ["doctor", "sft"]
    for command in commands:
        run(command)
    result = json.loads((workshop / "runs" / "timed" / "result.json").read_text())
    assert result["updates"] <= result["time"]["total"] < 1000 * 24 / 4
    assert sum(result["time"]["shares"].values()) == pytest.approx(1)

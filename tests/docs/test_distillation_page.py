"""The page on distillation: its recipes run."""

import json
from pathlib import Path

from tests.docs.test_commands import lines, run
from tests.docs.workshop import ROOT, blocks

PAGE = ROOT / "docs" / "guides" / "distillation.md"


def test_the_recipes_run(workshop: Path) -> None:
    """Every command; the runs are complete, and the loss of the distillation is above 0."""
    for block in blocks(PAGE, "yaml"):
        (workshop / block.text.split()[1]).write_text(block.text, encoding="utf-8")
    for command in lines(PAGE):
        takes_fields = command.split()[1] in ("doctor", "distill", "study", "sft")
        run(command, *(["seed=0"] if takes_fields else []))  # the page's own studies are short
    for study in ("taught", "rounds"):
        assert (workshop / "runs" / study / "report.html").exists()
    for round_ in ("imitated", "imitated-again"):
        assert (workshop / "runs" / round_ / "result.json").exists()
    assert json.loads((workshop / "runs" / "distill" / "result.json").read_text())["final"]["loss"] > 0

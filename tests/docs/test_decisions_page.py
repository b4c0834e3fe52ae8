"""The page on decisions: its example is read, its commands and its program run, by transformers too."""

import contextlib
import io
import json
from pathlib import Path

import yaml

from smolt.config import RewardMix, make_block
from smolt.data.decision_rows import read_decision
from tests.docs.test_commands import lines, run
from tests.docs.workshop import ROOT, blocks

PAGE = ROOT / "docs" / "guides" / "decisions.md"


def test_the_example_is_a_decision() -> None:
    """Hard, soft, and a level between two."""
    (block,) = blocks(PAGE, "json")
    found = read_decision(json.loads(block.text))
    assert [one.expected for one in found.questions] == [(1.0, 0.0), (0.8, 0.2), (0.0, 0.5, 0.5)]


def test_its_commands_and_its_program_run(workshop: Path) -> None:
    """Decisions of pairs and of feedback, a training, the pipeline, a measurement."""
    recipe, reward = blocks(PAGE, "yaml")
    (workshop / recipe.text.split()[1]).write_text(recipe.text, encoding="utf-8")
    make_block(RewardMix, parts=yaml.safe_load(reward.text)["reward"])
    for command in lines(PAGE):
        run(command, "--json")
    assert len((workshop / "better.jsonl").read_text().splitlines()) == 48
    assert (workshop / "runs" / "decided" / "report.md").is_file()
    (program,) = blocks(PAGE, "python")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(program.text, {})
    assert said.getvalue().startswith("{'right': {'type': 'noul', 'noul': 0.")

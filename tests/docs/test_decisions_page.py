"""The page on decisions: its example is read, its commands and its program run, by transformers too."""

import contextlib
import io
import json
from pathlib import Path

import yaml

from smolt.config import RewardMix, make_block
from smolt.data.decision_rows import read_decision
from tests.deciding import deciding_model
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
    recipe, reward, stated = blocks(PAGE, "yaml")
    (workshop / recipe.text.split()[1]).write_text(recipe.text, encoding="utf-8")
    make_block(RewardMix, parts=yaml.safe_load(reward.text)["reward"])
    for command in lines(PAGE):
        run(command, "--json")
    assert len((workshop / "better.jsonl").read_text().splitlines()) == 48
    assert (workshop / "runs" / "decided" / "report.md").is_file()
    (workshop / "stated.yaml").write_text(stated.text, encoding="utf-8")
    deciding_model(workshop / "wide")  # a window in which the questions fit in words, byte by byte
    few = ["model.path=wide", "budget.updates=1", "--json"]
    run("smolt grpo stated.yaml --out runs/stated", "checks.forecast=false", "group=2", "prompts=2", *few)
    (row,) = map(json.loads, (workshop / "runs" / "stated" / "metrics.jsonl").read_text().splitlines())
    assert (row["reward/probabilities.stated"], row["reward"]) == (0, -2)
    (workshop / "shown.yaml").write_text("model: my-model\ndata: decisions.jsonl\n", encoding="utf-8")
    run("smolt sft shown.yaml --out runs/shown", *few)
    (program,) = blocks(PAGE, "python")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(program.text, {})
    assert said.getvalue().startswith("{'right': {'type': 'noul', 'noul': 0.")

"""The page on learning from pairs: its recipes run, and its table says what the recipe's class does."""

import json
from pathlib import Path

from smolt.config import DPORecipe
from smolt.training.offline import PER_TOKEN
from tests.docs.test_commands import lines, run
from tests.docs.workshop import ROOT, blocks, table

PAGE = ROOT / "docs" / "guides" / "preference-losses.md"


def test_the_recipes_run(workshop: Path) -> None:
    """Every command; the runs are complete, and SimPO's own defaults are in its manifest."""
    for block in blocks(PAGE, "yaml"):
        (workshop / block.text.split()[1]).write_text(block.text, encoding="utf-8")
    for command in lines(PAGE):
        run(command)
    manifest = json.loads((workshop / "runs" / "simpo" / "manifest.json").read_text())
    assert (manifest["recipe"]["beta"], manifest["recipe"]["gamma"], manifest["recipe"]["nll"]) == (2.0, 1.0, 0.0)
    facts = json.loads((workshop / "runs" / "kto" / "result.json").read_text())["facts"]
    assert (facts["desirable"], facts["undesirable"]) == (12, 12)


def test_the_table_is_true() -> None:
    """Every loss of the recipe: whether it has a reference, a mean per token, and an NLL unless told otherwise."""
    rows = table(PAGE, "`loss`")
    for name, reference, logprob, nll, _ in rows:
        recipe = DPORecipe.model_validate({"model": "m", "data": "d", "loss": name.split("`")[0]})
        assert (reference == "none") is recipe.reference_free
        assert logprob.startswith("mean") is (recipe.loss in PER_TOKEN)
        assert (nll == "weight 1") is (recipe.nll == 1.0)
    losses = [name.split("`")[0] for name, *_ in rows]
    assert losses == ["sigmoid", "ipo", "simpo", "orpo", "cpo"]

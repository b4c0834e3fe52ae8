"""The page on adapters, optimizers and GRPO's choices: its recipe runs, and its table names fields of `lora`."""

import json
from pathlib import Path

from smolt.config import LoRA
from tests.docs.test_commands import lines, run
from tests.docs.workshop import ROOT, blocks, table

PAGE = ROOT / "docs" / "guides" / "adapters-and-optimizers.md"


def test_the_recipe_runs(workshop: Path) -> None:
    """Both commands; the adapter says how it is scaled."""
    (block,) = blocks(PAGE, "yaml")
    (workshop / block.text.split()[1]).write_text(block.text, encoding="utf-8")
    for command in lines(PAGE):
        run(command, "seed=0")  # its own updates are few
    config = json.loads((workshop / "runs" / "adapters" / "model" / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["use_dora"], config["r"]) == (True, False, 16)


def test_the_table_names_fields() -> None:
    assert {row[0].split(":")[0] for row in table(PAGE, "field of `lora`")} <= set(LoRA.model_fields)

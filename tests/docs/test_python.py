"""The Python programs of the documentation run as written, with fewer updates."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

import smolt
from smolt.config import GRPORecipe, make_recipe
from tests.docs.workshop import PAGES, README, blocks, named

ELSEWHERE = {
    "docs/guides/serve.md",  # its program asks a server: tests/docs/test_serve_page.py
    "docs/guides/decisions.md",  # its program loads what the page's commands make: tests/docs/test_decisions_page.py
    "docs/guides/clusters.md",  # it needs another package: tests/docs/test_clusters_page.py
}
PROGRAMS = {
    named(page): [block.text for block in blocks(page, "python")] for page in PAGES if named(page) not in ELSEWHERE
}
MOST_UPDATES = 2


def shortened(program: str) -> str:
    return re.sub(r'("updates": )\d+', rf"\g<1>{MOST_UPDATES}", program)


def test_the_readme_needs_ten_lines() -> None:
    """The API in ten statements or fewer, 14 lines at most."""
    program = PROGRAMS[named(README)][0]
    assert len([line for line in program.splitlines() if line.strip()]) <= 14


@pytest.mark.parametrize("page", [name for name, programs in PROGRAMS.items() if programs])
def test_programs_run(page: str, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, each in a namespace of its own; what the README's prints is the adapter's directory."""
    for number, program in enumerate(PROGRAMS[page]):
        path = workshop / f"{Path(page).stem}-{number}.py"
        path.write_text(shortened(program), encoding="utf-8")
        runpy.run_path(str(path))
    if page == named(README):
        printed = capsys.readouterr().out.splitlines()
        assert Path(printed[-1]).joinpath("adapter_config.json").is_file()
        assert len(printed) == MOST_UPDATES + 1


def test_a_reward_beside_a_whole_recipe_is_refused(workshop: Path) -> None:
    """A recipe has its reward; a second one in words is an error, not ignored."""
    recipe = make_recipe("grpo", model="my-model", data="questions.jsonl", reward="gsm8k")
    assert isinstance(recipe, GRPORecipe)
    with pytest.raises(smolt.UserError, match=r"^reward: a recipe was given; put the fields into it$"):
        smolt.grpo(recipe, reward="sentiment")


def test_the_model_of_a_path_takes_fields_beside_it(workshop: Path) -> None:
    """The dtype as in a recipe's model block; the path once, and no field twice."""
    rows = [smolt.Demonstration((smolt.Turn("user", "Hello?"),), "Yes.")] * 4
    fields: dict[str, Any] = {"budget": {"updates": 1}, "batch": 2}
    training = smolt.sft("my-model", rows, model={"dtype": "fp32", "threads": 1}, out=workshop / "fp32", **fields)
    training.close()
    asked = json.loads((workshop / "fp32/manifest.json").read_text())["recipe"]["model"]
    assert (asked["path"], asked["dtype"], asked["threads"]) == ("my-model", "fp32", 1)
    for twice, message in (
        ({"model": {"path": "other"}}, r"^model\.path: is other, and the first argument is my-model"),
        ({"model": "other"}, r"^model: the path is the first argument"),
        ({"data": "demonstrations.jsonl"}, r"^data: was handed over in memory, and is given as a field too"),
        ({"stage": "dpo"}, r"^stage: is sft already"),
        ({"model": {"dtyp": "fp32"}}, r"model\.dtyp: .*dtype"),
    ):
        with pytest.raises(smolt.UserError, match=message):
            smolt.sft("my-model", rows, **twice, **fields)

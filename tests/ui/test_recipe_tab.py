"""The form for recipes: what it writes is a recipe, what is wrong is said as smolt says it, what it starts runs."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra ui is not installed")

from smolt.config import REWARDED, load_recipe, make_recipe, shipped_recipes
from smolt.config.reference import REQUIRED, stage_fields
from smolt.errors import UserError
from smolt.runs.listing import run_at
from smolt.ui.launches import Launches
from smolt.ui.tabs.recipe_form import TRAINED, Draft, checked, form_fields, shipped_text, text_of
from tests.tiny import tiny_model
from tests.ui.conftest import Opener, tab

NEEDED = {
    "model.path": "base",
    "teacher.path": "larger",
    "data.path": "data.jsonl",
    "reward": "[gsm8k, {name: length, weight: 0.5}]",
}
OPTIONAL = ("dev", "lora", "server")
"""Blocks that may be left out, whatever in them must be filled in."""


def draft_of(stage: str, given: Mapping[str, str]) -> Draft:
    """The recipe that a filled-in form means; fields left empty keep their defaults."""
    return checked(text_of(stage, given))


def needed(stage: str) -> dict[str, str]:
    return {field.name: NEEDED[field.name] for field in form_fields(stage) if field.name in NEEDED}


@pytest.mark.parametrize("stage", TRAINED)
def test_what_must_be_filled_in_makes_a_recipe(stage: str, tmp_path: Path) -> None:
    """The form's YAML is a file that load_recipe takes, equal to the recipe made of the same values."""
    draft = draft_of(stage, needed(stage))
    assert draft.error == ""
    (tmp_path / "recipe.yaml").write_text(draft.text)
    recipe = load_recipe(tmp_path / "recipe.yaml", stage)
    values: dict[str, Any] = {"data.path": "data.jsonl"} | ({"model.path": "base"} if stage != "pretrain" else {})
    if "teacher.path" in needed(stage):
        values["teacher.path"] = "larger"
    if "reward" in needed(stage):
        values["reward"] = ["gsm8k", {"name": "length", "weight": 0.5}]
    assert recipe == make_recipe(stage, **values)


@pytest.mark.parametrize("stage", TRAINED)
def test_a_form_has_every_field(stage: str) -> None:
    """Each plain field of the stage, the reward as one; required ones come first."""
    names = [field.name for field in form_fields(stage)]
    whole = {name.split(".")[0] for name in names} & {"reward"} if stage in REWARDED else set()
    plain = [entry.name for entry in stage_fields(stage) if entry.block is None]
    assert set(names) == {name for name in plain if name.split(".")[0] not in whole} | whole
    required = [field.default == REQUIRED and field.block not in OPTIONAL for field in form_fields(stage)]
    assert required == sorted(required, reverse=True)


def test_every_default_may_be_written_out() -> None:
    """Filling a form with its own defaults changes nothing."""
    for stage in TRAINED:
        given = {
            field.name: field.default
            for field in form_fields(stage)
            if field.default != REQUIRED and field.name.split(".")[0] not in OPTIONAL
        }
        draft = draft_of(stage, {**given, **needed(stage)})
        assert draft.error == "", stage


def test_what_is_wrong_is_said_as_smolt_says_it() -> None:
    draft = draft_of("sft", {"model.path": "base", "optim.lr": "2"})
    assert draft.error.splitlines() == [
        "recipe:1: data: missing (demonstrations)",
        "recipe:5: optim.lr: is 2; must be less than or equal to 1",
    ]
    assert draft.command(Path("runs")) == ""
    assert "unknown stage" in checked("stage: stf\n").error
    assert "starts with a letter or digit" in draft_of("sft", {**needed("sft"), "name": "../x"}).error
    assert checked("a: [").error.startswith("recipe:")


def test_the_text_is_what_was_typed() -> None:
    """Numbers stay as typed, empty fields are left out, a line break cannot leave its field."""
    given = {"model.path": "base", "optim.lr": "1e-4", "batch": "", "data.path": "a\nstage: dpo"}
    assert text_of("sft", given) == (
        "stage: sft\nmodel:\n  path: base\noptim:\n  lr: 1e-4\ndata:\n  path: a stage: dpo\n"
    )


def test_the_command_of_a_recipe() -> None:
    draft = draft_of("sft", {**needed("sft"), "name": "first"})
    assert draft.command(Path("runs")) == "smolt sft runs/recipes/first.yaml --out runs/first"


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_can_be_begun_with(name: str) -> None:
    draft = checked(shipped_text(name))
    assert draft.error == "" or "required" in draft.error or "model" in draft.error  # some leave the model to the user
    assert draft.text


def started(folder: Path) -> tuple[Launches, str]:
    base = tiny_model(folder / "base")
    rows = [{"prompt": f"Question {number}?", "completion": f"Answer {number}."} for number in range(8)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"model.path": str(base), "data.path": str(folder / "data.jsonl"), "name": "first", "batch": "4"}
    draft = draft_of("sft", {**given, "budget.updates": "2", "model.threads": "1", "model.device": "cpu"})
    assert draft.error == ""
    return Launches(folder / "runs", os.environ), draft.text


def test_what_is_started_runs_to_its_end(tmp_path: Path) -> None:
    """`python -m smolt sft` as a process of its own: it ends with 0, complete after 2 updates; not twice."""
    launches, text = started(tmp_path)
    assert launches.start(text) == "first"
    with pytest.raises(UserError, match="runs already"):
        launches.start(text)
    until = time.monotonic() + 120
    while launches.state("first")[1] is None and time.monotonic() < until:
        time.sleep(0.2)
    said, code = launches.state("first")
    assert code == 0, said
    run = run_at(tmp_path / "runs", "first")
    assert (run.state, run.result["updates"]) == ("complete", 2)
    assert (tmp_path / "runs" / "recipes" / "first.yaml").read_text() == text
    with pytest.raises(UserError, match="holds another recipe"):
        launches.start(text.replace("batch: 4", "batch: 2"))
    with pytest.raises(UserError, match="unknown stage"):
        launches.start("stage: nonsense\n")


def test_a_form_writes_yaml_that_smolt_accepts(opened: Opener, page: Any, tmp_path: Path) -> None:
    """Typed into the form: a mistake is named with its field while typing, the mended recipe is a file smolt takes."""
    tab(page, opened(), "Recipe")
    page.fill("#field-model-path input", "base")
    page.fill("#field-batch input", "none")
    page.get_by_text("batch: is 'none'; must be a whole number").wait_for()
    assert page.is_disabled("#start")
    page.fill("#field-batch input", "4")
    page.fill("#field-data-path input", "data.jsonl")
    page.get_by_text("A valid recipe.").wait_for()
    assert page.is_enabled("#start")
    text = page.input_value("#yaml textarea")
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(tmp_path / "recipe.yaml", "sft") == make_recipe("sft", model="base", data="data.jsonl", batch=4)
    assert "smolt sft" in page.inner_text("#verdict pre")
    page.fill("#yaml textarea", f"{text}betch: 4\n")
    page.get_by_text('did you mean "batch"').wait_for()


def test_start_is_for_this_machine_alone(opened: Opener, page: Any) -> None:
    """A face that others reach has no Start button, with or without the password."""
    address = opened(host="0.0.0.0", password="correct horse")
    page.goto(address)
    page.fill("#password", "correct horse")
    page.keyboard.press("Enter")
    page.get_by_role("tab", name="Recipe", exact=True).click()
    page.wait_for_selector("#yaml")
    assert page.query_selector("#start") is None


def test_a_start_in_the_page_is_a_run_under_runs(opened: Opener, page: Any, tmp_path: Path) -> None:
    """Start runs the recipe as a process; what it says is on the page, and the run is complete under Runs."""
    launches, text = started(tmp_path)
    tab(page, opened(runs=launches.runs), "Recipe")
    page.fill("#yaml textarea", text)
    page.wait_for_selector("#start button:enabled, button#start:enabled")
    page.click("#start")
    page.get_by_text("first has ended with exit code 0").wait_for(timeout=120_000)
    page.get_by_role("tab", name="Runs", exact=True).click()
    page.get_by_text("✓ complete").first.wait_for()
    assert page.inner_text("#run h2") == "first"
    assert page.locator("#run .curve").count() > 0

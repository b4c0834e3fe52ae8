"""Happier stories: openings are continued word for word, and both arms get happier near their reference."""

import json
from pathlib import Path

import pytest

from smolt.config import Model, StudyRecipe, load_recipe
from smolt.data import Turn
from smolt.models.ground import open_ground
from smolt.report.pictures import plots
from smolt.study.study import run_study
from tests.shared import shared_path

SMALL = [
    "study.items=6",
    "study.sampling.max_tokens=8",
    "ppo.budget={updates: 2}",
    "ppo.prompts=8",
    "ppo.sampling.max_tokens=8",
    "grpo.budget={updates: 2}",
    "grpo.prompts=2",
    "grpo.sampling.max_tokens=8",
]
BUDGET = 8.0
"""Nats a story, as the recipe and its page say."""


def stories(*overrides: str) -> StudyRecipe:
    model = shared_path("models/stories260k")
    recipe = load_recipe("stories-positive", None, [f"model.path={model}", "model.device=cpu", *overrides])
    assert isinstance(recipe, StudyRecipe)
    return recipe


def test_nothing_stands_between_opening_and_continuation() -> None:
    """Context and answer are the begin token and the whole text's tokens; style question adds a newline."""
    path = str(shared_path("models/stories260k"))
    opening, rest = "Once upon a time, there was a", " little girl named Lily."
    plain = open_ground(Model(path=path, style="plain")).renderer
    context = plain.context((Turn("user", opening),))
    bos = plain.tokenizer.bos_token_id
    assert context == [bos, *plain.tokenizer(opening)["input_ids"]]
    assert context + plain.answer(rest, stop=False) == [bos, *plain.tokenizer(opening + rest)["input_ids"]]
    assert plain.decode(plain.answer(rest)) == rest
    question = open_ground(Model(path=path)).renderer
    assert (question.style, len(question.context((Turn("user", opening),)))) == ("question", len(context) + 1)


def test_two_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both arms against base by mean reward, KL included; the trained models keep the style."""
    monkeypatch.setattr(plots, "draw", lambda *given: plots.Pictures())
    run_study(stories(*SMALL), out=tmp_path / "study")
    report = json.loads((tmp_path / "study" / "report.json").read_text(encoding="utf-8"))
    assert set(report["arms"]) == {"base", "ppo", "grpo"}
    assert report["arms"]["ppo"]["reward"]["n"] == 6
    style = json.loads((tmp_path / "study" / "grpo" / "model" / "rendering.json").read_text())["style"]
    assert style == "plain"


@pytest.mark.slow
def test_stories_become_happier(tmp_path: Path) -> None:
    """On 240 held-out openings sentiment rises with an interval clear of 0, and the mean KL is within its budget."""
    recipe = stories()
    ppo = next(section.recipe for section in recipe.sections if section.name == "ppo")
    assert ppo.model_dump()["kl"]["budget"] == BUDGET
    run_study(recipe, out=tmp_path / "study")
    report = json.loads((tmp_path / "study" / "report.json").read_text(encoding="utf-8"))
    raised = {pair["b"]: pair["low"] for pair in report["comparisons"] if pair["metric"] == "reward"}
    assert set(raised) == {"ppo", "grpo"}
    assert min(raised.values()) > 0
    assert {report["arms"][arm]["reward"]["n"] for arm in report["arms"]} == {240}
    assert max(report["arms"][arm]["kl"]["value"] for arm in ("ppo", "grpo")) <= BUDGET

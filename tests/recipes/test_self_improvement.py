"""A model that labels its own answers, and a judge of its size: the shipped recipe small, at two sizes."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolt.config import StudyRecipe, load_recipe
from smolt.report.pictures import plots
from smolt.study.study import run_study

LABELS = ("own_labels", "own_labels_again", "peer_labels", "peer_labels_again")
SMALL = [
    "model.threads=1",
    "problems={train: 150, dev: 20, test: 30, demonstrations: 150, brief: 0.5, facts: 100}",
    "other_problems.train=60",
    "pretrain.tokenizer.vocab=400",
    "pretrain.budget={updates: 2}",
    "sft.budget={updates: 30}",
    *(f"{name}.data.limit=24" for name in LABELS),
    *(f"{name}.judge.probes=2" for name in LABELS),
]


@pytest.mark.parametrize("hidden", [16, pytest.param(32, marks=pytest.mark.slow)])
def test_two_rounds_at_two_sizes(hidden: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights judge their own answers in each round, the peer in both; four cards, four paired comparisons."""
    monkeypatch.setattr(plots, "draw", lambda *given: plots.Pictures())
    shape = f"pretrain.shape={{hidden: {hidden}, layers: 1, heads: 2, mlp: 64, window: 1024}}"
    recipe = load_recipe("self-improvement", None, [*SMALL, shape])
    assert isinstance(recipe, StudyRecipe)
    run_study(recipe, out=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    compared = {row["b"] for row in report["comparisons"] if row["a"] == "sft" and row["metric"] == "accuracy"}
    assert compared == {"own_once", "own_twice", "peer_once", "peer_twice"}
    cards = {panel["name"] for panel in report["panels"] if panel["name"].startswith("judge-")}
    assert cards == {f"judge-{name.replace('_', '-')}" for name in LABELS}
    judged = {name: recipe_of(tmp_path, name) for name in LABELS}
    assert judged["own_labels"]["judge"]["path"] == judged["own_labels"]["model"]["path"]
    assert judged["own_labels_again"]["judge"]["path"] == judged["own_labels_again"]["model"]["path"]
    assert judged["own_labels_again"]["model"]["path"] == str(tmp_path / "own_once" / "model")
    peers = [judged[name]["judge"]["path"] for name in ("peer_labels", "peer_labels_again")]
    assert peers == [str(tmp_path / "peer" / "model")] * 2
    assert all(judgements(tmp_path / name)["abstentions"] == 0 for name in LABELS)


def recipe_of(study: Path, section: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((study / section / "manifest.json").read_text(encoding="utf-8"))
    recipe: dict[str, Any] = manifest["recipe"]
    return recipe


def judgements(section: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((section / "judge-card.json").read_text(encoding="utf-8"))
    return card

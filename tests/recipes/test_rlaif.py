"""RLHF and RLAIF side by side: rule labels, judge labels and a control on the same answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolt.config import StudyRecipe, load_recipe
from smolt.report.pictures import plots
from smolt.study.study import run_study

SMALL = [
    "model.threads=1",
    "problems={train: 200, dev: 20, test: 30, demonstrations: 150, brief: 0.5, facts: 100}",
    "other_problems.train=60",
    "pretrain.tokenizer.vocab=400",
    "pretrain.shape={hidden: 32, layers: 1, heads: 2, mlp: 64, window: 128}",
    "pretrain.budget={updates: 2}",
    "sft.budget={updates: 30}",
    "human_labels.data.limit=60",
    "ai_labels.data.limit=60",
    "more_ai_labels.data.limit=60",
    "rlaif_online_dpo.budget={updates: 1}",
    "rlaif_online_dpo.prompts=8",
    "rlaif_ppo.budget={updates: 1}",
    "rlaif_ppo.prompts=8",
]


def run(out: Path, *overrides: str) -> dict[str, Any]:
    recipe = load_recipe("rlaif-quickstart", None, list(overrides))
    assert isinstance(recipe, StudyRecipe)
    run_study(recipe, out=out)
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report


def against_sft(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["b"]: row for row in report["comparisons"] if row["a"] == "sft" and row["metric"] == "accuracy"}


def test_every_stage_runs_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All arms are measured, the judge's card is in the report, and the control learned the answers that lost."""
    monkeypatch.setattr(plots, "draw", lambda *given: plots.Pictures())
    report = run(tmp_path / "study", *SMALL)
    arms = {"rlhf_dpo", "rlaif_dpo", "rlaif_dpo_twice", "rlaif_online_dpo", "rlaif_ppo", "rejected"}
    assert set(against_sft(report)) == arms
    assert all(report["arms"][arm]["accuracy"]["n"] == 30 for arm in arms | {"sft"})
    assert any("judge" in panel["name"] for panel in report["panels"])
    study = tmp_path / "study"
    pairs = (study / "human_labels" / "preferences.jsonl").read_text(encoding="utf-8").count("\n")
    updates = json.loads((study / "rejected" / "result.json").read_text())["updates"]
    assert updates == -(-pairs // 16)


@pytest.mark.slow
def test_both_feedbacks_gain_and_the_control_loses(tmp_path: Path) -> None:
    """n = 1,000: both labels' DPO above SFT and the control below it, each with p < 0.01."""
    found = against_sft(run(tmp_path / "study"))
    for arm in ("rlhf_dpo", "rlaif_dpo"):
        assert found[arm]["n"] == 1000 and found[arm]["difference"] > 0 and found[arm]["p_value"] < 0.01
    assert found["rejected"]["difference"] < 0 and found["rejected"]["p_value"] < 0.01

"""The four systems from first stage to report, on a shrunken copy of their architecture, two updates a stage."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from smolt.report.pictures import plots
from smolt.study.study import run_study
from tests.recipes.studies import UPDATES, small
from tests.recipes.systems import System, shrunken_config, system_model

SMALL_SLM = [
    "pretrain.tokenizer.vocab=300",
    "pretrain.shape={hidden: 32, layers: 2, heads: 4, kv_heads: 2, mlp: 64, window: 512}",
]


SHORT_DIALOGUES = ["model.window=320"]
"""Padded attention costs the square of the longest dialogue."""


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a small study's time, and one of the four does it."""
    monkeypatch.setattr(plots, "draw", lambda *given: plots.Pictures())


def run(name: str, system: System | None, folder: Path, *more: str, records: int = 16) -> dict[str, Any]:
    """The report of a small study, and that every stage took its updates with finite figures."""
    model = system_model(folder / "base", system, shrunken_config(system)) if system else None
    recipe = small(name, model, records, UPDATES, *more)
    assert run_study(recipe, out=folder / "study")["status"] == "complete"
    for section in recipe.sections:
        if section.recipe.stage in ("best_of_n", "pairs"):
            continue
        rows = [
            json.loads(line) for line in (folder / "study" / section.name / "metrics.jsonl").read_text().splitlines()
        ]
        assert [row["step"] for row in rows] == list(range(1, UPDATES + 1))
        assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    report = json.loads((folder / "study" / "report.json").read_text(encoding="utf-8"))
    assert isinstance(report, dict)
    return report


def facts(folder: Path, section: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "study" / section / "result.json").read_text())["facts"]
    return found


def adapter(folder: Path, section: str) -> tuple[int, float, list[str]]:
    """Rank, alpha and targets of a section's adapter, which was trained: its B is not zero."""
    directory = folder / "study" / section / "model"
    config = json.loads((directory / "adapter_config.json").read_text())
    weights = load_file(directory / "adapter_model.safetensors")
    assert any(bool(value.any()) for key, value in weights.items() if "lora_B" in key)
    targets = {name.rpartition(".")[2] for name in config["target_modules"]}
    return config["r"], config["lora_alpha"], sorted(targets)


@pytest.mark.usefixtures("no_pictures")
def test_qwen_gsm8k_rlaif(tmp_path: Path) -> None:
    """Both arms against base with wins and regressions; packed; adapters of rank 16 on every linear layer."""
    report = run("qwen-gsm8k-rlaif", "qwen", tmp_path)
    assert set(report["arms"]) == {"base", "ppo_kl_0.2", "ppo_kl_0.05"}
    assert report["arms"]["base"]["accuracy"]["n"] == 4
    pairs = {(pair["a"], pair["b"]) for pair in report["comparisons"] if pair["metric"] == "accuracy"}
    assert pairs == {("base", "ppo_kl_0.2"), ("base", "ppo_kl_0.05")}
    assert all({"wins", "regressions"} <= set(pair) for pair in report["comparisons"])
    assert facts(tmp_path, "ppo_kl_0.2")["forward"] == "packed"
    rank, alpha, targets = adapter(tmp_path, "ppo_kl_0.05")
    assert (rank, alpha) == (16, 32.0)
    assert targets == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


@pytest.mark.usefixtures("no_pictures")
def test_gptneo_hh(tmp_path: Path) -> None:
    """The padded forward serves the local attention; DPO continues SFT; scenario prompts are answered."""
    report = run("gptneo-hh", "gptneo", tmp_path, *SHORT_DIALOGUES, records=60)
    assert {"sft", "dpo", "rlaif_dpo", "rejected"} <= set(report["arms"])
    assert {report["arms"][arm]["reward"]["n"] for arm in ("dpo", "rlaif_dpo", "rejected")} == {4}
    record = json.loads((tmp_path / "study" / "record.json").read_text(encoding="utf-8"))
    assert "judge-ai-labels" in {panel["name"] for panel in record["panels"]}
    assert {facts(tmp_path, name)["forward"] for name in ("sft", "reward", "dpo")} == {"padded"}
    weights = [load_file(tmp_path / "study" / name / "model" / "model.safetensors") for name in ("sft", "dpo")]
    assert not all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_smollm2_orca(tmp_path: Path) -> None:
    """Base, DPO, PPO, GRPO and best-of-n by the reward model's score and by length; adapters on q and v alone."""
    report = run("smollm2-orca", "smollm2", tmp_path)
    assert {"base", "dpo", "ppo", "grpo", "best_of_n"} <= set(report["arms"])
    for arm in ("base", "dpo", "ppo", "grpo", "best_of_n"):
        assert {"reward", "length"} <= set(report["arms"][arm])
    pictures = {path.stem for path in (tmp_path / "study" / "plots").glob("*.svg")}
    assert {"reward_by_model", "kinds-by-kind"} <= pictures
    assert facts(tmp_path, "grpo")["forward"] == "packed"
    assert adapter(tmp_path, "dpo") == adapter(tmp_path, "ppo") == (8, 32.0, ["q_proj", "v_proj"])


@pytest.mark.usefixtures("no_pictures")
def test_slm_25m(tmp_path: Path) -> None:
    """From text alone: tokenizer, pretraining, SFT, reward model, PPO."""
    report = run("slm-25m", None, tmp_path, *SMALL_SLM)
    assert {"sft", "ppo", "best_of_n"} <= set(report["arms"])
    assert facts(tmp_path, "pretrain")["parameters"] == 300 * 32 + 2 * (32 * 32 * 3 + 3 * 32 * 64 + 2 * 32) + 32

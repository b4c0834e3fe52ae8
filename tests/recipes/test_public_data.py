"""Public data as people have it: the roles are right, and every stage that fits takes updates on it.

The model is stories260k: 512 tokens of window, a vocabulary of 512, no chat template. Longer records are left out and
counted.
"""

import math
from pathlib import Path
from typing import Any

import pytest

from smolt.config import make_recipe
from smolt.data import Source, load
from smolt.training.algorithms import STAGES
from tests.shared import shared_path

UPDATES = 2
RECORDS = 12
ADAPTERS = {"lora": {"rank": 4, "alpha": 8}, "full": None}
HH, PAIRS = "hh/harmless-base-test.jsonl.gz", "hh/harmless_test_pairs.jsonl"
GSM8K, ULTRA = "gsm8k/train.jsonl", "ultrafeedback/train_clean.jsonl"
SHAREGPT, ALPACA, OASST = "sharegpt/dpo_en_demo.json", "sharegpt/alpaca_en_demo.json", "oasst/ranked_pairs.jsonl"

FITTING = [
    *((name, stage) for name in (HH, PAIRS, ULTRA, SHAREGPT, OASST) for stage in ("reward", "dpo")),
    *((name, stage) for name in (GSM8K, ALPACA, HH) for stage in ("sft", "grpo")),
]
"""Preferences train reward models and DPO; what has answers or questions trains SFT and GRPO."""

CASES = [
    pytest.param(
        *case,
        adapters,
        marks=() if (number // 2 + place) % 2 == 0 else pytest.mark.slow,
    )
    for number, case in enumerate(FITTING)
    for place, adapters in enumerate(ADAPTERS)
]
"""Adapters and full weights for each; in the fast set they take turns, so that every stage has both."""


@pytest.mark.parametrize("name", [GSM8K, ALPACA, ULTRA, HH, PAIRS, SHAREGPT, OASST])
def test_speakers(name: str) -> None:
    """User and assistant take turns, the user first and last; only ShareGPT has system turns, 80 of them."""
    contexts = [record.context for record in load(Source(str(shared_path(f"data/{name}"))), "questions").records]
    spoken = [[turn.role for turn in context] for context in contexts]
    systems = sum(roles[0] == "system" for roles in spoken)
    turns = [roles[1:] if roles[0] == "system" else roles for roles in spoken]
    assert all(roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] for roles in turns)
    assert systems == (80 if name == SHAREGPT else 0)


@pytest.mark.parametrize(("name", "stage", "adapters"), CASES)
def test_updates(name: str, stage: str, adapters: str, tmp_path: Path) -> None:
    """Two updates with finite figures; what was kept and what was too long make up all that was read."""
    training = STAGES[stage](make_recipe(stage, **fields(name, stage, adapters)), out=tmp_path)
    rows = list(training)
    result = training.finish()
    assert [row["step"] for row in rows] == [1, 2]
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    assert sum(result.metrics["facts"].get(name, 0) for name in ("records", "too_long", "identical")) == RECORDS
    assert (tmp_path / "model" / ("adapter_config.json" if adapters == "lora" else "config.json")).is_file()


def fields(name: str, stage: str, adapters: str) -> dict[str, Any]:
    """The recipe of one run."""
    own: dict[str, Any] = {"batch": 2}
    if stage == "grpo":
        own = {"prompts": 2, "group": 4, "sampling": {"max_tokens": 16}}
        own["reward"] = ["sentiment", {"name": "length", "weight": 0.1, "options": {"target": 8}}]
    return {
        "model": {"path": str(shared_path("models/stories260k")), "device": "cpu", "dtype": "fp32"},
        "data": {"path": str(shared_path(f"data/{name}")), "limit": RECORDS, "too_long": "drop"},
        "lora": ADAPTERS[adapters],
        "budget": {"updates": UPDATES},
        **own,
    }


def test_too_long_records_are_counted(tmp_path: Path) -> None:
    """Of the first 12 UltraFeedback pairs at least 6 exceed 512 tokens of so small a vocabulary; all 12 are counted."""
    training = STAGES["dpo"](make_recipe("dpo", **fields(ULTRA, "dpo", "full")), out=tmp_path)
    remarks = training.remarks
    facts = training.finish().metrics["facts"]
    assert f"left out, for they exceed the window: {facts['too_long']} of 12 records" in remarks
    assert facts["too_long"] >= 6
    assert facts["records"] + facts["too_long"] + facts["identical"] == RECORDS


def test_too_long_dev_records_are_counted_too(tmp_path: Path) -> None:
    recipe = fields(ULTRA, "dpo", "lora")
    training = STAGES["dpo"](make_recipe("dpo", **recipe, dev=recipe["data"]), out=tmp_path)
    said = [line for line in training.remarks if "exceed the window" in line]
    assert said[1] == f"dev data: {said[0]}"

"""A budget of minutes under a clock that the loss moves: the total by hand, the schedule over it, kill and resume."""

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from smolt.models.groups import Groups
from smolt.models.roles import Policy
from smolt.training.fit import Loss, LossFunction
from smolt.training.offline import sft_loss
from smolt.training.stage import Training
from tests.reliability.scenes import open_scene
from tests.reliability.traces import traces

FIRST, LATER = 9.0, 2.0
TOTAL = 46  # 100 s: 9 + 3 x 2 are used when it is fixed after update 4; 85 s at 2 s an update are 42 more
CHANGES: dict[str, Any] = {
    "budget__updates": None,
    "budget__epochs": 1000.0,
    "budget__minutes": 100 / 60,
    "save__every": 0,
    "watch__every": 0,
}


class FakeClock:
    """Stands still but for the loss: `first` seconds the first time, then `later`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, first: float = FIRST, later: float = LATER) -> None:
        self.value, self.next, self.later = 1000.0, first, later
        monkeypatch.setattr("smolt.training.stage.now", lambda: self.value)
        monkeypatch.setattr(importlib.import_module("smolt.training.algorithms.sft"), "sft_loss", self.slow_loss)

    def slow_loss(self, policy: Policy) -> LossFunction:
        loss = sft_loss(policy)

        def slow(batch: Groups) -> Iterator[Loss]:
            if torch.is_grad_enabled():  # measuring on dev data takes no time
                self.value, self.next = self.value + self.next, self.later
            yield from loss(batch)

        return slow


def opened(inputs: Path, out: Path, **changes: Any) -> Training:
    return open_scene("sft-lora", inputs, out, **{**CHANGES, **changes})


@pytest.fixture
def whole(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The uninterrupted run."""
    with monkeypatch.context() as patch:
        FakeClock(patch)
        opened(inputs, tmp_path / "whole").finish()
    return traces(tmp_path / "whole")


def test_the_total_and_its_schedule_by_hand(whole: dict[str, Any]) -> None:
    """46 updates; from the fifth on the cosine runs over them: 0.01 / 2 (1 + cos(pi (n - 2) / 44))."""
    metrics = whole["metrics.jsonl"]
    assert len(metrics) == TOTAL
    assert metrics[3]["events"] == ["2 s an update: 46 updates fit into 1.67 minutes"]
    assert metrics[-1]["stop"] == "the time is up (1.7 minutes)"
    expected = [0.005 * (1 + math.cos(math.pi * (number - 2) / (TOTAL - 2))) for number in range(4, TOTAL)]
    assert [row["learning_rate"] for row in metrics[4:]] == pytest.approx(expected)
    assert metrics[-1]["learning_rate"] < 1e-4 * 0.4  # decayed, where the schedule of 1000 epochs is at its peak
    assert whole["result"]["time"] == {"total": TOTAL}


@pytest.mark.parametrize("left", [4, 10])
def test_kill_and_resume_keep_the_total(
    left: int, whole: dict[str, Any], inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left right after the total is fixed, or six updates later, and continued on a machine twice as fast."""
    FakeClock(monkeypatch)
    training = opened(inputs, tmp_path / "run")
    for _ in range(left):
        next(training)
    assert training.total == TOTAL
    training.close()
    FakeClock(monkeypatch, 1.0, 1.0)
    opened(inputs, tmp_path / "run").finish()
    assert traces(tmp_path / "run") == whole


def test_a_machine_that_slows_down_still_ends_in_time(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From update 5 on 5 s each: 15 s + 17 x 5 s = 100 s, so update 21 is the last; the model and result are there."""
    clock = FakeClock(monkeypatch)
    training = opened(inputs, tmp_path / "run")
    rows = []
    for metrics in training:
        rows.append(metrics)
        if metrics["step"] == 4:
            clock.next = clock.later = 5.0
    assert (rows[-1]["step"], rows[-1]["stop"]) == (21, "the time is up (1.7 minutes)")
    result = training.finish().metrics
    assert (result["updates"], result["training_seconds"]) == (21, 100.0)
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").is_file()


def test_enough_time_changes_nothing(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 updates planned, 46 fit: no event, and the rates of a run without a clock."""
    FakeClock(monkeypatch)
    opened(inputs, tmp_path / "free", budget__epochs=1.0, budget__minutes=None).finish()
    FakeClock(monkeypatch)
    opened(inputs, tmp_path / "timed", budget__epochs=1.0).finish()
    free, timed = traces(tmp_path / "free"), traces(tmp_path / "timed")
    assert timed["metrics.jsonl"] == free["metrics.jsonl"]
    assert timed["model"] == free["model"]

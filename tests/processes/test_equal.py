"""Two and four processes train as one does: weights after five updates, metrics, answers; cuts uneven, shares empty."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from smolt.runs import checkpoints
from tests.processes.conftest import Trained
from tests.processes.ranks import STAGES, UPDATES

SAME = 1e-6  # of weights, fp32
ALIKE = 1e-5  # of metrics: sums of many rounded numbers, relative where they are above 1
MOVED = 1e-4  # by which the last update moves some weight
OF_A_CLOCK = ("seconds", "tokens_per_second", "sampling_seconds", "scoring_seconds", "training_seconds")


def weights(run: Path, step: int) -> dict[str, Tensor]:
    place = next(path for path in sorted((run / "checkpoints").iterdir()) if path.name == f"step-{step:08d}")
    return load_file(place / "weights.safetensors")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def apart(first: Any, second: Any) -> float:
    """How far two metrics are apart; infinitely, where they are no numbers and not equal."""
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) / max(1.0, abs(first))
    return 0.0 if first == second else float("inf")


def compare(one: Path, several: Path) -> dict[str, Any]:
    """What is wrong with a scene's run on several processes: nothing, where it is that of one."""
    own, theirs = weights(one, UPDATES), weights(several, UPDATES)
    before = weights(one, UPDATES - 1)
    differing = max(float((own[key] - theirs[key]).abs().max()) for key in own)
    moved = max(float((own[key] - before[key]).abs().max()) for key in own)
    found: dict[str, Any] = {}
    if own.keys() != theirs.keys() or not differing <= SAME < MOVED < moved:
        found["weights"] = differing, moved
    updates = [rows(run / "metrics.jsonl") for run in (one, several)]
    found |= {
        f"{key} of update {first['step']}": (first.get(key), second.get(key))
        for first, second in zip(*updates, strict=True)
        for key in first.keys() | second.keys()
        if key not in OF_A_CLOCK and not apart(first.get(key, "none"), second.get(key, "none")) <= ALIKE
    }
    answers = [
        [(row["question_id"], row["answer"], row["reward"]) for row in rows(run / "samples.jsonl")]
        for run in (one, several)
    ]
    if len(updates[0]) != UPDATES or answers[0] != answers[1]:
        found["rows"] = answers
    return found


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_train_as_one(trained: Trained, count: int) -> None:
    """All stages: weights at most 1e-6 apart after 5 updates, the last of which moved some by more than 1e-4.

    Every metric of every update is within 1e-5 (relative above 1), and every answer is the same. Four processes share
    steps of two pairs or three rows, so some get nothing.
    """
    assert {name: compare(trained(1) / name, trained(count) / name) for name in STAGES} == {name: {} for name in STAGES}


def test_the_manifest_says_how_many(trained: Trained) -> None:
    """4 processes are recorded; of one process nothing is."""
    said = [json.loads((trained(count) / "sft-full" / "manifest.json").read_text()) for count in (4, 1)]
    assert said[0]["processes"] == 4
    assert "processes" not in said[1]


def test_only_the_first_process_writes(trained: Trained) -> None:
    """Beside a run lies nothing that one process alone would not leave, no temporary file among it."""
    left = [
        sorted(
            path.relative_to(trained(count)).as_posix()
            for path in trained(count).rglob("*")
            if "checkpoints" not in path.parts
        )
        for count in (1, 4)
    ]
    assert left[0] == left[1]
    assert checkpoints.newest(trained(4) / "ppo-lora" / "checkpoints")[1] == []

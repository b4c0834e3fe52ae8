"""Checkpoints by the clock: a kill loses minutes, not everything since a round number of updates."""

from pathlib import Path
from typing import Any

import pytest

import smolt
from smolt.runs import Run
from smolt.training import clock, stage
from tests.tiny import tiny_model


@pytest.mark.parametrize(
    ("fields", "cost", "expected"),
    [
        ({}, 0, [4, 8, 9]),  # updates of 100 s: more than 5 minutes lie behind updates 4 and 8; 9 is the last
        ({"minutes": 1.5}, 0, [*range(1, 10)]),
        ({"minutes": None}, 0, [9]),
        ({"every": 3}, 0, [3, 6, 9]),
        ({}, 100, [4, 9]),  # one that takes 100 s is not followed by another within 900 s
    ],
)
def test_which_updates_are_followed_by_a_checkpoint(
    fields: dict[str, Any], cost: int, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time, saved = [0], []
    written = Run.save_checkpoint

    def save(run: Run, step: int, *rest: Any, **named: Any) -> Path:
        saved.append(step)
        time[0] += cost
        return written(run, step, *rest, **named)

    def reward(questions: Any, answers: list[Any]) -> list[float]:
        time[0] += 100
        return [float(answer.tokens) for answer in answers]

    monkeypatch.setattr(stage, "now", lambda: time[0])
    monkeypatch.setattr(clock, "now", lambda: time[0])
    monkeypatch.setattr(Run, "save_checkpoint", save)
    smolt.grpo(
        str(tiny_model(tmp_path / "model")),
        ["one", "two"],
        reward=reward,
        out=tmp_path / "run",
        prompts=1,
        group=2,
        sampling={"max_tokens": 2},
        budget={"updates": 9},
        checks={"forecast": False},
        save=fields,
    ).finish()
    assert saved == expected

"""Updates whose answers all stay without a reward: nothing is learned from them, and too many in a row end the run."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import smolt
from smolt.data import Answer, Question, Score
from smolt.errors import UserError
from smolt.training.online import rolling, rollouts
from smolt.training.online.rollouts import UNREWARDED_LIMIT
from tests import tiny

QUESTIONS = ["a b c", "b c d", "c d e", "d e f"]
STAGES: dict[str, dict[str, Any]] = {
    "ppo": {
        "inner": {"minibatches": 1},
        "critic": {"warmup": 0},
        "kl": {"mode": "adaptive", "target": 0.5, "coefficient": 0.2},
    },
    "grpo": {"group": 3, "advantage": {"resample": 1}},
    "online_dpo": {"samples": 3},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.tiny_model(tmp_path_factory.mktemp("unrewarded") / "model"))


class Rater:
    """Abstains from every answer while it is silent, as a judge does whose window is too short."""

    def __init__(self) -> None:
        self.silent = False

    def __call__(self, questions: Sequence[Question], answers: Sequence[Answer]) -> list[Score]:
        if self.silent:
            return [Score(None, reason="too long")] * len(answers)
        return [Score(sum(answer.text.encode()) % 17 / 16) for answer in answers]


@pytest.fixture
def rater(monkeypatch: pytest.MonkeyPatch) -> Rater:
    found = Rater()
    monkeypatch.setattr(rolling, "mixed_reward", lambda *given: found)
    return found


def training(model: str, stage: str, out: Path, updates: int) -> smolt.Training:
    return getattr(smolt, stage)(
        model,
        QUESTIONS,
        reward={"name": "length", "options": {"target": 8}},
        prompts=2,
        sampling={"max_tokens": 6},
        optim={"lr": 0.003, "warmup": 0},
        budget={"updates": updates},
        checks={"forecast": False},
        save={"every": 1},
        out=out,
        **STAGES[stage],
    )


def silenced(steps: Iterator[dict[str, Any]], rater: Rater, updates: int) -> list[dict[str, Any]]:
    rater.silent = True
    found = [next(steps) for _ in range(updates)]
    rater.silent = False
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_such_an_update_is_left_out_and_told(model: str, stage: str, rater: Rater, tmp_path: Path) -> None:
    """One, two without, one: no step and no KL in the second and third, the fourth learns; the answers are on file."""
    steps = training(model, stage, tmp_path, 4)
    rows = [next(steps), *silenced(steps, rater, 2), *steps]
    assert [row["optimizer_steps"] > 0 for row in rows] == [True, False, False, True]
    assert [row.get("kl", 0.0) is None for row in rows] == [False, True, True, False]
    drawn = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    for row in rows[1:3]:
        count = sum(one["step"] == row["step"] for one in drawn)
        assert row["reward"] is None and row["events"] == [
            f"none of {count} answers got a reward, so nothing is learned from them (too long)"
        ]
    assert "events" not in rows[3]


def test_the_weights_stay_as_they_are(model: str, rater: Rater, tmp_path: Path) -> None:
    """PPO: weights of actor and critic, and the adapted coefficient, are the same after an update without a reward."""
    steps = training(model, "ppo", tmp_path, 4)
    next(steps)
    before = {name: value.clone() for name, value in steps._plan.learner.weights().items()}
    coefficient = steps._plan.stream.state()["coefficient"]
    silenced(steps, rater, 1)
    after = steps._plan.learner.weights()
    assert all(before[name].equal(after[name]) for name in before)
    assert steps._plan.stream.state() == {"coefficient": coefficient, "unrewarded": 1}
    steps.close()


@pytest.mark.parametrize("stage", STAGES)
def test_too_many_in_a_row_end_the_run_and_it_can_be_continued(
    model: str, stage: str, rater: Rater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit of 3: two, stopped, continued: the third ends it; once rewards come again, the same run goes on."""
    assert UNREWARDED_LIMIT == 20
    monkeypatch.setattr(rollouts, "UNREWARDED_LIMIT", 3)
    steps = training(model, stage, tmp_path, 5)
    next(steps)
    silenced(steps, rater, 2)
    steps.close()
    rater.silent = True
    with pytest.raises(UserError, match="no answer got one in 3 updates in a row, the last of them update 4"):
        list(training(model, stage, tmp_path, 5))
    rater.silent = False
    rows = list(training(model, stage, tmp_path, 5))
    assert [row["step"] for row in rows] == [4, 5]
    assert all(row["optimizer_steps"] for row in rows)


def test_questions_that_cannot_be_scored_do_not_end_ppo(model: str, tmp_path: Path) -> None:
    """One question an update, and two of four lack the solution that gsm8k compares with: two updates of four learn."""
    rows = [{"prompt": f"{n} hens?", **({"solution": str(n)} if n % 2 else {})} for n in range(4)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields: dict[str, Any] = {"sampling": {"max_tokens": 6}, "budget": {"updates": 4}, "critic": {"warmup": 0}}
    fields |= {
        "data": str(tmp_path / "q.jsonl"),
        "prompts": 1,
        "inner": {"minibatches": 1},
        "checks": {"forecast": False},
    }
    updates = list(smolt.ppo(model, reward="gsm8k", out=tmp_path / "run", **fields))
    assert sorted(row["abstained"] for row in updates) == [0, 0, 1, 1]
    assert all((row["optimizer_steps"] > 0) == (row["abstained"] == 0) for row in updates)

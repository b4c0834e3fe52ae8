"""Online DPO: which answers become pairs, that what is rewarded becomes likelier, and updates without a pair."""

import math

import pytest
import torch

import smolt
from smolt.models.groups import from_answers
from smolt.training.algorithms.online_dpo import best_and_worst, paired
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("online") / "model"))


def test_the_best_and_the_worst_of_each_question() -> None:
    """Abstentions are in no pair; answers that are all alike, or alone, give none; of equals the first is taken."""
    rewards = torch.tensor([1.0, 3.0, 3.0, -1.0, 2.0, 2.0, math.nan, 5.0, 0.5, math.nan, 0.25, 0.25])
    assert best_and_worst(rewards, [0] * 4 + [1] * 2 + [2] * 2 + [3] * 4) == [(1, 3), (8, 10)]


def test_pairs_stand_side_by_side() -> None:
    """The chosen answer comes first, whatever its place was; a context stands once."""
    groups = from_answers([[1], [2]], [[[11], [12]], [[21], [22], [23]]])
    kept = paired(groups, [(1, 0), (2, 3)])
    assert [answer.tolist() for answer in kept.answers] == [[12], [11], [21], [22]]
    assert [kept.columns[name].tolist() for name in ("side", "pair", "weight")] == [
        [0, 1, 0, 1],
        [0, 0, 1, 1],
        [1.0] * 4,
    ]
    assert len(kept.contexts) == 2


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_what_is_rewarded_becomes_likelier(lora: dict[str, int] | None, model: str) -> None:
    """The share of the letter e: it begins at the reference (loss ln 2, KL near 0) and ends above where it began."""
    rows = list(
        smolt.online_dpo(
            model,
            ["hen?", "tin?", "who?", "her?"],
            reward=lambda question, answer: answer.text.count("e") / (1 + len(answer.text)),
            prompts=4,
            samples=8,
            lora=lora,
            sampling={"max_tokens": 12},
            optim={"lr": 1e-2},
            budget={"updates": 12},
        )
    )
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert abs(rows[0]["kl"]) < 1e-5 and rows[0]["signal"] >= 0.5
    assert rows[0]["mismatch_max"] < 1e-4
    first, last = (sum(row["reward"] for row in part) / 3 for part in (rows[:3], rows[-3:]))
    assert last > first + 0.02
    assert rows[-1]["kl"] > 0


def test_nothing_is_learned_where_all_are_rated_alike(model: str) -> None:
    (row,) = smolt.online_dpo(
        model,
        ["hen?"],
        reward=lambda question, answer: 1.0,
        prompts=1,
        sampling={"max_tokens": 4},
        budget={"updates": 1},
        checks={"forecast": False},
    )
    assert (row["signal"], row["kl"], row["optimizer_steps"]) == (0.0, None, 0)

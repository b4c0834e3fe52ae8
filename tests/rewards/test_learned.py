"""Ensembles of reward models: the three ways to combine scores, by hand, and the options that are refused."""

from typing import Any

import pytest

from smolt.config import RewardPart
from smolt.data import Score
from smolt.errors import UserError
from smolt.rewards.learned import combined
from smolt.rewards.shorthand import Combine, Members, read_members


@pytest.mark.parametrize(("combine", "value"), [("mean", 3.0), ("min", 1.0), ("uncertainty", 3.0 - 0.5 * 8 / 3)])
def test_combined_by_hand(combine: Combine, value: float) -> None:
    """Scores 1, 3, 5: mean 3, least 1, variance 8/3, penalty 0.5."""
    score = combined([Score(1.0), Score(3.0), Score(5.0)], combine, 0.5)
    assert score.value == pytest.approx(value)
    parts = {"model_1": 1.0, "model_2": 3.0, "model_3": 5.0, "disagreement": pytest.approx((8 / 3) ** 0.5)}
    assert score.components == parts


def test_one_abstains_all_abstain() -> None:
    score = combined([Score(1.0), Score(None, reason="too long")], "mean", 1.0)
    assert (score.value, score.reason) == (None, "too long")
    assert score.components == {"model_1": 1.0, "model_2": None}


def test_options() -> None:
    part = RewardPart(name="ensemble", options={"path": ["a", "b"]})
    assert read_members(part) == Members(("a", "b"), "mean", 1.0, refused=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "options.path: must list the directories of at least two"),
        ({"path": ["a"]}, "at least two"),
        ({"path": ["a", "b"], "combine": "max"}, "options.combine: must be mean, min or uncertainty, not 'max'"),
        (
            {"path": ["a", "b"], "combine": "uncertainty", "penalty": -1},
            "options.penalty: must be a number",
        ),
        ({"path": ["a", "b"], "penalty": 1}, "options.penalty: is for combine: uncertainty"),
        ({"path": ["a", "b"], "weights": 1}, "options.weights: unknown option"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_members(RewardPart(name="ensemble", options=options))
    assert message in str(caught.value)

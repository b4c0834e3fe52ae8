"""Generalised advantage estimation against its definition, written as plainly as it can be."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smolt.training.objectives import gae


def plain_advantages(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """1506.02438 eq. 16 for one answer: A_t = sum over l of (gamma lam)^l delta_(t+l), the value after the end 0."""
    following = [*values[1:], 0.0]
    deltas = [r + gamma * after - before for r, before, after in zip(rewards, values, following, strict=True)]
    return [
        sum((gamma * lam) ** step * delta for step, delta in enumerate(deltas[start:])) for start in range(len(deltas))
    ]


NUMBERS = st.floats(-3, 3, width=32)
UNIT = st.floats(0, 1, width=32)
ANSWERS = st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=7), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(answers=ANSWERS, gamma=UNIT, lam=UNIT)
def test_gae_is_the_plain_sum(answers: list[list[tuple[float, float]]], gamma: float, lam: float) -> None:
    """Answers of unequal length side by side give each answer's own plain sum; returns = A + V; padding is exactly 0.

    What stands on padding (here NaN rewards and NaN values) reaches no real token.
    """
    width = max(map(len, answers))
    mask = torch.tensor([[t < len(answer) for t in range(width)] for answer in answers])
    blank = (float("nan"), float("nan"))
    cells = torch.tensor([[*answer, *[blank] * (width - len(answer))] for answer in answers], dtype=torch.float64)
    advantages, returns = gae(cells[..., 0], cells[..., 1], mask, gamma, lam)
    assert not bool(advantages[~mask].any())
    assert not bool(returns[~mask].any())
    for row, answer in enumerate(answers):
        values = [value for _, value in answer]
        expected = plain_advantages([reward for reward, _ in answer], values, gamma, lam)
        assert advantages[row, : len(answer)].tolist() == pytest.approx(expected, abs=1e-9)
        assert returns[row, : len(answer)].tolist() == pytest.approx(
            [advantage + value for advantage, value in zip(expected, values, strict=True)], abs=1e-9
        )


def test_gae_by_hand() -> None:
    """gamma 0.5, lam 0.5, rewards 1, 0, 2 and values 2, 4, 1.

    delta_2 = 2 + 0 - 1 = 1; delta_1 = 0 + 0.5 * 1 - 4 = -3.5; delta_0 = 1 + 0.5 * 4 - 2 = 1;
    A_2 = 1; A_1 = -3.5 + 0.25 * 1 = -3.25; A_0 = 1 + 0.25 * -3.25 = 0.1875; returns 2.1875, 0.75, 2.
    """
    ones = torch.ones(1, 3, dtype=torch.bool)
    rewards, values = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[2.0, 4.0, 1.0]])
    advantages, returns = gae(rewards, values, ones, gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[0.1875, -3.25, 1.0]]
    assert returns.tolist() == [[2.1875, 0.75, 2.0]]


def test_lambda_one_telescopes() -> None:
    """With gamma = lam = 1 the return of every token is the sum of the rewards still to come: 6, 5, 3 for 1, 2, 3."""
    ones = torch.ones(1, 3, dtype=torch.bool)
    _, returns = gae(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, -0.25, 4.0]]), ones, 1.0, 1.0)
    assert returns.tolist() == [[6.0, 5.0, 3.0]]

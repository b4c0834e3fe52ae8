"""A training that moves away from all it knew stops by itself; one that learns, however noisily, does not."""

import random
from typing import Any

import pytest

from smolt.errors import SelfCheckError
from smolt.training.checks import Divergence


def rows(name: str, values: list[float | None], **more: Any) -> list[dict[str, Any]]:
    return [{"step": at, "learning_rate": 0.1, name: value, **more} for at, value in enumerate(values, 1)]


def stopped_at(divergence: Divergence, updates: list[dict[str, Any]]) -> int | None:
    for row in updates:
        try:
            divergence.look(row)
        except SelfCheckError:
            return int(row["step"])
    return None


def test_four_of_five_updates_three_nats_above_the_first() -> None:
    """1.0, then 4.1 from update 3 on: the fourth is update 6; exactly 4.0 is not above."""
    assert stopped_at(Divergence(3.0), rows("loss", [1.0, 1.0, *[4.1] * 6])) == 6
    assert stopped_at(Divergence(3.0), rows("loss", [1.0, *[4.0] * 20])) is None
    assert stopped_at(Divergence(3.0), rows("loss", [1.0, *[4.1, 4.1, 4.1, 2.9, 2.9] * 4])) is None
    assert stopped_at(Divergence(3.0), rows("loss", [0.7, 15.6, 7.4, 42.8, 122.0, 0.0])) == 5
    assert stopped_at(Divergence(3.0), rows("reward_loss", [0.7, 4.1, 2.5, 92.9, 7.2, 14.2])) == 6
    assert stopped_at(Divergence(0.0), rows("loss", [1.0, *[300.0] * 20])) is None
    assert stopped_at(Divergence(3.0), rows("nll", [1.0, *[4.1] * 6], loss=0.0)) == 5  # CPO: its sums say little


def test_it_is_suspected_from_the_first_on() -> None:
    """And no checkpoint is taken meanwhile."""
    divergence = Divergence(3.0)
    seen = []
    for row in rows("loss", [1.0, 4.5, 4.5, 1.0]):
        divergence.look(row)
        seen.append(divergence.suspected)
    assert seen == [False, True, True, False]


def test_noise_of_single_records_is_none() -> None:
    """Losses of one record each, normal with a deviation of 0.8 nats: 0 of 200 trainings of 500 updates stop."""
    draw = random.Random(0)
    for _ in range(200):
        assert stopped_at(Divergence(3.0), rows("loss", [draw.gauss(2.0, 0.8) for _ in range(500)])) is None


def test_a_policy_that_jumps() -> None:
    """KL 3.6 over answers of 3 tokens: 1.2 nats a token after 0.1; a rise of 0.1 an update to 3 is learning."""
    sampled = {"sampling_seconds": 1.0, "length": 3.0, "loss": 99.0}
    assert stopped_at(Divergence(3.0), rows("kl", [0.0, 0.3, 3.6], **sampled)) == 3
    assert stopped_at(Divergence(3.0), rows("kl", [0.3 * step for step in range(31)], **sampled)) is None
    assert stopped_at(Divergence(3.0), rows("kl", [0.0, None, 0.3], **sampled)) is None


@pytest.mark.parametrize("end", [0.1, 5.5])
def test_a_policy_without_a_reference_by_its_entropy(end: float) -> None:
    """From 3 nats to nothing, or to noise, in one update; a fall over ten is learning."""
    sampled = {"sampling_seconds": 1.0, "length": 3.0, "loss": 99.0}
    assert stopped_at(Divergence(3.0), rows("entropy", [3.0, 3.0, end], **sampled)) == 3
    slowly = [3.0 + (end - 3.0) * step / 10 for step in range(11)]
    assert stopped_at(Divergence(3.0), rows("entropy", [*slowly, None], **sampled)) is None


def test_it_goes_on_from_a_checkpoint() -> None:
    """At the same update as without an interruption."""
    updates = rows("loss", [1.0, *[4.5] * 6])
    first, second = Divergence(3.0), Divergence(3.0)
    assert stopped_at(first, updates[:4]) is None
    second.restore(first.state())
    assert stopped_at(second, updates[4:]) == 5

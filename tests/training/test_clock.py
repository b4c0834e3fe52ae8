"""How many updates fit into a time: by hand, and against a search through every total."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolt.cli.progress import times
from smolt.training.clock import Clock, evaluations, updates_that_fit


@pytest.mark.parametrize(
    ("done", "total", "every", "expected"),
    [(4, 4, 0, 0), (4, 9, 0, 1), (4, 9, 5, 2), (4, 10, 5, 2), (5, 10, 5, 1), (4, 4, 2, 0), (0, 7, 3, 3)],
)
def test_evaluations_ahead(done: int, total: int, every: int, expected: int) -> None:
    """After 4 of 9, every 5: at 5, and after the last. Of 10: at 5 and at 10, which is the last."""
    assert evaluations(done, total, every) == expected


@pytest.mark.parametrize(
    ("most", "evaluation", "every", "expected"),
    [
        (1000, 0.0, 0, 52),  # 96 s / 2 s = 48 more
        (1000, 10.0, 0, 47),  # 10 s for the last evaluation: 86 s / 2 s = 43 more
        (1000, 10.0, 10, 32),  # to 32: 28 updates = 56 s, evaluations at 10, 20, 30 and 32 = 40 s: 96 s
        (20, 0.0, 0, 20),
        (1000, 97.0, 0, 4),  # not even one evaluation fits
    ],
)
def test_totals_by_hand(most: int, evaluation: float, every: int, expected: int) -> None:
    """4 updates done, 96 s left, 2 s an update."""
    assert updates_that_fit(4, most, 96.0, 2.0, evaluation, every) == expected


@given(
    done=st.integers(0, 9),
    most=st.integers(0, 60),
    seconds=st.integers(0, 90),
    update=st.integers(1, 5),
    evaluation=st.integers(0, 20),
    every=st.integers(0, 7),
)
def test_the_total_is_the_largest_that_fits(
    done: int, most: int, seconds: int, update: int, evaluation: int, every: int
) -> None:
    fitting = [
        total
        for total in range(done, max(done, most) + 1)
        if (total - done) * update + evaluations(done, total, every) * evaluation <= seconds
    ]
    assert updates_that_fit(done, most, seconds, update, evaluation, every) == max(fitting, default=done)


def clock_after(limit: float, *updates: float, whole: bool = True) -> Clock:
    clock = Clock(limit, whole)
    for seconds in updates:
        clock.updated(seconds, {"training_seconds": seconds})
    return clock


def test_the_first_update_warms_up() -> None:
    """100 s; 9 s, then 2, 2, 2: 85 s left at 2 s are 42 more, 46 in all."""
    assert [clock_after(100, *[9.0, 2.0, 2.0, 2.0][:n]).ready for n in range(1, 5)] == [False, False, False, True]
    clock = clock_after(100, 9.0, 2.0, 2.0, 2.0)
    assert (clock.pace, clock.fix(4, 10**9, 0), clock.ready) == (2.0, 46, False)


@pytest.mark.parametrize(
    ("updates", "ready"),
    [
        ((0.1, 1.0, 1.0, 1.0), False),  # 3 % used
        ((2.1, 1.0, 1.0, 1.0), True),  # 5 % used, three measured
        ((2.1, 11.0, 11.0), False),  # two measured, 24 % used
        ((2.1, 23.0), True),  # one measured, 25 % used
        ((49.0,), False),
        ((50.0,), True),  # the first alone took half of the time
    ],
)
def test_when_the_total_is_fixed(updates: tuple[float, ...], ready: bool) -> None:
    assert clock_after(100, *updates).ready is ready


def test_evaluation_and_saving_count_in_minutes_but_not_in_like() -> None:
    """60 s: 10 of updates, 20 of evaluation, 3 of saving leave 27 or 50; at 2 s, less an evaluation of 20: 3, or 25."""
    for whole, used, total in ((True, 33.0, 5 + 3), (False, 10.0, 5 + 25)):
        clock = clock_after(60, *[2.0] * 5, whole=whole)
        clock.evaluated(20.0)
        clock.saved(3.0)
        assert (clock.used, clock.updates, clock.fix(5, 10**9, 0)) == (used, 10.0, total)


def test_shares() -> None:
    """An update of 10 s, 4 of sampling, 1 of scoring, 3 of training: 2 are preparation; then 10 s of evaluation."""
    clock = Clock()
    clock.updated(10.0, {"sampling_seconds": 4.0, "scoring_seconds": 1.0, "training_seconds": 3.0})
    clock.evaluated(10.0)
    expected = {"sampling": 0.2, "scoring": 0.05, "preparation": 0.1, "training": 0.15, "evaluation": 0.5}
    assert clock.shares == pytest.approx(expected)
    assert times({**clock.shares, "scoring": 0.049}) == "sampling 20% preparation 10% training 15% evaluation 50%"
    assert (clock.ready, clock.up) == (False, False)


def test_a_clock_is_taken_up_where_it_was() -> None:
    before, after = clock_after(100, 9.0, 2.0, 2.0, 2.0), Clock(100)
    before.evaluated(1.5)
    before.fix(4, 10**9, 0)
    after.restore(before.state())
    assert after.state() == before.state()
    assert (after.total, after.pace, after.used) == (before.total, 2.0, 16.5)

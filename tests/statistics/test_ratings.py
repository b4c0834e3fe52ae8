"""Bradley-Terry ratings, against values derived by hand."""

import math
from itertools import permutations

import pytest

from smolt.errors import UserError
from smolt.statistics.ratings import POINTS, Bout, bradley_terry


def votes(a: str, b: str, won: int, lost: int, even: int = 0) -> list[Bout]:
    return [Bout(a, b, 1)] * won + [Bout(a, b, 0)] * lost + [Bout(a, b, 0.5)] * even


def test_two_arms_by_hand() -> None:
    """30 wins of 40: the odds are 3, so 400 log10(3) = 190.85 points lie between them, half on each side of 1,000.

    The information on the difference d is 40 p (1 - p) = 40 * 0.75 * 0.25 = 7.5; each arm lies d / 2 from the mean, so
    its standard error is sqrt(1 / 7.5) / 2 = 0.18257, times 1.95996 * 173.718 = 62.16 points.
    """
    found = bradley_terry(votes("x", "y", 30, 10))
    first, second = found.arms
    assert (first.arm, first.votes, first.won, second.won) == ("x", 40, 30, 10)
    assert first.points is not None
    assert second.points is not None
    assert first.points.value - second.points.value == pytest.approx(400 * math.log10(3), abs=1e-6)
    assert first.points.value + second.points.value == pytest.approx(2000, abs=1e-6)
    assert first.points.low is not None
    assert first.points.value - first.points.low == pytest.approx(62.163, abs=1e-3)
    assert found.unclear == ()


def test_few_votes_cannot_tell() -> None:
    """3 of 4: the odds are 3 as before, d = 1.0986, its standard error sqrt(1 / 0.75) = 1.1547: 0 is within 1.96."""
    assert bradley_terry(votes("x", "y", 3, 1)).unclear == (("x", "y"),)


def test_ties_are_half_wins() -> None:
    """10 ties, or 5 wins and 5 losses: no difference, the same interval."""
    tied, split = bradley_terry(votes("x", "y", 0, 0, 10)), bradley_terry(votes("x", "y", 5, 5))
    assert [one.points.value for one in tied.arms if one.points] == pytest.approx([1000, 1000])
    assert [one.points.low for one in tied.arms if one.points] == pytest.approx(
        [one.points.low for one in split.arms if one.points]
    )
    assert tied.arms[0].even == 10


def test_three_arms_in_a_circle_are_equal() -> None:
    """Each beats the next twice of three: by symmetry all stand at 1,000.

    With p = 1/2 each vote has the information 1/4; the matrix is 3/4 [[2, -1, -1], ...], whose inverse off its null
    space is 4/9 (I - 1/3), so each variance is 4/9 * 2/3 = 0.296.
    """
    found = bradley_terry([*votes("x", "y", 2, 1), *votes("y", "z", 2, 1), *votes("z", "x", 2, 1)])
    for one in found.arms:
        assert one.points is not None
        assert one.points.value == pytest.approx(1000, abs=1e-6)
        assert one.points.high is not None
        assert one.points.high - one.points.value == pytest.approx(1.959964 * math.sqrt(8 / 27) * POINTS, abs=1e-3)
    assert len(found.unclear) == 3


def test_the_order_of_votes_and_of_sides_says_nothing() -> None:
    bouts = [*votes("x", "y", 3, 1), *votes("y", "z", 4, 2), *votes("x", "z", 5, 1)]
    turned = [Bout(bout.b, bout.a, 1 - bout.score) for bout in reversed(bouts)]
    first, second = bradley_terry(bouts), bradley_terry(turned)
    assert [one.arm for one in first.arms] == ["x", "y", "z"] == [one.arm for one in second.arms]
    for one, other in zip(first.arms, second.arms, strict=True):
        assert one.points is not None
        assert other.points is not None
        assert one.points.value == pytest.approx(other.points.value, abs=1e-6)


def test_an_arm_that_lost_all_has_no_rating_and_moves_nobody() -> None:
    """z lost 20 of 20: no finite rating; x and y stand as they would without it."""
    alone = bradley_terry(votes("x", "y", 30, 10))
    found = bradley_terry([*votes("x", "y", 30, 10), *votes("x", "z", 20, 0)])
    assert [one.arm for one in found.arms] == ["x", "y", "z"]
    assert found.arms[2].points is None
    assert found.arms[2].votes == 20
    assert [one.points for one in found.arms[:2]] == [one.points for one in alone.arms]


def test_nothing_to_rate() -> None:
    """No votes give no arms; one side that won all gives no rating."""
    assert bradley_terry([]).arms == ()
    assert [one.points for one in bradley_terry(votes("x", "y", 5, 0)).arms] == [None, None]


def test_impossible_votes_are_refused() -> None:
    for bout in (Bout("x", "x", 1), Bout("x", "y", 0.3)):
        with pytest.raises(UserError, match="two different arms"):
            bradley_terry([bout])


def test_the_rating_is_the_maximum_of_the_likelihood() -> None:
    """Against 19 * 19 other places on a grid: none is likelier."""
    bouts = [*votes("x", "y", 6, 2, 1), *votes("y", "z", 5, 3), *votes("x", "z", 4, 1, 2)]
    found = {one.arm: one.points.value for one in bradley_terry(bouts).arms if one.points}

    def likelihood(points: dict[str, float]) -> float:
        total = 0.0
        for bout in bouts:
            lead = (points[bout.a] - points[bout.b]) / POINTS
            total -= bout.score * math.log1p(math.exp(-lead)) + (1 - bout.score) * math.log1p(math.exp(lead))
        return total

    best = likelihood(found)
    for up, down in permutations(range(-9, 10), 2):
        moved = {**found, "x": found["x"] + 5 * up, "y": found["y"] + 5 * down}
        assert likelihood(moved) <= best

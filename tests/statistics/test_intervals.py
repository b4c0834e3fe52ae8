"""No interval leaves the range its number lies in; and the one home of a measure, a comparison and a family."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolt import statistics
from smolt.statistics import Measure

EXACT = 1e-12
IN_UNIT = st.lists(st.floats(0, 1), min_size=1, max_size=30)
AROUND_ZERO = st.lists(st.floats(-1, 1), min_size=1, max_size=30)
RIGHT = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=30)
ANY = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


def assert_within(measure: Measure | None, low: float, high: float) -> None:
    assert measure is not None
    assert low <= measure.value <= high
    if measure.low is not None and measure.high is not None:
        assert low <= measure.low <= measure.value <= measure.high <= high


@given(RIGHT)
def test_a_rate_keeps_its_interval_between_0_and_1(values: list[float]) -> None:
    measure = statistics.measure(values, rate=True)
    assert_within(measure, 0, 1)
    assert measure == statistics.proportion([value == 1.0 for value in values])


@given(IN_UNIT)
def test_a_reward_between_0_and_1_keeps_its_interval_there(values: list[float]) -> None:
    assert_within(statistics.measure(values), 0, 1)
    assert_within(statistics.over_seeds(values, (0.0, 1.0)), 0, 1)


@given(AROUND_ZERO)
def test_a_reward_between_minus_1_and_1_keeps_its_interval_there(values: list[float]) -> None:
    assert_within(statistics.measure(values), -1, 1)
    assert_within(statistics.mean(values, bounded=True), min(values), max(values))
    assert_within(statistics.over_seeds(values, (-1.0, 1.0)), -1, 1)


@given(ANY)
def test_what_has_no_range_keeps_the_normal_interval(values: list[float]) -> None:
    measure = statistics.measure(values, bounded=False)
    assert measure == statistics.mean(values)
    assert measure is not None
    if len(set(values)) == 1:
        assert (measure.low, measure.high, measure.source) == (None, None, "all equal")
        return
    assert measure.source == "normal"
    assert measure.low is not None and measure.high is not None
    assert measure.high - measure.value == pytest.approx(measure.value - measure.low, rel=1e-6, abs=1e-6)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_difference_of_rates_keeps_its_interval_between_minus_1_and_1(wins: int, losses: int, ties: int) -> None:
    comparison = statistics.compare_counts("a", "b", "accuracy", wins, losses, wins + losses + ties)
    if comparison.low is not None and comparison.high is not None and comparison.difference is not None:
        assert -1 <= comparison.low <= comparison.difference <= comparison.high <= 1


def test_63_of_64_rewards_of_1_get_wilsons_interval() -> None:
    """The normal interval went to 1.015: 63/64 + 1.96 * 0.125 / 8."""
    values = [1.0] * 63 + [0.0]
    normal = statistics.mean(values)
    assert normal is not None and normal.high == pytest.approx(1.0150, abs=1e-4)
    measure = statistics.measure(values)
    assert measure == Measure(63 / 64, *statistics.wilson(63, 64), 64, "Wilson")
    assert measure is not None and measure.high is not None and measure.high < 1


def test_tokens_up_to_a_limit_are_formed_on_the_logit_scale() -> None:
    """31 answers of 64 tokens, one of 32: mean 63, half width 1.959964 * 5.65685 / sqrt(32) = 1.959964, above 64.

    The mean lies at p = 31/32 between 32 and 64; logit p = log 31, its half width 1.959964 / 32 / (31/1024) = 2.023189.
    """
    measure = statistics.mean([64.0] * 31 + [32.0], bounded=True)
    assert measure is not None
    reach = statistics.Z / 32 / (31 / 1024)
    ends = [32 + 32 / (1 + math.exp(-(math.log(31) + way))) for way in (-reach, reach)]
    assert (measure.value, measure.low, measure.high) == pytest.approx((63.0, *ends), abs=1e-9)
    assert (measure.source, ends[1] < 64) == ("normal, logit", True)


def test_an_interval_that_stays_in_its_range_is_the_normal_one() -> None:
    values = [0.1, 0.3, 0.5, 0.7, 0.9] * 4
    assert statistics.measure(values) == statistics.mean(values)


def test_at_a_limit_the_interval_is_cut() -> None:
    assert statistics.interval_within(1.0, 0.1, (0.0, 1.0)) == (0.9, 1.0)
    assert statistics.interval_within(2.0, 0.1, (2.0, 2.0)) == (2.0, 2.0)
    assert statistics.interval_within(2.0, 0.5, None) == (1.5, 2.5)
    assert statistics.interval_within(0.5, 1e9, (0.0, 1.0)) == (0.0, 1.0)


def test_right_or_wrong_is_compared_by_mcnemar_and_everything_else_by_the_bootstrap() -> None:
    first, second = [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]
    exact = statistics.compare("a", "b", "accuracy", first, second, rate=True)
    assert exact == statistics.compare_counts("a", "b", "accuracy", 2, 1, 4)
    shares = statistics.compare("a", "b", "accuracy", first, [0.5, *second[1:]], rate=True)
    assert shares == statistics.compare_scores("a", "b", "accuracy", first, [0.5, *second[1:]], rate=True)
    assert statistics.compare("a", "b", "reward", first, second).test == "paired bootstrap by question"


def test_a_family_is_adjusted_together_and_says_so() -> None:
    tests = [statistics.compare_counts("a", f"b{n}", "accuracy", 15 + n, 5, 100) for n in range(2)]
    tests.append(statistics.compare_counts("a", "same", "accuracy", 0, 0, 100))
    family = statistics.family(tests)
    assert [test.p_holm for test in family] == statistics.holm([test.p_value for test in tests])
    assert "after Holm over 2 comparisons" in family[0].sentence
    assert family[2].p_holm is None and statistics.family([]) == []


@pytest.mark.parametrize("value", [3.0, 0.1, 0.5])
def test_no_interval_is_a_point(value: float) -> None:
    """Of n equal numbers that are not 0 and 1 nothing says how much others would differ; of 0 and 1 Wilson's does."""
    values, prompts = [value] * 60, [str(number // 2) for number in range(60)]
    for found in (statistics.measure(values), statistics.measure(values, prompts), statistics.mean(values)):
        assert found is not None and (found.value, found.low, found.high, found.n) == (value, None, None, 60)
        assert found.source == "all equal"
    for spread in (statistics.share(values), statistics.ratio(values, [1.0] * 60)):
        assert spread is not None and (spread.low, spread.high) == (None, None)
    whole = statistics.measure([1.0] * 60, prompts)
    assert whole is not None and whole.low is not None and whole.low < 1.0


def test_no_difference_is_a_point() -> None:
    """Scores that all rose by 1, and scores of which none changed, have a difference without an interval."""
    first = [float(number) for number in range(60)]
    for rise, p_value in ((1.0, 0.0002), (0.0, None)):
        found = statistics.compare("a", "b", "reward", first, [value + rise for value in first])
        assert (found.difference, found.low, found.high, found.minimum_detectable) == (rise, None, None, None)
        assert found.p_value == (None if p_value is None else pytest.approx(p_value, rel=0.01))
    assert "so a loss of 0.100 cannot be excluded" in statistics.non_inferior(found, 0.1).sentence

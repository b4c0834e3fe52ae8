import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as peer_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from smolt import statistics
from smolt.errors import UserError

EXACT = 1e-12


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 50), (3, 7), (250, 1319), (999, 1000), (1319, 1319)])
def test_wilson_equals_statsmodels(successes: int, n: int) -> None:
    low, high = statistics.wilson(successes, n)
    peer_low, peer_high = proportion_confint(successes, n, alpha=0.05, method="wilson")
    assert low == pytest.approx(peer_low, abs=EXACT)
    assert high == pytest.approx(peer_high, abs=EXACT)
    assert 0.0 <= low <= successes / n <= high <= 1.0


def test_wilson_by_hand() -> None:
    """5 of 10, z^2 = 3.841459, so the centre is 0.5.

    The half width is z sqrt(0.025 + z^2/400) / (1 + z^2/10) = 1.959964 * 0.1860206 / 1.3841459 = 0.263407.
    """
    assert statistics.wilson(5, 10) == pytest.approx((0.236593, 0.763407), abs=1e-6)


@pytest.mark.parametrize(("wins", "regressions"), [(1, 0), (5, 5), (2, 9), (9, 2), (159, 163), (700, 900)])
def test_mcnemar_equals_scipy_and_statsmodels(wins: int, regressions: int) -> None:
    p_value = statistics.mcnemar(wins, regressions)
    assert p_value == pytest.approx(stats.binomtest(wins, wins + regressions).pvalue, abs=EXACT)
    table = [[10, regressions], [wins, 10]]
    assert p_value == pytest.approx(peer_mcnemar(table, exact=True).pvalue, abs=EXACT)


def test_mcnemar_by_hand() -> None:
    """9 wins and 1 regression: 2 (C(10,0) + C(10,1)) / 2^10 = 22 / 1024. No discordant pair: no p-value."""
    assert statistics.mcnemar(9, 1) == 22 / 1024
    assert statistics.mcnemar(0, 0) is None


def test_the_gsm8k_fixture() -> None:
    """1,319 rows, 159 wins, 163 regressions: difference -4/1319 = -0.303 points.

    The standard error sqrt(322 - 16/1319)/1319 is 1.3604 points, so -2.97 to +2.36; detectable 2.802 sqrt(322)/1319 =
    3.81 points.
    """
    comparison = statistics.compare_counts("sft", "grpo", "accuracy", 159, 163, 1319)
    assert comparison.difference == pytest.approx(-4 / 1319, abs=EXACT)
    assert comparison.low == pytest.approx(-0.0297, abs=5e-5)
    assert comparison.high == pytest.approx(0.0236, abs=5e-5)
    assert comparison.p_value == pytest.approx(stats.binomtest(159, 322).pvalue, abs=EXACT)
    assert comparison.p_value == pytest.approx(0.87, abs=5e-3)
    assert comparison.minimum_detectable == pytest.approx(2.802 * math.sqrt(322 / 1319 / 1319), abs=EXACT)
    assert comparison.minimum_detectable == pytest.approx(0.038, abs=2e-4)
    assert comparison.ties == 997
    assert comparison.sentence == (
        "grpo against sft, accuracy: no difference could be shown; only >= 3.8 points could have been "
        "(difference -0.30 points, 95 % interval -2.97 to +2.36, p = 0.87, n = 1,319)."
    )


def test_rows_give_the_same_comparison_as_their_counts() -> None:
    first = [True] * 3 + [False] * 5 + [True] * 2
    second = [False] * 3 + [True] * 5 + [True] * 2
    assert statistics.compare("a", "b", "accuracy", first, second, rate=True) == statistics.compare_counts(
        "a", "b", "accuracy", 5, 3, 10
    )


def test_a_shown_difference_names_its_direction() -> None:
    higher = statistics.compare_counts("sft", "dpo", "accuracy", 60, 20, 400)
    lower = statistics.compare_counts("sft", "dpo", "accuracy", 20, 60, 400)
    assert higher.sentence.startswith(
        "dpo has higher accuracy than sft, by 10.00 points (difference +10.00 points, 95 % "
    )
    assert lower.sentence.startswith("dpo has lower accuracy than sft, by 10.00 points (difference -10.00 points")
    assert higher.sentence.endswith(", n = 400, 60 wins, 20 regressions).")


def test_holm_decides_where_it_is_given() -> None:
    """15 wins of 20 give p = 0.041; with 3 comparisons Holm makes it 0.12, and the sentence may no longer claim it."""
    alone = statistics.compare_counts("sft", "dpo", "accuracy", 15, 5, 100)
    assert alone.p_value == pytest.approx(stats.binomtest(15, 20).pvalue, abs=EXACT)
    assert "has higher accuracy" in alone.sentence
    adjusted = statistics.with_verdict(replace(alone, p_holm=3 * 0.0414), family=3)
    assert "no difference could be shown" in adjusted.sentence
    assert "after Holm over 3 comparisons 0.12" in adjusted.sentence


def test_all_ties_and_no_pairs_carry_no_test() -> None:
    ties = statistics.compare_counts("sft", "dpo", "accuracy", 0, 0, 50)
    assert (ties.p_value, ties.difference, ties.low, ties.high) == (None, 0.0, None, None)
    assert ties.sentence == "dpo against sft, accuracy: the same on all 50 answers, so the data carry no test."
    for nothing in (
        statistics.compare_counts("sft", "dpo", "accuracy", 0, 0, 0),
        statistics.compare_scores("sft", "dpo", "reward", [], []),
    ):
        assert (nothing.p_value, nothing.difference, nothing.minimum_detectable, nothing.n) == (None, None, None, 0)
        assert "nothing can be said" in nothing.sentence
    scores = statistics.compare_scores("sft", "dpo", "reward", [1.0, 2.0], [1.0, 2.0])
    assert (scores.p_value, scores.difference) == (None, 0.0)


def test_holm_equals_statsmodels_and_skips_the_absent() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005, 0.8]
    assert statistics.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist(), abs=EXACT)
    assert statistics.holm([0.03, None, 0.02]) == [0.04, None, 0.04]
    assert statistics.holm([]) == []


@pytest.mark.parametrize(("n", "correct", "k"), [(4, 0, 2), (4, 2, 2), (10, 3, 5), (5, 5, 1)])
def test_pass_at_k_equals_its_product_form(n: int, correct: int, k: int) -> None:
    """1 - prod_{i=n-c+1}^{n} (1 - k/i), Chen et al. 2021; 2 of 4 at k = 2: 1 - 1/6."""
    product = 1.0 - math.prod(max(0.0, 1.0 - k / i) for i in range(n - correct + 1, n + 1))
    assert statistics.pass_at_k(n, correct, k) == pytest.approx(product, abs=EXACT)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(UserError, match="1 <= k <= n"):
        statistics.pass_at_k(3, 1, 4)
    with pytest.raises(UserError, match="0 <= successes <= n"):
        statistics.wilson(3, 2)
    with pytest.raises(UserError, match="at least one pair"):
        statistics.paired_wald(0, 0, 0)
    with pytest.raises(UserError, match="same length"):
        statistics.paired_bootstrap([1.0], [1.0, 2.0])


def test_mean_by_hand() -> None:
    """1, 2, 3: sd 1, half width 1.959964 / sqrt(3) = 1.131586."""
    measure = statistics.mean([1.0, 2.0, 3.0])
    assert measure is not None
    assert (measure.value, measure.low, measure.high) == pytest.approx((2.0, 0.868414, 3.131586), abs=1e-6)
    assert statistics.mean([]) is None
    alone = statistics.mean([4.0])
    assert alone is not None
    assert (alone.value, alone.low, alone.high, alone.n) == (4.0, None, None, 1)


def test_intervals_of_few_values_are_called_rough() -> None:
    """Of 49 values and of a mean; not of 50, of a share (Wilson), or where there is no interval."""
    values = [float(number) for number in range(50)]
    few, enough = statistics.mean(values[:49]), statistics.mean(values)
    share, single = statistics.proportion([True, False, True]), statistics.mean([1.0])
    assert few and enough and share and single
    assert "n below 50" in statistics.few_values([enough, few])
    assert statistics.few_values([enough, share, single]) == ""


def test_bootstrap_mean_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(size=400).tolist()
    normal, bootstrap = statistics.mean(values), statistics.mean(values, bootstrap=True)
    assert normal is not None
    assert bootstrap is not None
    assert bootstrap.value == normal.value
    assert bootstrap.low == pytest.approx(normal.low, abs=0.01)
    assert bootstrap.high == pytest.approx(normal.high, abs=0.01)


def test_paired_bootstrap_agrees_with_scipy_and_with_the_paired_t_test() -> None:
    generator = np.random.default_rng(1)
    a = generator.normal(size=300)
    b = a + 0.1 + generator.normal(size=300)
    result = statistics.paired_bootstrap(a.tolist(), b.tolist())
    peer = stats.bootstrap((b - a,), np.mean, method="percentile", n_resamples=9999, rng=2).confidence_interval
    assert result.difference == pytest.approx(float((b - a).mean()), abs=EXACT)
    assert (result.low, result.high) == pytest.approx((peer.low, peer.high), abs=0.01)
    assert result.p_value == pytest.approx(stats.ttest_rel(b, a).pvalue, abs=0.03)


def test_paired_bootstrap_is_a_function_of_its_seed() -> None:
    a, b = [0.0, 1.0, 0.5, 0.2], [0.4, 0.9, 0.7, 0.1]
    again = statistics.paired_bootstrap(a, b, seed=3)
    assert statistics.paired_bootstrap(a, b, seed=3) == again
    assert statistics.paired_bootstrap(a, b, seed=4) != again


def test_whole_prompts_are_resampled() -> None:
    """100 copies of each of 20 prompts' rows carry the information of 20 rows, not of 2,000."""
    differences = np.random.default_rng(5).normal(0.2, 1.0, size=20)
    b = np.repeat(differences, 100).tolist()
    prompts = [str(i) for i in np.repeat(np.arange(20), 100)]
    single = statistics.paired_bootstrap([0.0] * 20, differences.tolist())
    repeated = statistics.paired_bootstrap([0.0] * 2000, b, prompts)
    assert repeated.difference == pytest.approx(single.difference, abs=EXACT)
    assert (repeated.low, repeated.high, repeated.p_value) == pytest.approx(
        (single.low, single.high, single.p_value), abs=EXACT
    )


def test_repeated_prompts_turn_mcnemar_into_a_bootstrap() -> None:
    prompts = ["q1", "q1", "q2", "q2", "q3", "q3"]
    comparison = statistics.compare("a", "b", "accuracy", [False] * 6, [True] * 4 + [False] * 2, prompts, rate=True)
    assert comparison.test == "paired bootstrap by question"
    assert (comparison.wins, comparison.regressions, comparison.ties) == (4, 0, 2)
    assert "points" in comparison.sentence
    share = statistics.proportion([True, True, False], ["q1", "q1", "q2"])
    assert share is not None
    assert share.source == "bootstrap by question, fewer than 50"


def test_a_handful_of_prompts_shows_nothing() -> None:
    """Two prompts that both gain 1 have a resampling distribution without spread; the p-value is 2^(1-2) = 0.5."""
    assert statistics.paired_bootstrap([0.0, 0.0], [1.0, 1.0]).p_value == 0.5
    one = statistics.compare_scores("a", "b", "reward", [0.0, 0.0], [1.0, 2.0], ["q", "q"])
    assert (one.p_value, one.low, one.high) == (None, None, None)
    assert "no difference could be shown" in one.sentence


def test_minimum_detectable_scores_by_hand() -> None:
    """Differences 0, 1, 2, 3: sd sqrt(5/3), n 4: 2.802 * 1.290994 / 2 = 1.808683."""
    assert statistics.minimum_detectable_scores([0.0, 1.0, 2.0, 3.0]) == pytest.approx(1.808683, abs=1e-6)
    assert statistics.minimum_detectable_scores([1.0]) is None


def test_correlation_equals_scipy() -> None:
    generator = np.random.default_rng(7)
    x = generator.normal(size=60)
    y = 0.5 * x + generator.normal(size=60)
    peer = stats.pearsonr(x, y)
    measure = statistics.correlation(x.tolist(), y.tolist())
    assert measure is not None
    interval = peer.confidence_interval()
    assert (measure.value, measure.low, measure.high) == pytest.approx(
        (peer.statistic, interval.low, interval.high), abs=EXACT
    )
    assert statistics.correlation([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]) is None


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_comparison_is_antisymmetric(wins: int, regressions: int, ties: int) -> None:
    n = wins + regressions + ties
    there = statistics.compare_counts("a", "b", "accuracy", wins, regressions, n)
    back = statistics.compare_counts("b", "a", "accuracy", regressions, wins, n)
    assert there.p_value == back.p_value
    if n:
        assert there.difference == -(back.difference or 0.0)
    assert (there.low is None) == (abs(wins - regressions) == n or wins + regressions == 0)
    if there.low is not None:
        assert there.low == pytest.approx(-(back.high or 0.0), abs=EXACT)


def test_statistics_loads_no_torch_and_no_scipy() -> None:
    script = "import sys, smolt.statistics; raise SystemExit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

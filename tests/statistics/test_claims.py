"""Non-inferiority, test-retest, several runs, length control and what is said of small samples, against peers."""

import itertools
import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as scipy_stats

from smolt import statistics
from smolt.errors import UserError
from smolt.statistics.claims import tango

EXACT = 1e-12


def likeliest(wins: int, regressions: int, n: int, share: float) -> float:
    """The share of regressions of the likeliest table in which wins exceed regressions by `share`, searched for."""
    ties = n - wins - regressions

    def lost(q: float) -> float:
        cells = (q + share, q, 1 - 2 * q - share)
        counts = (wins, regressions, ties)
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip(counts, cells, strict=True) if k)

    low, high = max(0.0, -share), (1 - share) / 2
    found: float = optimize.minimize_scalar(lost, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return found


@pytest.mark.parametrize(
    ("wins", "regressions", "n", "margin"),
    [(159, 163, 1319, 0.03), (5, 9, 60, 0.1), (40, 12, 200, 0.05), (2, 1, 30, 0.2)],
)
def test_non_inferiority_equals_a_search_for_the_likeliest_table(
    wins: int, regressions: int, n: int, margin: float
) -> None:
    """Tango's closed form against the constrained likelihood, maximised numerically; the search is good to 1e-6."""
    q = likeliest(wins, regressions, n, -margin)
    variance = n * (2 * q - margin - margin**2)
    expected = scipy_stats.norm.sf((wins - regressions + n * margin) / math.sqrt(variance))
    assert tango(wins, regressions, n, margin) == pytest.approx(expected, abs=1e-6)


def test_non_inferiority_of_silence() -> None:
    """Without a discordant pair z = sqrt(n m / (1 - m)): 20 items show nothing at 5 points, 80 do (z = 2.05)."""
    few = statistics.non_inferior(statistics.compare_counts("a", "b", "accuracy", 0, 0, 20), 0.05)
    many = statistics.non_inferior(statistics.compare_counts("a", "b", "accuracy", 0, 0, 80), 0.05)
    assert few.p_value == pytest.approx(scipy_stats.norm.sf(math.sqrt(20 / 19)), abs=EXACT)
    assert many.p_value == pytest.approx(scipy_stats.norm.sf(math.sqrt(80 / 19)), abs=EXACT)
    assert (few.shown, many.shown) == (False, True)
    assert "a loss of 5.00 points or more cannot be excluded" in few.sentence
    assert "a loss of 5.00 points or more is excluded" in many.sentence


def test_non_inferiority_of_scores_is_the_interval() -> None:
    """The lower end decides; under 50 questions nothing is claimed."""
    differences = np.random.default_rng(0).normal(0.0, 1.0, 400)
    comparison = statistics.compare_scores("a", "b", "reward", [0.0] * 400, differences.tolist())
    assert comparison.low is not None
    assert statistics.non_inferior(comparison, -comparison.low + 1e-9).shown
    assert not statistics.non_inferior(comparison, -comparison.low - 1e-9).shown
    few = statistics.compare_scores("a", "b", "reward", [0.0] * 20, differences[:20].tolist())
    assert not statistics.non_inferior(few, 100.0).shown
    assert "fewer than 50 questions" in statistics.non_inferior(few, 100.0).sentence


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.0, math.nan, math.inf])
def test_a_margin_that_is_none(margin: float) -> None:
    with pytest.raises(UserError, match="margin: must be between 0 and 1"):
        statistics.non_inferior(statistics.compare_counts("a", "b", "accuracy", 1, 1, 9), margin)


def test_one_question_has_no_test() -> None:
    comparison = statistics.compare_counts("a", "b", "accuracy", 1, 0, 1)
    assert (comparison.p_value, comparison.low, comparison.high, comparison.minimum_detectable) == (None,) * 4
    assert comparison.difference == 1.0
    assert comparison.sentence.endswith("all answers are to one question, so no difference could be shown.")
    assert not statistics.non_inferior(comparison, 0.5).shown


def test_a_caution_speaks_of_an_interval_only_where_there_is_one() -> None:
    """The same difference on all of 12 questions has no interval; differences that vary have one."""
    alike = statistics.compare("a", "b", "reward", [0.0] * 12, [-2.0] * 12)
    assert alike.low is None and alike.caution == "fewer than 50 questions"
    varied = statistics.compare("a", "b", "reward", [0.0] * 12, [float(n) for n in range(12)])
    assert varied.low is not None and "such an interval may cover less than 93 %" in varied.caution


@pytest.mark.parametrize(("discordant", "said"), [(1, True), (5, True), (6, False), (0, False)])
def test_too_few_discordant_pairs_are_said(discordant: int, said: bool) -> None:
    """2^(1-5) = 0.0625 is the least p of five, 2^(1-6) = 0.03125 of six."""
    comparison = statistics.compare_counts("a", "b", "accuracy", discordant, 0, 100)
    assert ("too few for p < 0.05" in comparison.sentence) == said
    assert bool(comparison.caution) == said


def test_no_less_than_the_exact_test_can_show_is_called_detectable() -> None:
    """Six that differ are the fewest for p < 0.05 (2^-5 = 0.031); 2.802 sqrt(2)/100 = 4 points are out of its reach."""
    few = statistics.compare_counts("a", "b", "accuracy", 1, 1, 100)
    assert few.minimum_detectable == 6 / 100
    assert "only >= 6.0 points could have been (" in few.sentence
    assert statistics.compare_counts("a", "b", "accuracy", 2, 0, 5).minimum_detectable is None
    enough = statistics.compare_counts("a", "b", "accuracy", 10, 10, 100)
    assert enough.minimum_detectable == pytest.approx(2.802 * 20**0.5 / 100)


def test_after_holm_more_must_differ() -> None:
    """At 0.05/4 eight must (2^-7 < 0.0125 < 2^-6); beside three that are shown, six, for Holm then asks 0.05."""
    few = statistics.compare_counts("a", "b", "accuracy", 1, 1, 100)
    clear = statistics.compare_counts("a", "c", "accuracy", 40, 0, 100)
    assert [test.minimum_detectable for test in statistics.family([few] * 4)] == [8 / 100] * 4
    assert "only >= 8.0 points could have been (" in statistics.family([few] * 4)[0].sentence
    assert statistics.family([clear, clear, clear, few])[3].minimum_detectable == 6 / 100


def test_a_mean_of_which_one_question_differs_needs_six_of_its_size() -> None:
    """One of eight differs by 0.4: 2.802 sd / sqrt 8 = 0.14, but six of 0.4 among eight make 0.3."""
    one = statistics.compare_scores("a", "b", "reward", [0.0] * 8, [0.4] + [0.0] * 7)
    assert one.minimum_detectable == pytest.approx(6 * 0.4 / 8)
    assert "only >= 0.3 could have been (" in one.sentence
    five = statistics.compare_scores("a", "b", "reward", [0.0] * 5, [0.4] + [0.0] * 4)
    assert five.minimum_detectable is None
    assert "no difference could be shown (difference" in five.sentence


def test_few_questions_are_said_of_a_bootstrap() -> None:
    values = [float(value) for value in range(60)]
    few = statistics.compare_scores("a", "b", "reward", [0.0] * 49, values[:49])
    enough = statistics.compare_scores("a", "b", "reward", [0.0] * 50, values[:50])
    assert "fewer than 50 questions" in few.sentence and few.sentence.endswith(").")
    assert "fewer than" not in enough.sentence
    short, long = statistics.mean(values[:49], bootstrap=True), statistics.mean(values[:50], bootstrap=True)
    assert short is not None and short.source == "bootstrap by question, fewer than 50"
    assert long is not None and long.source == "bootstrap by question"
    by_prompt = statistics.mean(values, [str(place // 2) for place in range(60)])
    assert by_prompt is not None and by_prompt.source.endswith("fewer than 50")


def test_retest_counts_the_flips() -> None:
    """30 + 31 of 1319 flip: 4.62 %, by -1 / 1319 = -0.08 points."""
    again = statistics.compare_counts("base", "base again", "accuracy", 30, 31, 1319)
    against = statistics.compare_counts("base", "dpo", "accuracy", 159, 163, 1319)
    found = statistics.retest(again, against)
    assert found is not None and found.flips == 61 and found.stable
    assert (found.share.low, found.share.high) == statistics.wilson(61, 1319)
    assert found.sentence == (
        "base measured twice: 61 of 1,319 results change by themselves, 4.6 %, 95 % interval 3.6 to 5.9; against dpo "
        "322 of 1,319 do (24.4 %) (by -0.08 points, p = 1.0, n = 1,319)."
    )
    unstable = statistics.retest(statistics.compare_counts("base", "base again", "accuracy", 60, 20, 400))
    assert unstable is not None and not unstable.stable
    assert unstable.sentence.endswith("a comparison with it is not to be trusted.")
    assert statistics.retest(statistics.compare_counts("a", "b", "accuracy", 0, 0, 0)) is None


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_over_seeds_equals_students_interval(differences: list[float]) -> None:
    measure = statistics.over_seeds(differences)
    assert measure is not None and measure.n == len(differences)
    spread = float(scipy_stats.sem(differences))
    half = float(scipy_stats.t.ppf(0.975, len(differences) - 1)) * spread
    assert measure.value == pytest.approx(np.mean(differences), abs=EXACT)
    if measure.high is None:  # the runs do not differ but for rounding
        assert (measure.low, measure.source, half <= 1e-12) == (None, "all runs equal", True)
    else:
        assert measure.high == pytest.approx(np.mean(differences) + half, abs=1e-9)


def test_runs_that_are_all_equal_have_no_interval() -> None:
    """Three runs of 0.1, whose mean is another float: what a fourth would give is not known to the last digit."""
    same = statistics.over_seeds([0.1, 0.1, 0.1])
    assert same is not None and (same.low, same.high, same.source) == (None, None, "all runs equal")
    assert same.value == pytest.approx(0.1)


def test_over_one_seed_or_none() -> None:
    one = statistics.over_seeds([0.1])
    assert one is not None and (one.value, one.low, one.high) == (0.1, None, None)
    assert statistics.over_seeds([]) is None


def judged(n: int, seed: int, bias: float) -> tuple[list[float], list[float], list[float]]:
    """Verdicts of a judge that likes length: wins with ties, and the lengths of both answers."""
    random = np.random.default_rng(seed)
    first, second = random.integers(20, 400, n).astype(float), random.integers(20, 200, n).astype(float)
    chance = 1 / (1 + np.exp(-0.2 - bias * (first - second) / 100))
    wins = np.where(random.random(n) < 0.1, 0.5, (random.random(n) < chance).astype(float))
    return wins.tolist(), first.tolist(), second.tolist()


@pytest.mark.parametrize("clustered", [False, True])
def test_length_control_equals_statsmodels(clustered: bool) -> None:
    """The binomial regression with its sandwich interval, robust or by prompt."""
    wins, first, second = judged(300, 1, 1.0)
    prompts = [str(place // 3) for place in range(300)] if clustered else None
    longer = np.array(first) - np.array(second)
    model = sm.GLM(wins, sm.add_constant(np.tanh(longer / longer.std())), family=sm.families.Binomial())
    kind = {"groups": np.arange(300) // 3, "use_correction": False} if clustered else None
    peer = model.fit(cov_type="cluster" if clustered else "HC0", cov_kwds=kind, tol=1e-14, maxiter=100)
    low, high = peer.conf_int()[0]
    found = statistics.length_controlled(wins, first, second, prompts)
    assert found is not None
    expected = [1 / (1 + math.exp(-odds)) for odds in (low, peer.params[0], high)]
    assert [found.low, found.value, found.high] == pytest.approx(expected, abs=1e-9)


def test_length_control_undoes_a_bias_for_length() -> None:
    """Two equal models, the first longer, a judge that likes length: 70 % raw, 50 % in the interval at equal length."""
    random = np.random.default_rng(5)
    longer = random.normal(100, 100, 3000)
    wins = (random.random(3000) < 1 / (1 + np.exp(-1.5 * np.tanh(longer / longer.std())))).astype(float)
    found = statistics.length_controlled(wins.tolist(), longer.tolist(), [0.0] * 3000)
    assert wins.mean() > 0.65
    assert found is not None and found.low is not None and found.high is not None
    assert found.low < 0.5 < found.high


def test_length_control_of_equal_lengths_is_the_win_rate() -> None:
    found = statistics.length_controlled([1.0] * 6 + [0.0] * 3 + [0.5], [7.0] * 10, [7.0] * 10)
    assert found is not None and found.value == pytest.approx(0.65, abs=1e-12)


@pytest.mark.parametrize(
    ("wins", "lengths"),
    [
        ([1.0] * 20, list(range(20))),  # never lost
        ([0.0] * 10 + [1.0] * 10, list(range(-10, 10))),  # the longer one always wins
        ([0.0, 1.0] * 10, [5] * 20),  # always longer by as much
        ([0.0, 1.0] * 3, [1, 2, 3, 1, 2, 3]),  # six pairs
    ],
)
def test_length_control_that_the_data_do_not_carry(wins: list[float], lengths: list[int]) -> None:
    assert statistics.length_controlled(wins, [float(length) for length in lengths], [0.0] * len(wins)) is None


def test_length_control_refuses_what_is_no_verdict() -> None:
    with pytest.raises(UserError, match="one length"):
        statistics.length_controlled([1.0], [1.0, 2.0], [1.0])
    with pytest.raises(UserError, match="must lie in"):
        statistics.length_controlled([1.5] * 10, [1.0] * 10, [1.0] * 10)


def test_best_of_k_is_the_mean_over_all_subsets() -> None:
    """By enumeration, values of 6 ranked answers; k = 1 is the mean, k = n the first."""
    ranked = [0.3, 1.0, -0.5, 0.25, 2.0, 0.0]
    for k in range(1, 7):
        best = [ranked[min(chosen)] for chosen in itertools.combinations(range(6), k)]
        assert statistics.best_of_k(ranked, k) == pytest.approx(sum(best) / len(best), abs=1e-12)
    with pytest.raises(UserError, match="best of k needs"):
        statistics.best_of_k(ranked, 7)

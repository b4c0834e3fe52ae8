"""The audit of a reward model against hand-derived numbers, scipy, statsmodels and scikit-learn."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from statsmodels.stats.proportion import confint_proportions_2indep

from smolt.report.panels import panel_name, read_panel
from smolt.rewards.audit.audit_panel import audit_panel
from smolt.rewards.audit.auditing import RewardAudit, assemble
from smolt.rewards.audit.figures import (
    against,
    baselines,
    calibration_error,
    confidence_bins,
    gap_bins,
    lean,
    newcombe,
    refusal,
)
from smolt.rewards.audit.words import cross_fitted, features, fit
from smolt.statistics import proportion, wilson
from smolt.statistics.proportions import upper_tail

LEADS = np.array([2.0, 1.0, -1.0, 0.5, -0.5, 3.0])
GAPS = np.array([5.0, 3.0, 2.0, -1.0, -4.0, 0.0])


def audited(leads: list[float], gaps: list[float]) -> RewardAudit:
    return assemble(np.array(leads), np.array(gaps), None, "", {})


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_the_binomial_test(wins: int, losses: int) -> None:
    expected = binomtest(wins, wins + losses, alternative="greater").pvalue if wins + losses else 1.0
    assert upper_tail(wins, losses) == pytest.approx(expected, abs=1e-12)


def test_baselines_by_hand() -> None:
    """The chosen one is longer in 3, shorter in 2, and as long in 1 of 6: 3.5 and 2.5 pairs, the coin 3."""
    found = {name: float(earned.sum()) for name, earned in baselines(GAPS, None).items()}
    assert found == {"constant": 3.0, "longer": 3.5, "shorter": 2.5}
    assert list(baselines(GAPS, LEADS)["words"]) == [1, 1, 0, 1, 0, 1]


def test_against_a_baseline_by_hand() -> None:
    """Right on 1, 2, 4, 6; longer on 1, 2, 3 and half of 6: better on 4 and 6, worse on 3; P(X >= 2 of 3) = 1/2."""
    found = against(LEADS, baselines(GAPS, None)["longer"])
    assert (found.wins, found.losses, found.p_value) == (2, 1, 0.5)
    assert (found.baseline.low, found.baseline.high) == wilson(3.5, 6)


def test_a_coin_is_beaten_by_counting() -> None:
    """15 of 20 right against 0.5 each: P(X >= 15 of 20) = 0.0207."""
    leads = np.array([1.0] * 15 + [-1.0] * 5)
    found = against(leads, baselines(leads, None)["constant"])
    assert (found.wins, found.losses) == (15, 5)
    assert found.p_value == pytest.approx(0.020694732666015625)


def test_the_gate_needs_all_three() -> None:
    """16 of 20 right where the length says nothing: better than a coin (p 0.006); the length is a coin as well."""
    leads = [1.0] * 16 + [-1.0] * 4
    even = [1.0, -1.0] * 10
    assert audited(leads, even).refused is not None  # 8 wins and 2 losses against each: p = 0.0547
    assert "baseline 'longer' (50.0 %): better on 8 pairs, worse on 2, exact one-sided p = 0.055" in str(
        audited(leads, even).refused
    )
    assert audited(leads * 2, even * 2).refused is None  # 16 and 4: p = 0.0059


def test_the_gate_refuses_length_itself() -> None:
    """The lead is the gap: 70 of 100 right, and equal to 'longer' on every pair, so nothing differs: p = 1."""
    gaps = [10.0] * 70 + [-10.0] * 30
    found = audited(gaps, gaps)
    assert found.against["longer"].p_value == 1.0
    assert found.against["constant"].p_value < 1e-4
    assert found.refused is not None and "'longer' (70.0 %)" in found.refused


@pytest.mark.slow
def test_the_gate_lets_noise_through_at_most_once_in_twenty() -> None:
    """5,000 models of coin throws on 200 pairs of which the longer is chosen in half: at most 5 %, here 0 %-2 %."""
    draw = np.random.default_rng(0)
    passed = sum(
        refusal(leads := draw.normal(size=200), {name: against(leads, earned) for name, earned in noise.items()})
        is None
        for noise in (baselines(draw.choice([-1.0, 1.0], size=200), None) for _ in range(5_000))
    )
    assert passed / 5_000 < 0.03


def test_calibration_by_hand() -> None:
    """Two pairs at sigmoid(2) = 0.8808, one right; two just above 0.5, both right, 0.5 short of 1."""
    leads = np.array([2.0, -2.0, 1e-9, 1e-9])
    assert [(part.accuracy.n, part.accuracy.value) for part in confidence_bins(leads)] == [(2, 1.0), (2, 0.5)]
    assert calibration_error(leads) == pytest.approx(0.5 * 0.5 + 0.5 * (0.880797 - 0.5), abs=1e-6)


def test_gap_bins_by_hand() -> None:
    """Ten gaps in five bins of two; the model is right on the long ones."""
    gaps = np.arange(-5.0, 5.0)
    bins = gap_bins(gaps + 0.5, gaps)
    assert [(part.low, part.high, part.accuracy.n) for part in bins] == [
        (-5, -4, 2), (-3, -2, 2), (-1, 0, 2), (1, 2, 2), (3, 4, 2)
    ]  # fmt: skip
    assert [part.accuracy.value for part in bins] == [0, 0, 0.5, 1, 1]
    assert len(gap_bins(np.ones(4), np.zeros(4))) == 1


@pytest.mark.parametrize(("first", "second"), [((40, 57), (17, 29)), ((10, 10), (0, 10)), ((3, 50), (9, 40))])
def test_newcombe_is_statsmodels(first: tuple[int, int], second: tuple[int, int]) -> None:
    one, two = (proportion([True] * x + [False] * (n - x)) for x, n in (first, second))
    assert one is not None and two is not None
    low, high = confint_proportions_2indep(*first, *second, method="newcomb", compare="diff")
    found = newcombe(one, two)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_a_model_of_length_leans() -> None:
    """Its lead is the gap: right in all of the longer, none of the shorter, r = 1, and the warning says so."""
    gaps = np.array([3.0, 1.0, 4.0, 2.0, -5.0, -9.0])
    found = lean(gaps, gaps)
    assert found.longer is not None and found.shorter is not None and found.difference is not None
    assert (found.longer.value, found.shorter.value, found.difference.value, found.shown) == (1, 0, 1, True)
    assert found.prefers_longer is not None and found.labels is not None
    assert [found.prefers_longer.value, found.labels.value] == pytest.approx([1, 4 / 6])
    warned = audit_panel(audited(gaps.tolist(), gaps.tolist()), "audit", "A model").warnings
    assert any(line.startswith("it leans on length: its lead grows with the length gap, r 1.00") for line in warned)


def test_a_model_that_reads_does_not_lean() -> None:
    """Always sure, whatever the length, though the labels prefer the longer one in 75 %."""
    found = lean(np.tile([1.0, 1.1, 0.9, 1.0], 25), np.tile([4.0, 2.0, 2.0, -2.0], 25))
    assert not found.shown
    assert found.labels is not None and found.labels.value == 0.75


PAIRS = [("good good day", "bad day"), ("a good one", "a bad one"), ("fine good", "fine"), ("day", "bad bad day")]


def test_the_bag_of_words_is_logistic_regression() -> None:
    """Equal to scikit-learn without intercept on the differences and their mirror images, C = 1 / (2 x penalty)."""
    found = fit(PAIRS, penalty=0.7)
    table = features(PAIRS, found.places).toarray()
    other = LogisticRegression(C=1 / 1.4, fit_intercept=False, tol=1e-10, max_iter=1000)
    other.fit(np.concatenate([table, -table]), [1] * len(table) + [0] * len(table))
    assert found.weights == pytest.approx(other.coef_[0], abs=1e-4)
    assert found.leads([("good", "bad")])[0] > 0


def test_rare_words_are_left_out() -> None:
    """A word of one pair alone is no evidence; `good` and `bad` stand in three."""
    assert set(fit(PAIRS).places) == {"good", "bad", "day", "a", "one", "fine"} - {"a", "one", "fine"}


def test_cross_fitting_never_sees_its_pair() -> None:
    """Each pair has words of its own: with its fold left out nothing is known of it."""
    pairs = [(f"yes{n}", f"no{n}") for n in range(10)]
    assert list(cross_fitted(pairs, range(10))) == [0.0] * 10


def test_the_panel_survives_the_record() -> None:
    """From plain data it comes back equal; its tables and charts hold the baselines and both curves."""
    panel = audit_panel(audited(LEADS.tolist(), GAPS.tolist()), panel_name("audit-ppo_kl_0.2"), "A model")
    assert panel.name == "audit-ppo-kl-0-2"
    assert read_panel(asdict(panel)) == panel
    assert [row[0] for row in panel.tables[0].rows] == ["reward model", "constant", "longer", "shorter"]
    assert [chart.diagonal for chart in panel.charts] == [True, False]

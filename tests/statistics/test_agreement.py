"""Cohen's kappa against statsmodels and by hand."""

import math

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from smolt.statistics import kappa

EXACT = 1e-12


def test_kappa_by_hand() -> None:
    """20 both yes, 15 both no, 5 and 10 apart: observed 0.7, chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5, kappa 0.4."""
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    measure = kappa(pairs)
    assert measure is not None
    assert measure.value == pytest.approx(0.4, abs=EXACT)
    assert measure.n == 50


@pytest.mark.parametrize("seed", range(5))
def test_kappa_equals_statsmodels(seed: int) -> None:
    """Value and interval of random 3 x 3 tables, to 1e-12."""
    table = np.random.default_rng(seed).integers(1, 30, size=(3, 3))
    pairs = [(row, column) for row in range(3) for column in range(3) for _ in range(table[row, column])]
    measure, peer = kappa(pairs), cohens_kappa(table)
    assert measure is not None and measure.low is not None and measure.high is not None
    assert measure.value == pytest.approx(peer.kappa, abs=EXACT)
    assert measure.low == pytest.approx(max(-1.0, peer.kappa_low), abs=EXACT)
    assert measure.high == pytest.approx(min(1.0, peer.kappa_upp), abs=EXACT)


def test_kappa_of_data_that_carry_none() -> None:
    """No pairs, or one label only: None. Full agreement: 1 without an interval, for the formula's width is 0."""
    assert kappa([]) is None
    assert kappa([("a", "a")] * 9) is None
    full = kappa([("a", "a"), ("b", "b"), ("c", "c")])
    assert full is not None
    assert (full.value, full.low, full.high) == (1.0, None, None)
    opposite = kappa([("a", "b"), ("b", "a")])
    assert opposite is not None and opposite.value == -1.0
    assert opposite.low is None or not math.isnan(opposite.low)

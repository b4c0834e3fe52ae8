"""Intervals hold the truth as often as they say, tests err as often as they say (bench.statistics_coverage)."""

import numpy as np
import pytest
from bench import statistics_coverage as coverage

from smolt import statistics
from smolt.statistics import FEWEST

FOUR_ERRORS = 4.0  # of Monte Carlo: exceeded by chance once in 16,000


@pytest.mark.slow
@pytest.mark.parametrize(("n", "rate"), coverage.WILSON)
def test_wilsons_coverage_is_the_binomial_sum(n: int, rate: float) -> None:
    found = coverage.wilson(n, rate)
    assert found.exact is not None
    assert abs(found.simulated - found.exact) < FOUR_ERRORS * found.error


@pytest.mark.slow
@pytest.mark.parametrize(("n", "discordant"), coverage.MCNEMAR)
def test_exact_mcnemar_rejects_at_most_at_its_level(n: int, discordant: float) -> None:
    found = coverage.mcnemar(n, discordant)
    assert found.exact is not None and found.exact <= statistics.ALPHA
    assert abs(found.simulated - found.exact) < FOUR_ERRORS * found.error
    assert found.simulated < statistics.ALPHA + FOUR_ERRORS * found.error


@pytest.mark.slow
@pytest.mark.parametrize(("n", "recorded"), [(20, 0.9056), (40, 0.9248), (50, 0.9302), (200, 0.9450), (1000, 0.9531)])
def test_the_bootstrap_covers_what_was_recorded(n: int, recorded: float) -> None:
    """Of an exponential score; it passes 93 % where the warning ends."""
    found = coverage.bootstrap("exponential", n)
    assert found.simulated == pytest.approx(recorded, abs=2e-4)  # a sample or two at the very edge
    assert (found.simulated < 0.93) == (n < FEWEST)


def test_the_simulation_resamples_as_the_product_does() -> None:
    """One sample through the matrix of counts and through `paired_bootstrap`: the same interval."""
    sample = np.random.default_rng(0).exponential(size=30)
    low, high = np.percentile(sample @ coverage.resampling(30), [2.5, 97.5])
    found = statistics.paired_bootstrap([0.0] * 30, sample.tolist())
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)

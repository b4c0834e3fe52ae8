"""One arm's numbers with their intervals: shares, means, correlations."""

import math
from collections.abc import Sequence

import numpy as np

from smolt.statistics.bootstrap import FEWEST, RESAMPLES, percentiles, repeats, resampled_means, resampled_ratios
from smolt.statistics.nouns import Measure, Z
from smolt.statistics.proportions import wilson

BOOTSTRAP = "bootstrap by question"


def proportion(flags: Sequence[bool], prompts: Sequence[str] | None = None) -> Measure | None:
    """A share of answers with Wilson's interval, or a bootstrap by prompt when prompts repeat; None without answers."""
    if not flags:
        return None
    if repeats(prompts):
        return share([float(flag) for flag in flags], prompts)
    low, high = wilson(sum(flags), len(flags))
    return Measure(sum(flags) / len(flags), low, high, len(flags), "Wilson")


def share(values: Sequence[float], prompts: Sequence[str] | None = None) -> Measure | None:
    """The mean of values in 0..1 with a bootstrap by prompt (each its own where none are given); None without values.

    Where all are 0, or all are 1, every resample is the same and the bootstrap would claim certainty: Wilson's interval
    for none, or all, of the prompts takes its place.
    """
    if values and set(values) <= {values[0]} and values[0] in (0.0, 1.0):
        size = len(values if prompts is None else set(prompts))
        low, high = wilson(size if values[0] else 0, size)
        return Measure(values[0], low, high, len(values), "Wilson by question")
    return mean(values, prompts, bootstrap=True)


def mean(values: Sequence[float], prompts: Sequence[str] | None = None, bootstrap: bool = False) -> Measure | None:
    """A mean with a normal interval, or a bootstrap by prompt when asked for or when prompts repeat.

    None without values; a single value, or a single prompt, has no interval.
    """
    if not values:
        return None
    array = np.asarray(values, dtype=np.float64)
    value, n = float(array.mean()), len(array)
    if bootstrap or repeats(prompts):
        low, high = percentiles(resampled_means(array, prompts, RESAMPLES, seed=0))
        few = (n if prompts is None else len(set(prompts))) < FEWEST
        return Measure(value, low, high, n, BOOTSTRAP + (f", fewer than {FEWEST}" if few else ""))
    if n < 2:
        return Measure(value, None, None, n, "one value")
    half = Z * float(array.std(ddof=1)) / math.sqrt(n)
    return Measure(value, value - half, value + half, n, "normal")


def ratio(totals: Sequence[float], weights: Sequence[float]) -> Measure | None:
    """Sum of totals / sum of weights (a loss per token) with a bootstrap by record; n = records, None without any.

    A single record has no interval.
    """
    if not totals:
        return None
    sums, counts = np.asarray(totals, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    low, high = percentiles(resampled_ratios(sums, counts, RESAMPLES, seed=0))
    few = f", fewer than {FEWEST}" if len(sums) < FEWEST else ""
    return Measure(float(sums.sum() / counts.sum()), low, high, len(sums), f"bootstrap by record{few}")


def correlation(x: Sequence[float], y: Sequence[float]) -> Measure | None:
    """Pearson's r with Fisher's z interval; None with fewer than 4 pairs or where one side does not vary."""
    if len(x) < 4 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    r = float(np.clip(np.corrcoef(np.asarray(x), np.asarray(y))[0, 1], -1.0, 1.0))
    if abs(r) == 1.0:
        return Measure(r, r, r, len(x), "Pearson")
    half = Z / math.sqrt(len(x) - 3)
    return Measure(r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half), len(x), "Pearson")

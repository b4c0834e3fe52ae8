"""The bootstrap: resampling whole prompts, so that answers to one prompt never pass for independent evidence."""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smolt import randomness
from smolt.errors import UserError
from smolt.statistics.nouns import Floats, Interval

RESAMPLES = 10_000
FEWEST = 50
"""With fewer prompts the interval of a score as skewed as an exponential one covers less than 93 % (it says 95 %)."""

_CHUNK = 2_000_000


@dataclass(frozen=True)
class Bootstrap:
    """A paired bootstrap: the observed difference, its percentile interval and two-sided p-value."""

    difference: float
    low: float | None
    high: float | None
    p_value: float | None


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    prompts: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """The mean of b - a over rows, with whole prompts resampled (each row is its own prompt where none are given).

    The two-sided p-value is twice the smaller share of resampled differences on either side of 0, counting the
    observed one in, so that it agrees with the percentile interval; and never below 2^(1-m), the smallest p-value of
    any sign-flip test on m prompts that differ, since a bootstrap of a handful of prompts knows no doubt. None where
    nothing differs or there is one prompt.

    Raises:
        UserError: a, b and prompts differ in length, or are empty.
    """
    if not a or len(a) != len(b) or (prompts is not None and len(prompts) != len(a)):
        raise UserError("a paired bootstrap needs two lists of the same length, at least 1, and a prompt for each row")
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    difference = float(differences.mean())
    if not differences.any():
        return Bootstrap(0.0, None, None, None)
    sums, counts = by_prompt(differences, prompts)
    sampled = resampled_ratios(sums, counts, resamples, seed)
    if sampled is None:
        return Bootstrap(difference, None, None, None)
    smaller = min(int((sampled <= 0).sum()), int((sampled >= 0).sum()))
    least = 2.0 ** (1 - np.count_nonzero(sums))
    low, high = percentiles(sampled)
    return Bootstrap(difference, low, high, min(1.0, max(least, 2 * (smaller + 1) / (resamples + 1))))


def caution(prompts: int, interval: bool) -> str:
    """What is to be said of a bootstrap over so few prompts, with an interval or without one, or nothing."""
    if prompts >= FEWEST:
        return ""
    return f"fewer than {FEWEST} questions" + (": such an interval may cover less than 93 %" if interval else "")


def repeats(prompts: Sequence[str] | None) -> bool:
    """Whether any prompt was answered more than once."""
    return prompts is not None and len(set(prompts)) < len(prompts)


def by_prompt(values: Floats, prompts: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """The sum of the values and the number of rows of each prompt, in the order of first appearance."""
    if prompts is None:
        return values, np.ones_like(values)
    places: dict[Hashable, int] = {}
    index = np.array([places.setdefault(prompt, len(places)) for prompt in prompts])
    return np.bincount(index, weights=values).astype(np.float64), np.bincount(index).astype(np.float64)


def resampled_ratios(sums: Floats, counts: Floats, resamples: int, seed: int) -> Floats | None:
    """Sum of sums / sum of counts in each resample of whole entries; None with fewer than two entries."""
    if len(sums) < 2:
        return None
    return np.concatenate(
        [sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1) for chosen in draws(len(sums), resamples, seed)]
    )


def draws(size: int, resamples: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """The places that each resample of `size` takes, [rows, size] at a time: functions of (seed, resample, place)."""
    keys = randomness.keys(np.stack([np.full(resamples, seed), np.arange(resamples)], axis=1))
    places = np.arange(size, dtype=np.uint64)[None, :]
    step = max(1, _CHUNK // size)
    for start in range(0, resamples, step):
        uniforms = randomness.uniforms_at(keys[start : start + step, None], places)
        yield (uniforms.astype(np.float64) * size).astype(np.intp)


def percentiles(sampled: Floats | None) -> Interval:
    """The 95 % percentile interval of resampled means; none without resamples, or where all are one number."""
    if sampled is None:
        return None, None
    low, high = np.percentile(sampled, [2.5, 97.5])
    return with_width(float(low), float(high))


def with_width(low: float, high: float) -> Interval:
    """An interval as it is; none where its ends are one number, but for rounding: that would be claiming certainty."""
    return (None, None) if math.isclose(low, high, rel_tol=1e-12, abs_tol=1e-15) else (low, high)

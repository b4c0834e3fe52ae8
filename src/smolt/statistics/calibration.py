"""Whether stated probabilities hold: the share of right answers beside the confidence they were given with.

The confidence of an answer is its probability; it is right (1), wrong (0), or right with a probability between.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smolt.statistics.bootstrap import RESAMPLES, by_prompt, draws, percentiles
from smolt.statistics.nouns import Floats, Measure
from smolt.statistics.proportions import wilson

BINS = 10


@dataclass(frozen=True)
class ConfidenceBin:
    """Questions of like confidence: its mean, and the share of right answers with Wilson's interval."""

    confidence: float
    right: Measure


def reliability(confidence: Sequence[float], right: Sequence[float]) -> list[ConfidenceBin]:
    """Ten bins of equal width from 0 to 1; empty ones are left out."""
    stated, share, places = np.asarray(confidence), np.asarray(right), _bins(confidence)
    found = []
    for place in np.unique(places):
        own = share[places == place]
        low, high = wilson(float(own.sum()), len(own))
        found.append(
            ConfidenceBin(
                float(stated[places == place].mean()),
                Measure(float(own.mean()), low, high, len(own), "Wilson", rate=True),
            )
        )
    return found


def calibration_error(
    confidence: Sequence[float], right: Sequence[float], prompts: Sequence[str] | None = None
) -> Measure | None:
    """Expected calibration error: |confidence - share right| of the ten bins, weighted by their questions (1706.04599).

    Chance alone makes it larger than 0, and a resample's is larger still; so the bootstrap's interval is turned around
    the value (the basic one of Davison and Hinkley 1997, section 5.2), and holds it. None without questions.
    """
    if not confidence:
        return None
    value, sampled = _resampled(confidence, right, prompts)
    low, high = percentiles(sampled)
    if low is not None and high is not None:
        low, high = max(0.0, min(value, 2 * value - high)), max(value, 2 * value - low)
    return Measure(value, low, high, len(confidence), "bootstrap, turned")


def calibration_change(
    before: Sequence[float], after: Sequence[float], right: Sequence[float], prompts: Sequence[str] | None = None
) -> Measure | None:
    """How much the calibration error falls or rises where the same answers get other probabilities: after - before.

    Both are resampled together, so what chance adds to the one it adds to the other.
    """
    if not before:
        return None
    first, second = (_resampled(stated, right, prompts) for stated in (before, after))
    apart = None if first[1] is None or second[1] is None else second[1] - first[1]
    low, high = percentiles(apart)
    return Measure(second[0] - first[0], low, high, len(before), "paired bootstrap")


def _resampled(
    confidence: Sequence[float], right: Sequence[float], prompts: Sequence[str] | None
) -> tuple[float, Floats | None]:
    """The calibration error, and that of each resample of whole prompts."""
    apart, places = np.asarray(confidence) - np.asarray(right), _bins(confidence)
    sums = np.stack([by_prompt(np.where(places == place, apart, 0.0), prompts)[0] for place in range(BINS)], axis=1)
    counts = by_prompt(np.ones_like(apart), prompts)[1]
    value = float(np.abs(sums.sum(axis=0)).sum() / counts.sum())
    if len(sums) < 2:
        return value, None
    found = []
    for chosen in draws(len(sums), RESAMPLES, 0):
        rows = np.arange(len(chosen))[:, None] * len(sums)
        times = np.bincount((chosen + rows).ravel(), minlength=len(chosen) * len(sums)).reshape(len(chosen), -1)
        found.append(np.abs(times @ sums).sum(axis=1) / (times @ counts))
    return value, np.concatenate(found)


def _bins(confidence: Sequence[float]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.minimum((np.asarray(confidence) * BINS).astype(np.int64), BINS - 1)
    return found

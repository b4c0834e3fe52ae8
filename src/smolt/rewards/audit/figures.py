"""The figures of a reward model's audit, from its leads on held-out pairs and the lengths of their answers.

A lead is the chosen answer's score minus the rejected one's; a gap is its length minus the other's, in tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smolt.report.wording import stated, value_text
from smolt.statistics import ALPHA, Measure, correlation, format_p, proportion, wilson
from smolt.statistics.proportions import upper_tail

Floats = NDArray[np.float64]

CONFIDENCE_BINS = 10
GAP_BINS = 5
TRIVIAL = ("constant", "longer", "shorter")
"""What needs no model and no training; the gate compares with these."""


@dataclass(frozen=True)
class Bin:
    """Pairs that are alike in something.

    Attributes:
        low, high: smallest and largest value of what they share.
        middle: its mean.
        accuracy: share of them whose chosen answer leads.
    """

    low: float
    high: float
    middle: float
    accuracy: Measure


@dataclass(frozen=True)
class Against:
    """A reward model beside a baseline on the same pairs.

    Attributes:
        baseline: its accuracy; a pair it cannot decide counts half.
        wins, losses: pairs that only the one, only the other gets right.
        p_value: exact one-sided sign test that the reward model is right more often; 1 where nothing differs.
    """

    baseline: Measure
    wins: int
    losses: int
    p_value: float


def accuracy(leads: Floats) -> Measure:
    """Share of pairs whose chosen answer leads, a tie counting as wrong, with Wilson's interval."""
    found = _above(leads)
    if found is None:
        raise ValueError("no pairs")
    return found


def _above(values: Floats) -> Measure | None:
    """Share of values above 0; None of nothing."""
    return proportion((values > 0).tolist())


def baselines(gaps: Floats, words: Floats | None) -> dict[str, Floats]:
    """What each baseline gets for each pair: 1 right, 0 wrong, 0.5 undecided."""
    found = {"constant": np.full(len(gaps), 0.5), "longer": credit(gaps), "shorter": credit(-gaps)}
    return found if words is None else {**found, "words": credit(words)}


def credit(leads: Floats) -> Floats:
    """1 for a lead, 0 for the opposite, 0.5 for neither."""
    return np.asarray((np.sign(leads) + 1) / 2, dtype=np.float64)


def against(leads: Floats, baseline: Floats) -> Against:
    """Compare with one baseline by an exact sign test on the pairs where the two differ (one-sided McNemar)."""
    right = (leads > 0).astype(np.float64)
    wins, losses = int((right > baseline).sum()), int((right < baseline).sum())
    low, high = wilson(float(baseline.sum()), len(baseline))
    measured = Measure(float(baseline.mean()), low, high, len(baseline), "Wilson", rate=True)
    return Against(measured, wins, losses, upper_tail(wins, losses))


def refusal(leads: Floats, compared: Mapping[str, Against]) -> str | None:
    """Why nothing should be trained on this model: it is not shown to beat every trivial baseline, each at 5 %.

    That all of several null hypotheses are rejected, each at its own level, is a test at that level of "not better than
    the best of them" (intersection-union, Berger 1982), so the three need no adjustment.
    """
    worst = max((name for name in TRIVIAL if name in compared), key=lambda name: compared[name].p_value)
    found = compared[worst]
    if found.p_value < ALPHA:
        return None
    own = accuracy(leads)
    return (
        f"held-out accuracy {stated(own)}, n = {own.n:,}, is not shown to be above the baseline '{worst}' "
        f"({value_text(found.baseline)}): better on {found.wins:,} pairs, worse on {found.losses:,}, "
        f"exact one-sided p {format_p(found.p_value)}"
    )


def refusal_of_the_best(gaps: Sequence[float]) -> str | None:
    """Why even a model that is right on every held-out pair would be refused, from their length gaps, or None."""
    leads, apart = np.ones(len(gaps)), np.array(gaps, dtype=np.float64)
    return refusal(leads, {name: against(leads, earned) for name, earned in baselines(apart, None).items()})


def ends(share: Measure) -> tuple[float, float]:
    """A share's interval, from 0 to 1 where it has none."""
    return share.low or 0.0, 1.0 if share.high is None else share.high


def confidence_bins(leads: Floats) -> list[Bin]:
    """Bins of the predicted probability of the side the model prefers, 0.5 to 1 in ten; empty ones are left out."""
    confidence = 1 / (1 + np.exp(-np.abs(leads)))
    places = np.minimum(((confidence - 0.5) * 2 * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
    return [_bin(confidence[places == place], leads[places == place]) for place in np.unique(places)]


def _bin(values: Floats, leads: Floats) -> Bin:
    return Bin(float(values.min()), float(values.max()), float(values.mean()), accuracy(leads))


def calibration_error(leads: Floats) -> float:
    """Expected calibration error: |confidence - accuracy| of the ten bins, weighted by their pairs (Guo 1706.04599)."""
    bins = confidence_bins(leads)
    return sum(found.accuracy.n * abs(found.middle - found.accuracy.value) for found in bins) / len(leads)


def gap_bins(leads: Floats, gaps: Floats) -> list[Bin]:
    """Accuracy in at most five bins of about equally many pairs, by how much longer the chosen answer is."""
    edges = np.unique(np.quantile(gaps, np.linspace(0, 1, GAP_BINS + 1)[1:-1]))
    places = np.searchsorted(edges, gaps, side="left")
    return [_bin(gaps[places == place], leads[places == place]) for place in np.unique(places)]


@dataclass(frozen=True)
class Lean:
    """How far a reward model follows the length.

    Attributes:
        longer, shorter: accuracy where the chosen answer is the longer, the shorter one; None without such pairs.
        difference: longer minus shorter, Newcombe's interval; None where one is missing.
        prefers_longer: share of pairs of unequal length whose longer answer gets the higher score.
        labels: share of them whose longer answer is the chosen one.
        correlation: of leads and gaps.
    """

    longer: Measure | None
    shorter: Measure | None
    difference: Measure | None
    prefers_longer: Measure | None
    labels: Measure | None
    correlation: Measure | None

    @property
    def shown(self) -> bool:
        """Whether its lead is shown to grow with the length gap.

        All rows are turned so that the chosen answer comes first, so this is not what the labels do: with the label
        fixed, a model that reads the answers has no reason to be surer where the chosen one is longer.
        """
        return self.correlation is not None and self.correlation.low is not None and self.correlation.low > 0


def lean(leads: Floats, gaps: Floats) -> Lean:
    """Split the pairs by which answer is the longer one."""
    apart = gaps != 0
    longer, shorter = _above(leads[gaps > 0]), _above(leads[gaps < 0])
    return Lean(
        longer=longer,
        shorter=shorter,
        difference=None if longer is None or shorter is None else newcombe(longer, shorter),
        prefers_longer=_above((leads * np.sign(gaps))[apart]),
        labels=_above(gaps[apart]),
        correlation=correlation(leads.tolist(), gaps.tolist()),
    )


def newcombe(first: Measure, second: Measure) -> Measure:
    """The difference of two independent shares, from their Wilson intervals (Newcombe 1998, method 10)."""
    difference = first.value - second.value
    (low_1, high_1), (low_2, high_2) = ends(first), ends(second)
    down = math.hypot(first.value - low_1, high_2 - second.value)
    up = math.hypot(high_1 - first.value, second.value - low_2)
    return Measure(difference, difference - down, difference + up, first.n + second.n, "Newcombe", rate=True)

"""Test-retest: how much of a comparison an arm shows against itself, measured twice."""

from dataclasses import dataclass

from smolt.statistics.nouns import Comparison, Measure
from smolt.statistics.proportions import wilson
from smolt.statistics.verdicts import format_difference, format_p, shown


@dataclass(frozen=True)
class Retest:
    """One arm measured twice on the same questions.

    Attributes:
        flips: questions whose result changed by itself.
        share: flips / n with Wilson's interval.
        difference: second minus first measurement.
        stable: no difference between the two measurements could be shown, as it should be.
    """

    n: int
    flips: int
    share: Measure
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    stable: bool
    sentence: str


def retest(again: Comparison, against: Comparison | None = None) -> Retest | None:
    """What a comparison of an arm with itself says; None where the two measurements share no question.

    Args:
        again: the second measurement of an arm (b) against its first (a).
        against: the comparison of that arm with another one, whose changes are set beside its own.
    """
    if again.n == 0 or again.difference is None:
        return None
    flips = again.wins + again.regressions
    share = Measure(flips / again.n, *wilson(flips, again.n), again.n, "Wilson", rate=True)
    unit = " points" if again.rate else ""
    parts = [f"by {format_difference(again.difference, again)}{unit}", f"n = {again.n:,}"]
    if again.p_value is not None:
        parts.insert(1, f"p {format_p(again.p_value)}")
    sentence = (
        f"{again.a} measured twice: {flips:,} of {again.n:,} results change by themselves, "
        f"{100 * share.value:.1f} %, 95 % interval {_percent(share.low)} to {_percent(share.high)}"
    )
    if against is not None and against.n:
        changed = against.wins + against.regressions
        sentence += f"; against {against.b} {changed:,} of {against.n:,} do ({100 * changed / against.n:.1f} %)"
    sentence += f" ({', '.join(parts)})."
    if shown(again):
        sentence += f" The two measurements of {again.a} differ: a comparison with it is not to be trusted."
    return Retest(
        again.n, flips, share, again.difference, again.low, again.high, again.p_value, not shown(again), sentence
    )


def _percent(bound: float | None) -> str:
    return "?" if bound is None else f"{100 * bound:.1f}"

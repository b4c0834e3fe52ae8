"""What else a comparison may say: that b is at most so much worse than a, and how much a changes by itself.

"No difference was shown" says neither.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from smolt.errors import UserError
from smolt.statistics.bootstrap import FEWEST
from smolt.statistics.nouns import ALPHA, Comparison, Measure
from smolt.statistics.proportions import wilson
from smolt.statistics.verdicts import format_difference, format_p, shown


@dataclass(frozen=True)
class NonInferiority:
    """Whether b is worse than a by less than the margin.

    Attributes:
        margin: the largest loss that would be accepted, above 0, in the metric's unit (a rate: 0..1).
        p_value: one-sided, of a loss as large as the margin or larger; None for scores, where the interval decides.
        shown: at 2.5 % one-sided, which goes with a two-sided interval of 95 %.
    """

    margin: float
    p_value: float | None
    shown: bool
    sentence: str


def non_inferior(comparison: Comparison, margin: float) -> NonInferiority:
    """Test that the candidate loses less than a margin that was fixed before looking; higher values are better.

    Right or wrong answers: Tango's score test (1998), which a sample without any discordant pair does not pass by its
    mere silence. Scores, and questions answered several times: the lower end of the bootstrap interval lies above
    -margin, with at least FEWEST questions.

    Raises:
        UserError: the margin is not above 0, not finite, or for a rate not below 1.
    """
    if not (math.isfinite(margin) and margin > 0 and (not comparison.rate or margin < 1)):
        limits = "between 0 and 1 (0.02 is two points)" if comparison.rate else "above 0"
        raise UserError(f"margin: must be {limits}, not {margin}")
    size = format_difference(margin, comparison).lstrip("+") + (" points" if comparison.rate else "")
    names = f"{comparison.b} against {comparison.a}, {comparison.metric}"
    binary = comparison.test == "exact McNemar"
    if comparison.n < 2 or (comparison.low is None and not binary):
        return NonInferiority(margin, None, False, f"{names}: no interval, so a loss of {size} cannot be excluded.")
    if binary or comparison.low is None:
        p_value = tango(comparison.wins, comparison.regressions, comparison.n, margin)
        found, reason = p_value < ALPHA / 2, f"p {format_p(p_value)}, one sided"
    else:
        p_value, found = None, comparison.low > -margin and not comparison.caution
        reason = f"95 % interval from {format_difference(comparison.low, comparison)}"
        reason += f", fewer than {FEWEST} questions" if comparison.caution else ""
    claim = f"a loss of {size} or more is excluded" if found else f"a loss of {size} or more cannot be excluded"
    return NonInferiority(margin, p_value, found, f"{names}: {claim} ({reason}, n = {comparison.n:,}).")


def tango(wins: int, regressions: int, n: int, margin: float) -> float:
    """The one-sided p-value of Tango's score test (1998, eq. 2.4 to 2.7) that the difference of rates is <= -margin.

    The variance is that of the likeliest table with a difference of exactly -margin.
    """
    share = -margin
    slope = -wins - regressions + (2 * n - wins + regressions) * share
    constant = -regressions * share * (1 - share)
    likeliest = (math.sqrt(max(0.0, slope * slope - 8 * n * constant)) - slope) / (4 * n)
    variance = n * (2 * likeliest + share * (1 - share))
    excess = wins - regressions - n * share
    if variance <= 0:
        return 0.0 if excess > 0 else 1.0
    return 1.0 - NormalDist().cdf(excess / math.sqrt(variance))


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
    low, high = wilson(flips, again.n)
    share = Measure(flips / again.n, low, high, again.n, "Wilson", rate=True)
    unit = " points" if again.rate else ""
    parts = [f"by {format_difference(again.difference, again)}{unit}", f"n = {again.n:,}"]
    if again.p_value is not None:
        parts.insert(1, f"p {format_p(again.p_value)}")
    sentence = (
        f"{again.a} measured twice: {flips:,} of {again.n:,} results change by themselves, "
        f"{100 * share.value:.1f} %, 95 % interval {100 * low:.1f} to {100 * high:.1f}"
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

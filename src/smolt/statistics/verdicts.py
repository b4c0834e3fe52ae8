"""The sentence that a comparison carries, generated from its test and from nothing else."""

import math
from dataclasses import replace

from smolt.statistics.nouns import ALPHA, Comparison, Measure


def with_verdict(comparison: Comparison, family: int = 1, items: str = "answers") -> Comparison:
    """The comparison with its sentence; its adjusted p-value, over so many comparisons, decides where there is one.

    `items` is what was compared, in the plural.
    """
    return replace(comparison, sentence=_sentence(comparison, family, items))


def difference_of(comparison: Comparison) -> Measure | None:
    """The difference with its interval as one measure; None where the two share no question."""
    if comparison.difference is None:
        return None
    known = comparison.difference, comparison.low, comparison.high, comparison.n, comparison.test, comparison.rate
    return Measure(*known)


def shown(comparison: Comparison) -> bool:
    """Whether a difference is shown at 5 %, by the adjusted p-value where there is one."""
    p_value = comparison.p_value if comparison.p_holm is None else comparison.p_holm
    return p_value is not None and p_value < ALPHA


def format_p(p_value: float | None) -> str:
    """A p-value with two significant digits and its relation: `= 0.87`, `< 0.0001`, or `not available`."""
    if p_value is None:
        return "not available"
    if p_value < 1e-4:
        return "< 0.0001"
    return f"= {p_value:.{1 - math.floor(math.log10(p_value))}f}"


def format_difference(value: float, comparison: Comparison) -> str:
    """A signed difference: points with two decimals for a rate, else as many decimals as its interval calls for."""
    if comparison.rate:
        return _unsigned_zero(f"{100 * value:+.2f}")
    scale = max(abs(number) for number in (value, comparison.low, comparison.high) if number is not None)
    decimals = 3 if scale == 0 else min(6, max(0, 2 - math.floor(math.log10(scale))))
    return _unsigned_zero(f"{value:+,.{decimals}f}")


def _unsigned_zero(text: str) -> str:
    """-0.00 is a rounding error below 0, or one above it: neither has a direction."""
    return text if text.strip("-+0.") else text.replace("-", "+")


def _sentence(comparison: Comparison, family: int, items: str) -> str:
    names = f"{comparison.b} against {comparison.a}, {comparison.metric}"
    if comparison.n == 0 or comparison.difference is None:
        return f"{names}: the two share no rated question, so nothing can be said."
    if comparison.wins + comparison.regressions == 0:
        return f"{names}: the same on all {comparison.n:,} {items}, so the data carry no test."
    unit = " points" if comparison.rate else ""
    size = format_difference(comparison.difference, comparison) + unit
    if comparison.p_value is None:
        return f"{names}: {size}, but all {items} are to one question, so no difference could be shown."
    interval = "no interval"
    if comparison.low is not None and comparison.high is not None:
        low, high = (format_difference(bound, comparison) for bound in (comparison.low, comparison.high))
        interval = f"95 % interval {low} to {high}"
    chance = f"p {format_p(comparison.p_value)}"
    if comparison.p_holm is not None and family > 1:
        chance += f", after Holm over {family} comparisons {format_p(comparison.p_holm).removeprefix('= ')}"
    facts = f"difference {size}, {interval}, {chance}, n = {comparison.n:,}"
    doubt = f"; {comparison.caution}" if comparison.caution else ""
    if shown(comparison):
        direction = "higher" if comparison.difference > 0 else "lower"
        claim = f"{comparison.b} has {direction} {comparison.metric} than {comparison.a}, by {size.lstrip('+-')}"
        return f"{claim} ({facts}, {comparison.wins:,} wins, {comparison.regressions:,} regressions{doubt})."
    if comparison.minimum_detectable is None or (comparison.rate and comparison.minimum_detectable >= 1):
        return f"{names}: no difference could be shown ({facts}{doubt})."
    smallest = comparison.minimum_detectable
    least = f"{100 * smallest:.1f} points" if comparison.rate else f"{smallest:.2g}"
    return f"{names}: no difference could be shown; only >= {least} could have been ({facts}{doubt})."

"""Shares of questions: the interval of one, the paired difference of two and its exact test; intervals in a range."""

import math

from smolt.errors import UserError
from smolt.statistics.nouns import Z

Limits = tuple[float, float]


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927; Newcombe 1998, method 3).

    `successes` is a whole number, or the sum of n shares in [0, 1], for which the interval is only wider than need be.

    Raises:
        UserError: n is not positive, or successes lies outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise UserError(f"a proportion needs 0 <= successes <= n and n >= 1, not {successes} of {n}")
    rate, z2 = successes / n, Z * Z
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def mcnemar(wins: int, regressions: int) -> float | None:
    """The exact two-sided p-value of McNemar's test: a fair coin on the discordant pairs; None without such pairs."""
    if wins + regressions == 0:
        return None
    return min(1.0, 2 * upper_tail(max(wins, regressions), min(wins, regressions)))


def upper_tail(wins: int, losses: int) -> float:
    """The chance that a fair coin gives so many wins or more, exactly; 1 where there are neither."""
    throws = wins + losses
    term = tail = 1
    for k in range(losses):
        term = term * (throws - k) // (k + 1)
        tail += term
    return tail / (1 << throws)


def paired_wald(wins: int, regressions: int, n: int) -> tuple[float, float]:
    """The paired Wald interval of a difference of two proportions (Agresti 2013, eq. 11.2), inside -1 and 1.

    Raises:
        UserError: n is not positive.
    """
    if n < 1:
        raise UserError("a paired interval needs at least one pair")
    difference = (wins - regressions) / n
    half = Z * math.sqrt(max(0.0, wins + regressions - (wins - regressions) ** 2 / n)) / n
    return interval_within(difference, half, (-1.0, 1.0))


def interval_within(value: float, half: float, limits: Limits | None) -> Limits:
    """The interval `value` plus and minus `half`; where it would leave the limits, one on the logit scale instead.

    With p the place of the value between the limits, 0..1, that is logit p -+ half / (p (1 - p)) by the delta method,
    carried back: the logit interval of Brown, Cai and DasGupta (2001) with the data's own standard error. Its ends lie
    inside the limits however large `half` is, and its longer arm points away from the near limit, as Wilson's does.

    Args:
        value: between the limits.
        half: half the width of the symmetric interval, 0 or more.
        limits: the least and the greatest value there can be; None where there are no such.
    """
    low, high = value - half, value + half
    if limits is None or (limits[0] <= low and high <= limits[1]):
        return low, high
    width = limits[1] - limits[0]
    place = (value - limits[0]) / width if width > 0 else 0.0
    if not 0.0 < place < 1.0:  # at a limit there is no logit
        return max(low, limits[0]), min(high, limits[1])
    odds, reach = math.log(place / (1 - place)), half / width / (place * (1 - place))
    ends = [limits[0] + width * (1 + math.tanh((odds + way) / 2)) / 2 for way in (-reach, reach)]
    low, high = min(ends[0], value), max(ends[1], value)  # beside a limit 1 + tanh has no digits left
    return max(low, limits[0]), min(high, limits[1])

"""Intervals, paired tests, and the sentences that may be written from them.

Conventions: rates and differences lie in [0, 1] and [-1, 1] and are printed in percentage points; intervals are 95 %;
in a pair, a is the baseline and b the candidate, a win is a question where b is the better one, difference = b - a.
A number that the data do not carry is None, never 0 or 1. Rows that share a prompt are resampled together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from smolt import counters
from smolt.errors import UserError

Z = NormalDist().inv_cdf(0.975)
DETECTABLE = 1.960 + 0.842  # two-sided 5 % test, 80 % power
ALPHA = 0.05
RESAMPLES = 10_000
_CHUNK = 2_000_000

Floats = NDArray[np.float64]
Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval (None where none can be formed), its n, and the method it came from."""

    value: float
    low: float | None
    high: float | None
    n: int
    source: str


@dataclass(frozen=True)
class Comparison:
    """Candidate b against baseline a on the same questions; `rate` says that the metric is a share of questions."""

    a: str
    b: str
    metric: str
    wins: int
    regressions: int
    ties: int
    p_value: float | None
    difference: float | None
    low: float | None
    high: float | None
    minimum_detectable: float | None
    n: int
    sentence: str = ""
    test: str = ""
    rate: bool = False


@dataclass(frozen=True)
class Bootstrap:
    """A paired bootstrap: the observed difference, its percentile interval and two-sided p-value."""

    difference: float
    low: float | None
    high: float | None
    p_value: float | None


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927; Newcombe 1998, method 3).

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
    discordant = wins + regressions
    if discordant == 0:
        return None
    term = tail = 1
    for k in range(min(wins, regressions)):
        term = term * (discordant - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << discordant))


def paired_wald(wins: int, regressions: int, n: int) -> tuple[float, float]:
    """The paired Wald interval of a difference of two proportions (Agresti 2013, eq. 11.2).

    Raises:
        UserError: n is not positive.
    """
    if n < 1:
        raise UserError("a paired interval needs at least one pair")
    difference = (wins - regressions) / n
    half = Z * math.sqrt(max(0.0, wins + regressions - (wins - regressions) ** 2 / n)) / n
    return difference - half, difference + half


def minimum_detectable(wins: int, regressions: int, n: int) -> float:
    """The smallest difference of rates that n pairs with this share of discordant ones show 4 times in 5."""
    return DETECTABLE * math.sqrt((wins + regressions) / n / n)


def minimum_detectable_scores(differences: Sequence[float]) -> float | None:
    """The same for scores, from the sd of the paired differences; None with fewer than two."""
    if len(differences) < 2:
        return None
    return DETECTABLE * float(np.std(np.asarray(differences), ddof=1)) / math.sqrt(len(differences))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (1979) over the p-values that exist; the others stay None and are not counted."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    floor = 0.0
    for rank, (p, place) in enumerate(order):
        floor = max(floor, min(1.0, p * (len(order) - rank)))
        adjusted[place] = floor
    return adjusted


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased chance that k of n answers hold a correct one, 1 - C(n-c, k) / C(n, k) (2107.03374, eq. 1).

    Raises:
        UserError: not 1 <= k <= n, or correct outside 0..n.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise UserError(f"pass@k needs 1 <= k <= n and 0 <= correct <= n, not k = {k}, n = {n}, correct = {correct}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def proportion(flags: Sequence[bool], prompts: Sequence[str] | None = None) -> Measure | None:
    """A share of answers with Wilson's interval, or a bootstrap by prompt when prompts repeat; None without answers."""
    if not flags:
        return None
    if _repeats(prompts):
        return mean([float(flag) for flag in flags], prompts)
    low, high = wilson(sum(flags), len(flags))
    return Measure(sum(flags) / len(flags), low, high, len(flags), "Wilson")


def mean(values: Sequence[float], prompts: Sequence[str] | None = None, bootstrap: bool = False) -> Measure | None:
    """A mean with a normal interval, or a bootstrap by prompt when asked for or when prompts repeat.

    None without values; a single value, or a single prompt, has no interval.
    """
    if not values:
        return None
    array = np.asarray(values, dtype=np.float64)
    value, n = float(array.mean()), len(array)
    if bootstrap or _repeats(prompts):
        low, high = _percentiles(_resampled_means(array, prompts, RESAMPLES, seed=0))
        return Measure(value, low, high, n, "bootstrap by question")
    if n < 2:
        return Measure(value, None, None, n, "one value")
    half = Z * float(array.std(ddof=1)) / math.sqrt(n)
    return Measure(value, value - half, value + half, n, "normal")


def correlation(x: Sequence[float], y: Sequence[float]) -> Measure | None:
    """Pearson's r with Fisher's z interval; None with fewer than 4 pairs or where one side does not vary."""
    if len(x) < 4 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    r = float(np.clip(np.corrcoef(np.asarray(x), np.asarray(y))[0, 1], -1.0, 1.0))
    if abs(r) == 1.0:
        return Measure(r, r, r, len(x), "Pearson")
    half = Z / math.sqrt(len(x) - 3)
    return Measure(r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half), len(x), "Pearson")


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
        return Bootstrap(0.0, 0.0, 0.0, None)
    sampled = _resampled_means(differences, prompts, resamples, seed)
    if sampled is None:
        return Bootstrap(difference, None, None, None)
    smaller = min(int((sampled <= 0).sum()), int((sampled >= 0).sum()))
    least = 2.0 ** (1 - np.count_nonzero(_by_prompt(differences, prompts)[0]))
    low, high = _percentiles(sampled)
    return Bootstrap(difference, low, high, min(1.0, max(least, 2 * (smaller + 1) / (resamples + 1))))


def compare_counts(a: str, b: str, metric: str, wins: int, regressions: int, n: int) -> Comparison:
    """Two arms on n questions answered once each, from the counts of discordant pairs: exact McNemar, paired Wald."""
    if n == 0:
        return with_verdict(_nothing(a, b, metric, rate=True))
    low, high = paired_wald(wins, regressions, n)
    return with_verdict(
        Comparison(
            a=a,
            b=b,
            metric=metric,
            wins=wins,
            regressions=regressions,
            ties=n - wins - regressions,
            p_value=mcnemar(wins, regressions),
            difference=(wins - regressions) / n,
            low=low,
            high=high,
            minimum_detectable=minimum_detectable(wins, regressions, n),
            n=n,
            test="exact McNemar",
            rate=True,
        )
    )


def compare_binary(
    a: str, b: str, metric: str, first: Sequence[bool], second: Sequence[bool], prompts: Sequence[str] | None = None
) -> Comparison:
    """Two arms on the same rows, right or wrong.

    Where prompts repeat, McNemar's pairs are not independent and the bootstrap by prompt takes its place.
    """
    if _repeats(prompts):
        return compare_scores(a, b, metric, [*map(float, first)], [*map(float, second)], prompts, rate=True)
    pairs = list(zip(first, second, strict=True))
    wins = sum(right and not wrong for wrong, right in pairs)
    regressions = sum(right and not wrong for right, wrong in pairs)
    return compare_counts(a, b, metric, wins, regressions, len(pairs))


def compare_scores(
    a: str,
    b: str,
    metric: str,
    first: Sequence[float],
    second: Sequence[float],
    prompts: Sequence[str] | None = None,
    rate: bool = False,
    seed: int = 0,
) -> Comparison:
    """Two arms on the same rows by a score: paired bootstrap, resampled by prompt."""
    if not first:
        return with_verdict(_nothing(a, b, metric, rate))
    result = paired_bootstrap(first, second, prompts, seed=seed)
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    wins, regressions = int((differences > 0).sum()), int((differences < 0).sum())
    sums, counts = _by_prompt(differences, prompts)
    return with_verdict(
        Comparison(
            a=a,
            b=b,
            metric=metric,
            wins=wins,
            regressions=regressions,
            ties=len(differences) - wins - regressions,
            p_value=result.p_value,
            difference=result.difference,
            low=result.low,
            high=result.high,
            minimum_detectable=minimum_detectable_scores((sums / counts).tolist()),
            n=len(differences),
            test="paired bootstrap by question",
            rate=rate,
        )
    )


def with_verdict(comparison: Comparison, p_holm: float | None = None, family: int = 1) -> Comparison:
    """The comparison with its sentence; `p_holm`, over a family of comparisons, decides where it is given."""
    return replace(comparison, sentence=_sentence(comparison, p_holm, family))


def shown(comparison: Comparison, p_holm: float | None = None) -> bool:
    """Whether a difference is shown at 5 %, by the adjusted p-value where there is one."""
    p_value = comparison.p_value if p_holm is None else p_holm
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
        return f"{100 * value:+.2f}"
    scale = max(abs(number) for number in (value, comparison.low, comparison.high) if number is not None)
    decimals = 3 if scale == 0 else min(6, max(0, 2 - math.floor(math.log10(scale))))
    return f"{value:+,.{decimals}f}"


def _sentence(comparison: Comparison, p_holm: float | None, family: int) -> str:
    names = f"{comparison.b} against {comparison.a}, {comparison.metric}"
    if comparison.n == 0 or comparison.difference is None:
        return f"{names}: the two share no rated question, so nothing can be said."
    if comparison.wins + comparison.regressions == 0:
        return f"{names}: the same on all {comparison.n:,} answers, so the data carry no test."
    unit = " points" if comparison.rate else ""
    size = format_difference(comparison.difference, comparison) + unit
    if comparison.low is None or comparison.high is None:
        return f"{names}: {size}, but all answers are to one question, so no difference could be shown."
    low, high = (format_difference(bound, comparison) for bound in (comparison.low, comparison.high))
    chance = f"p {format_p(comparison.p_value)}"
    if p_holm is not None and family > 1:
        chance += f", after Holm over {family} comparisons {format_p(p_holm).removeprefix('= ')}"
    facts = f"difference {size}, 95 % interval {low} to {high}, {chance}, n = {comparison.n:,}"
    if shown(comparison, p_holm):
        direction = "higher" if comparison.difference > 0 else "lower"
        claim = f"{comparison.b} has {direction} {comparison.metric} than {comparison.a}, by {size.lstrip('+-')}"
        return f"{claim} ({facts}, {comparison.wins:,} wins, {comparison.regressions:,} regressions)."
    if comparison.minimum_detectable is None:
        return f"{names}: no difference could be shown ({facts})."
    smallest = comparison.minimum_detectable
    least = f"{100 * smallest:.1f} points" if comparison.rate else f"{smallest:.2g}"
    return f"{names}: no difference could be shown; only >= {least} could have been ({facts})."


def _nothing(a: str, b: str, metric: str, rate: bool) -> Comparison:
    return Comparison(a, b, metric, 0, 0, 0, None, None, None, None, None, 0, test="none", rate=rate)


def _repeats(prompts: Sequence[str] | None) -> bool:
    return prompts is not None and len(set(prompts)) < len(prompts)


def _by_prompt(values: Floats, prompts: Sequence[str] | None) -> tuple[Floats, Floats]:
    """The sum of the values and the number of rows of each prompt, in the order of first appearance."""
    if prompts is None:
        return values, np.ones_like(values)
    places: dict[str, int] = {}
    index = np.array([places.setdefault(prompt, len(places)) for prompt in prompts])
    ones = np.ones_like(values)
    return np.bincount(index, weights=values).astype(np.float64), np.bincount(index, weights=ones).astype(np.float64)


def _resampled_means(values: Floats, prompts: Sequence[str] | None, resamples: int, seed: int) -> Floats | None:
    """The mean over rows in each resample of whole prompts; a draw is a function of (seed, resample, place)."""
    sums, counts = _by_prompt(values, prompts)
    size = len(sums)
    if size < 2:
        return None
    rows = counters.keys(np.stack([np.full(resamples, seed), np.arange(resamples)], axis=1))
    means = np.empty(resamples)
    places = np.arange(size, dtype=np.uint64)[None, :]
    step = max(1, _CHUNK // size)
    for start in range(0, resamples, step):
        draws = counters.uniforms_at(rows[start : start + step, None], places)
        chosen = (draws.astype(np.float64) * size).astype(np.intp)
        means[start : start + step] = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    return means


def _percentiles(sampled: Floats | None) -> Interval:
    if sampled is None:
        return None, None
    low, high = np.percentile(sampled, [2.5, 97.5])
    return float(low), float(high)

"""One arm's numbers with their intervals: shares, means, correlations, agreement, win rates; several answers, runs."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from smolt.errors import UserError
from smolt.statistics.bootstrap import FEWEST, RESAMPLES, by_prompt, percentiles, repeats, resampled_ratios, with_width
from smolt.statistics.nouns import Measure, Z
from smolt.statistics.proportions import Limits, interval_within, wilson

BOOTSTRAP = "bootstrap by question"


def measure(
    values: Sequence[float],
    prompts: Sequence[str] | None = None,
    *,
    rate: bool = False,
    bounded: bool = True,
) -> Measure | None:
    """What a metric comes to over answers: a share where each value is 0 or 1, else a mean. None without values.

    Every command and report that prints one arm's number prints this one, so that the same answers have one interval.

    Args:
        values: one an answer, finite.
        prompts: what each answers; rows that share one are resampled together.
        rate: the metric is a share, shown in percent; its values lie in 0..1.
        bounded: the values come from a range, known or not: see `mean`. A loss, a KL and a reward model's score do not,
            and 0 and 1 mean nothing special among them.
    """
    if bounded and set(values) <= {0.0, 1.0}:
        found = proportion([value == 1.0 for value in values], prompts)
        return None if found is None else replace(found, rate=rate)
    return share(values, prompts) if rate else mean(values, prompts, bounded=bounded)


def proportion(flags: Sequence[bool], prompts: Sequence[str] | None = None) -> Measure | None:
    """A share of answers with Wilson's interval, or a bootstrap by prompt when prompts repeat; None without answers."""
    if not flags:
        return None
    if repeats(prompts):
        return share([float(flag) for flag in flags], prompts)
    low, high = wilson(sum(flags), len(flags))
    return Measure(sum(flags) / len(flags), low, high, len(flags), "Wilson", rate=True)


def share(values: Sequence[float], prompts: Sequence[str] | None = None) -> Measure | None:
    """The mean of values in 0..1 with a bootstrap by prompt (each its own where none are given); None without values.

    Where all are 0, or all are 1, every resample is the same and the bootstrap would claim certainty: Wilson's interval
    for none, or all, of the prompts takes its place.
    """
    if values and set(values) <= {values[0]} and values[0] in (0.0, 1.0):
        size = len(values if prompts is None else set(prompts))
        low, high = wilson(size if values[0] else 0, size)
        return Measure(values[0], low, high, len(values), "Wilson by question", rate=True)
    found = mean(values, prompts, bootstrap=True)
    return None if found is None else replace(found, rate=True)


def mean(
    values: Sequence[float], prompts: Sequence[str] | None = None, bootstrap: bool = False, bounded: bool = False
) -> Measure | None:
    """A mean with a normal interval, or a bootstrap by prompt when asked for or when prompts repeat.

    None without values; a single value, a single prompt, or values that are all equal have no interval.

    Values from a range (a rule's 0..1, tokens up to a limit) have a mean in it, and the normal interval may leave it.
    The ends of a bootstrap interval are means of values seen, so they cannot. Where `bounded`, the normal one is formed
    on the logit scale between the least and the greatest value seen as soon as it leaves these (interval_within); no
    range that holds the values is then left, whatever it is, and an interval that stays is the normal one.
    """
    if not values:
        return None
    array = np.asarray(values, dtype=np.float64)
    limits: Limits = (float(array.min()), float(array.max()))
    value, n = min(limits[1], max(limits[0], float(array.mean()))), len(array)
    if n > 1 and limits[0] == limits[1]:
        return Measure(value, None, None, n, "all equal")
    if bootstrap or repeats(prompts):
        low, high = percentiles(resampled_ratios(*by_prompt(array, prompts), RESAMPLES, seed=0))
        few = (n if prompts is None else len(set(prompts))) < FEWEST
        return Measure(value, low, high, n, BOOTSTRAP + (f", fewer than {FEWEST}" if few else ""))
    if n < 2:
        return Measure(value, None, None, n, "one value")
    half = Z * float(array.std(ddof=1)) / math.sqrt(n)
    low, high = interval_within(value, half, limits if bounded else None)
    return Measure(value, low, high, n, "normal" if (low, high) == (value - half, value + half) else "normal, logit")


def few_values(measures: Iterable[Measure]) -> str:
    """What is to be said once beside intervals of means where some are of fewer than FEWEST values, or nothing.

    Their normal and bootstrap intervals cover too little; Wilson's, of shares, and Student's do not.
    """
    rough = any(
        measure.n < FEWEST and measure.low is not None and measure.source.startswith(("normal", "bootstrap"))
        for measure in measures
    )
    said = f"Intervals of means of n below {FEWEST} are rough: such an interval may cover less than 93 %, of a handful"
    return f"{said} of values far less." if rough else ""


def ratio(
    totals: Sequence[float], weights: Sequence[float], prompts: Sequence[Hashable] | None = None
) -> Measure | None:
    """Sum of totals / sum of weights (a loss per token) with a bootstrap by record; n = records, None without any.

    Records that share a prompt are resampled together. A single record, or prompt, or records of one and the same
    ratio, have no interval.
    """
    if not totals:
        return None
    sums, counts = np.asarray(totals, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    parts, sizes = by_prompt(sums, prompts)[0], by_prompt(counts, prompts)[0]
    low, high = percentiles(resampled_ratios(parts, sizes, RESAMPLES, seed=0))
    few = f", fewer than {FEWEST}" if len(parts) < FEWEST else ""
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


def kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> Measure | None:
    """Cohen's kappa (1960) of paired labels, with the large-sample interval of Fleiss, Cohen and Everitt (1969).

    1 is full agreement, 0 what two raters with these habits would reach by chance, below 0 is worse than chance. The
    interval is cut at -1 and 1, and is None where the formula has no width (all pairs agree, or none does).

    Args:
        pairs: the first rater's label and the second's, one pair an item; a label may be any hashable value.

    Returns:
        None without pairs, or where both raters gave one and the same label throughout: chance alone explains that.
    """
    n = len(pairs)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    chance = sum(first[label] * second[label] for label in first) / (n * n) if n else 1.0
    if chance == 1.0:
        return None
    observed = sum(a == b for a, b in pairs) / n
    value = (observed - chance) / (1 - chance)
    cells = Counter(pairs)
    hits = sum(
        count / n * ((1 - chance) - (first[a] + second[a]) / n * (1 - observed)) ** 2
        for (a, b), count in cells.items()
        if a == b
    )
    misses = (1 - observed) ** 2 * sum(
        count / n * ((first[b] + second[a]) / n) ** 2 for (a, b), count in cells.items() if a != b
    )
    excess = (observed * chance - 2 * chance + observed) ** 2
    variance = (hits + misses - excess) / (n * (1 - chance) ** 4)
    if variance < 1e-15:
        return Measure(value, None, None, n, "Cohen's kappa")
    half = Z * math.sqrt(variance)
    return Measure(value, max(-1.0, value - half), min(1.0, value + half), n, "Cohen's kappa")


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased chance that k of n answers hold a correct one, 1 - C(n-c, k) / C(n, k) (2107.03374, eq. 1).

    Raises:
        UserError: not 1 <= k <= n, or correct outside 0..n.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise UserError(f"pass@k needs 1 <= k <= n and 0 <= correct <= n, not k = {k}, n = {n}, correct = {correct}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def best_of_k(ranked: Sequence[float], k: int) -> float:
    """What choosing the best of k would give, without bias, from n >= k answers (2112.09332, appendix I).

    The i-th best of n is the best of k drawn ones with chance C(n - i, k - 1) / C(n, k): k = n gives the best one's
    value, k = 1 the mean.

    Args:
        ranked: a value of each answer, the answer that would be chosen first in front.
        k: answers to choose among.

    Raises:
        UserError: not 1 <= k <= n.
    """
    n = len(ranked)
    if not 1 <= k <= n:
        raise UserError(f"best of k needs 1 <= k <= n, not k = {k}, n = {n}")
    return sum(math.comb(n - place, k - 1) * value for place, value in enumerate(ranked, 1)) / math.comb(n, k)


def over_seeds(numbers: Sequence[float], limits: Limits | None = None) -> Measure | None:
    """The mean of one number a training run, with Student's interval over runs (n - 1 degrees of freedom).

    The interval covers what another run would give on the same questions. None without runs; one run, or runs that all
    gave the same number, have no interval.

    Args:
        numbers: a run's rate or mean, or its difference from the baseline's.
        limits: between which such a number lies, 0 and 1 for a rate: the interval does not leave them.
    """
    from scipy.special import stdtrit

    n = len(numbers)
    if n == 0:
        return None
    values = np.asarray(numbers, dtype=np.float64)
    value = float(values.mean())
    if n == 1:
        return Measure(value, None, None, 1, "one run")
    half = float(stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(n)
    low, high = with_width(*interval_within(value, half, limits))
    return Measure(value, low, high, n, "Student, over training runs" if low is not None else "all runs equal")


def won(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """1 where the second score is the higher one, 0 where it is the lower one, 0.5 for a tie."""
    return [1.0 if b > a else 0.5 if b == a else 0.0 for a, b in zip(first, second, strict=True)]


def win_rate(first: Sequence[float], second: Sequence[float], prompts: Sequence[str] | None = None) -> Measure | None:
    """The share of pairs that the second side wins, a tie counted half, with a bootstrap interval by prompt.

    Where every pair is won, or lost, Wilson's interval takes its place; where every pair is a tie there is none.
    """
    results = won(first, second)
    if set(results) == {0.5}:
        return Measure(0.5, None, None, len(results), "all ties", rate=True)
    return share(results, prompts)

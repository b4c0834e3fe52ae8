"""Two arms on the same questions: exact McNemar for right or wrong, the paired bootstrap for scores.

With it what a comparison could have shown at all, and Holm's adjustment over several: with twenty of them, one p-value
in twenty falls under 5 % by chance.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from smolt.statistics.bootstrap import by_prompt, caution, paired_bootstrap, repeats, with_width
from smolt.statistics.nouns import ALPHA, Comparison
from smolt.statistics.proportions import mcnemar, paired_wald
from smolt.statistics.verdicts import with_verdict

DETECTABLE = 1.960 + 0.842  # two-sided 5 % test, 80 % power
MCNEMAR = "exact McNemar"


def compare_counts(
    a: str, b: str, metric: str, wins: int, regressions: int, n: int, items: str = "answers"
) -> Comparison:
    """Two arms on n questions answered once each, from the counts of discordant pairs: exact McNemar, paired Wald.

    One question has a difference, but neither interval nor test; questions that all went one way, or all came out the
    same, have no interval, for the paired Wald interval then has no width. `items`: what is counted, in the plural.
    """
    if n == 0:
        return _nothing(a, b, metric, rate=True)
    low, high = with_width(*paired_wald(wins, regressions, n))
    p_value, least = (mcnemar(wins, regressions), _detectable_counts(wins, regressions, n)) if n > 1 else (None, None)
    difference, ties = (wins - regressions) / n, n - wins - regressions
    found = Comparison(a, b, metric, wins, regressions, ties, p_value, difference, low, high, least, n)
    doubt = _few_discordant(wins + regressions, items)
    return with_verdict(replace(found, test=MCNEMAR, rate=True, caution=doubt), items=items)


def compare(
    a: str,
    b: str,
    metric: str,
    first: Sequence[float],
    second: Sequence[float],
    prompts: Sequence[str] | None = None,
    *,
    rate: bool = False,
    items: str = "answers",
) -> Comparison:
    """Two arms on the same rows: exact McNemar where a rate's rows are right or wrong, else the paired bootstrap.

    Where prompts repeat, McNemar's pairs are not independent and the bootstrap by prompt takes its place.

    Args:
        a: the baseline's name.
        b: the candidate's.
        metric: what the values are of.
        first: a's value of each row; of a rate 0 (wrong), 1 (right), or a share between.
        second: b's.
        prompts: what each row answers; each its own where none are given.
        rate: the metric is a share of questions.
        items: what is counted, in the plural.
    """
    if not rate or repeats(prompts) or not {*first, *second} <= {0.0, 1.0}:
        return with_verdict(compare_scores(a, b, metric, first, second, prompts, rate=rate), items=items)
    pairs = list(zip(first, second, strict=True))
    wins, regressions = sum(y > x for x, y in pairs), sum(y < x for x, y in pairs)
    return compare_counts(a, b, metric, wins, regressions, len(pairs), items)


def family(tests: Sequence[Comparison], items: str = "answers") -> list[Comparison]:
    """The comparisons of one metric, adjusted together by Holm, each with the sentence that its adjusted p allows."""
    adjusted = holm([test.p_value for test in tests])
    size = sum(p_value is not None for p_value in adjusted)
    # Holm asks this of one more that would be shown beside those that are
    level = ALPHA / max(1, size - sum(p_value is not None and p_value < ALPHA for p_value in adjusted))
    found = [replace(_at_level(test, level), p_holm=p) for test, p in zip(tests, adjusted, strict=True)]
    return [with_verdict(test, size, items) for test in found]


def _at_level(test: Comparison, level: float) -> Comparison:
    """The comparison with what its exact test could have shown at this level; others as they are."""
    if test.test != MCNEMAR or test.minimum_detectable is None:
        return test
    return replace(test, minimum_detectable=_detectable_counts(test.wins, test.regressions, test.n, level))


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
        return _nothing(a, b, metric, rate)
    result = paired_bootstrap(first, second, prompts, seed=seed)
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    n, wins, regressions = len(differences), int((differences > 0).sum()), int((differences < 0).sum())
    sums, counts = by_prompt(differences, prompts)
    tested = (result.p_value, result.difference, result.low, result.high)
    least = _detectable_scores((sums / counts).tolist())
    found = Comparison(a, b, metric, wins, regressions, n - wins - regressions, *tested, least, n)
    doubt = caution(len(sums), interval=result.low is not None)
    return with_verdict(replace(found, test="paired bootstrap by question", rate=rate, caution=doubt))


def _nothing(a: str, b: str, metric: str, rate: bool) -> Comparison:
    found = Comparison(a, b, metric, 0, 0, 0, None, None, None, None, None, 0, test="none", rate=rate)
    return with_verdict(found)


def _few_discordant(count: int, items: str) -> str:
    """Said where the test could not have gone below 5 %, however the discordant pairs had fallen."""
    if count == 0 or count >= fewest_differing():
        return ""
    differ = f"{items} differ" if count > 1 else f"{items.removesuffix('s')} differs"
    return f"only {count} {differ}, too few for p < {ALPHA}"


def fewest_differing(level: float = ALPHA) -> int:
    """How many questions must differ, all one way, for a two-sided sign-flip test below the level: 6 at 5 %."""
    return math.floor(1 - math.log2(level)) + 1


def _detectable_counts(wins: int, regressions: int, n: int, level: float = ALPHA) -> float | None:
    """`minimum_detectable`, but never less than the exact test can show on n pairs; None where it can show nothing."""
    fewest = fewest_differing(level)
    return max(minimum_detectable(wins, regressions, n), fewest / n) if fewest <= n else None


def _detectable_scores(differences: Sequence[float]) -> float | None:
    """`minimum_detectable_scores`; where too few differ for any test, as much as enough of their mean size would be."""
    fewest, sizes = fewest_differing(), [abs(difference) for difference in differences if difference]
    least = minimum_detectable_scores(differences)
    if least is None or len(sizes) >= fewest:
        return least
    return max(least, fewest * sum(sizes) / len(sizes) / len(differences)) if fewest <= len(differences) else None


def minimum_detectable(wins: int, regressions: int, n: int) -> float:
    """The smallest difference of rates that n pairs with this share of discordant ones show 4 times in 5."""
    return DETECTABLE * math.sqrt((wins + regressions) / n / n)


def minimum_detectable_scores(differences: Sequence[float]) -> float | None:
    """The same for scores, from the sd of the paired differences; None with fewer than two, or where all are equal."""
    if len(differences) < 2 or min(differences) == max(differences):
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

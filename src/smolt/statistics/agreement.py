"""How far two raters agree beyond what their habits alone would give."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from smolt.statistics.nouns import Measure, Z


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

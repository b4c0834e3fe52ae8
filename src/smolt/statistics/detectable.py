"""The smallest difference that a comparison could have shown: what "no difference was shown" is worth."""

import math
from collections.abc import Sequence

import numpy as np

DETECTABLE = 1.960 + 0.842  # two-sided 5 % test, 80 % power


def minimum_detectable(wins: int, regressions: int, n: int) -> float:
    """The smallest difference of rates that n pairs with this share of discordant ones show 4 times in 5."""
    return DETECTABLE * math.sqrt((wins + regressions) / n / n)


def minimum_detectable_scores(differences: Sequence[float]) -> float | None:
    """The same for scores, from the sd of the paired differences; None with fewer than two."""
    if len(differences) < 2:
        return None
    return DETECTABLE * float(np.std(np.asarray(differences), ddof=1)) / math.sqrt(len(differences))

"""What flows: a number with its interval, a comparison of two arms; and the levels that everything is stated at."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Z = NormalDist().inv_cdf(0.975)
ALPHA = 0.05

Floats = NDArray[np.float64]
Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval (None where none can be formed), its n, and the method it came from.

    Attributes:
        rate: it is a share, in 0..1 here and in every file, and shown in percent.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    source: str
    rate: bool = False


@dataclass(frozen=True)
class Comparison:
    """Candidate b against baseline a on the same questions.

    Attributes:
        rate: the metric is a share of questions.
        caution: why interval and test are worth less than they look, empty where nothing is known against them.
        p_holm: adjusted over the family of comparisons it belongs to; None outside one.
    """

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
    caution: str = ""
    p_holm: float | None = None

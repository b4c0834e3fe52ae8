"""Several training runs: what the next run would give is a question to runs, not to questions."""

import math
from collections.abc import Sequence

import numpy as np

from smolt.statistics.nouns import Measure


def over_seeds(differences: Sequence[float]) -> Measure | None:
    """The mean of one number a training run, with Student's interval over runs (n - 1 degrees of freedom).

    Takes the difference b - a of each run; its interval covers what another run would give on the same questions.
    None without runs; one run has no interval.
    """
    from scipy.special import stdtrit

    n = len(differences)
    if n == 0:
        return None
    values = np.asarray(differences, dtype=np.float64)
    value = float(values.mean())
    if n == 1:
        return Measure(value, None, None, 1, "one run")
    half = float(stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Measure(value, value - half, value + half, n, "Student, over training runs")

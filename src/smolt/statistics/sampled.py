"""Several sampled answers to one question."""

import math
from collections.abc import Sequence

from smolt.errors import UserError


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

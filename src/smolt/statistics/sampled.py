"""Several sampled answers to one question."""

import math

from smolt.errors import UserError


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased chance that k of n answers hold a correct one, 1 - C(n-c, k) / C(n, k) (2107.03374, eq. 1).

    Raises:
        UserError: not 1 <= k <= n, or correct outside 0..n.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise UserError(f"pass@k needs 1 <= k <= n and 0 <= correct <= n, not k = {k}, n = {n}, correct = {correct}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)

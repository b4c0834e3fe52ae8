"""How often one of two answers to the same question is rated higher."""

from collections.abc import Sequence

from smolt.statistics.estimates import share
from smolt.statistics.nouns import Measure


def won(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """1 where the second score is the higher one, 0 where it is the lower one, 0.5 for a tie."""
    return [1.0 if b > a else 0.5 if b == a else 0.0 for a, b in zip(first, second, strict=True)]


def win_rate(first: Sequence[float], second: Sequence[float], prompts: Sequence[str] | None = None) -> Measure | None:
    """The share of pairs that the second side wins, a tie counted half, with a bootstrap interval by prompt.

    Where every pair is won, or lost, Wilson's interval takes its place; where every pair is a tie there is none.
    """
    results = won(first, second)
    if set(results) == {0.5}:
        return Measure(0.5, None, None, len(results), "all ties")
    return share(results, prompts)

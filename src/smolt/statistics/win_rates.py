"""How often one of two answers to the same question is rated higher."""

from collections.abc import Sequence

from smolt.statistics.estimates import mean
from smolt.statistics.nouns import Measure


def won(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """1 where the second score is the higher one, 0 where it is the lower one, 0.5 for a tie."""
    return [1.0 if b > a else 0.5 if b == a else 0.0 for a, b in zip(first, second, strict=True)]


def win_rate(first: Sequence[float], second: Sequence[float], prompts: Sequence[str] | None = None) -> Measure | None:
    """The share of pairs that the second side wins, a tie counted half, with a bootstrap interval by prompt."""
    return mean(won(first, second), prompts, bootstrap=True)

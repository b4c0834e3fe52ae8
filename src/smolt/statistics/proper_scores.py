"""Probabilities beside what was right: proper scores, the temperature of the least, and what may be decided alone.

A question's options have probabilities p and expected probabilities e (0 or 1 where one option is right).
"""

import math
from collections.abc import Sequence

import numpy as np

FEWEST_FITTED = 20  # questions from which a temperature is fitted
COLDEST, HOTTEST = 0.05, 20.0
TINY = 1e-12  # a probability that is 0 counts as this much in the log score, which is then 27.6


def brier(probabilities: Sequence[float], expected: Sequence[float]) -> float:
    """Sum over options of (p - e)^2, 0 to 2 (Brier 1950)."""
    return sum((p - e) ** 2 for p, e in zip(probabilities, expected, strict=True))


def log_score(probabilities: Sequence[float], expected: Sequence[float]) -> float:
    """-sum over options of e log p, in nats (Good 1952)."""
    return -sum(e * math.log(max(p, TINY)) for p, e in zip(probabilities, expected, strict=True) if e)


def fitted_temperature(logprobs: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> float | None:
    """The temperature of the least log score, by which log-probabilities are divided (Guo et al., 1706.04599).

    Args:
        logprobs: of each question's options.
        expected: of the same.

    Returns:
        0.05 to 20; None for fewer than 20 questions, which name no temperature.
    """
    from scipy.optimize import minimize_scalar

    if len(logprobs) < FEWEST_FITTED:
        return None
    width = max(map(len, logprobs))
    scores = np.array([[*row, *[-np.inf] * (width - len(row))] for row in logprobs])
    wanted = np.array([[*row, *[0.0] * (width - len(row))] for row in expected])
    known = np.where(np.isfinite(scores), scores, 0.0)

    def loss(log: float) -> float:  # convex in 1 / temperature, so it has one minimum
        sharpness = math.exp(-log)
        totals = np.logaddexp.reduce(np.where(np.isfinite(scores), sharpness * known, -np.inf), axis=1)
        return float((totals - sharpness * (wanted * known).sum(axis=1)).mean())

    found = minimize_scalar(loss, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
    return float(math.exp(found.x))


def decided_alone(confidence: Sequence[float], right: Sequence[float], error: float) -> tuple[float, float] | None:
    """The largest share of questions, the surest first, whose share of wrong answers is at most `error`.

    Returns:
        (that share, its share of wrong answers); None where even the surest are wrong more often.
    """
    shares, wrong = risk_coverage(confidence, right)
    kept = [(share, rate) for share, rate in zip(shares, wrong, strict=True) if rate <= error]
    return kept[-1] if kept else None


def risk_coverage(confidence: Sequence[float], right: Sequence[float]) -> tuple[list[float], list[float]]:
    """Share decided and share of wrong answers among them, as ever less sure answers are taken in.

    Questions of one confidence are taken in together.
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    stated, wrong = np.asarray(confidence)[order], 1 - np.asarray(right)[order]
    ends = np.flatnonzero(np.append(np.diff(stated) != 0, True))
    counts = ends + 1
    return (counts / len(stated)).tolist(), (np.cumsum(wrong)[ends] / counts).tolist()

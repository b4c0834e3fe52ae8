"""Logistic regression: penalised for many features, by maximum likelihood for few; the win rate at equal length."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from smolt.errors import UserError
from smolt.statistics.bootstrap import by_prompt
from smolt.statistics.nouns import Floats, Measure, Z

MOST_STEPS = 50
_SEPARATED = 20.0  # log-odds; beyond it the data name no finite answer


def bradley_terry_weights(differences: Any, penalty: float) -> Floats:
    """Weights w of a Bradley-Terry model: the minimum of sum log(1 + exp(-x w)) + penalty / 2 |w|^2.

    Args:
        differences: features of the preferred minus those of the other answer, [n, features], dense or sparse.
        penalty: > 0, of the squared weights.
    """
    from scipy.optimize import minimize

    def loss(weights: Floats) -> tuple[float, Floats]:
        lead = differences @ weights
        slope = -0.5 * (1 - np.tanh(lead / 2))  # the derivative of log(1 + exp(-lead)), without overflow
        value = float(np.logaddexp(0, -lead).sum() + penalty / 2 * weights @ weights)
        return value, np.asarray(differences.T @ slope + penalty * weights)

    found = minimize(loss, np.zeros(differences.shape[1]), jac=True, method="L-BFGS-B")
    return np.asarray(found.x, dtype=np.float64)


def likeliest_weights(columns: Floats, won: Floats) -> Floats | None:
    """Maximum likelihood by Newton's method; None where it runs away (the data are separated) or does not settle.

    Args:
        columns: [n, few].
        won: 0 to 1, [n].
    """
    weights: Floats = np.zeros(columns.shape[1])
    for _ in range(MOST_STEPS):
        chance = 1 / (1 + np.exp(-columns @ weights))
        step = np.linalg.solve(information(columns, chance), columns.T @ (won - chance))
        weights = weights + step
        if float(np.abs(weights).max()) > _SEPARATED:
            return None
        if float(np.abs(step).max()) < 1e-12:
            return weights
    return None


def information(columns: Floats, chance: Floats) -> Floats:
    """Fisher's information of the weights, where each row wins with `chance`."""
    found: Floats = columns.T @ (columns * (chance * (1 - chance))[:, None])
    return found


def length_controlled(
    wins: Sequence[float],
    lengths: Sequence[float],
    other_lengths: Sequence[float],
    prompts: Sequence[str] | None = None,
) -> Measure | None:
    """The win rate that a logistic regression gives for two answers of equal length.

    logit P(win) = t + f * tanh((length - other length) / sd of these differences), fitted by maximum likelihood; the
    value is 1 / (1 + exp(-t)). These are the length term and the standardisation of AlpacaEval 2 (2404.04475, eq. 2);
    left out are its difficulty of each instruction, which needs the verdicts on many models, and its regularisation.
    The interval is that of t (sandwich variance, rows of one prompt together), carried through the logistic function.

    Args:
        wins: 1 a win, 0 a loss, 0.5 a tie, one for each pair.
        lengths: of the answers that won or lost, in any one unit.
        other_lengths: of the answers they were held against.
        prompts: what each pair answers; rows that share one are not independent.

    Returns:
        None with fewer than 10 pairs or 2 prompts, without both wins and losses, where length alone separates them, or
        where all length differences are the same and not 0 (then no pair tells what equal length would give).

    Raises:
        UserError: the lists differ in length, or a win lies outside 0..1.
    """
    if len({len(wins), len(lengths), len(other_lengths), len(wins if prompts is None else prompts)}) > 1:
        raise UserError("a length-controlled win rate needs lists of one length")
    won = np.asarray(wins, dtype=np.float64)
    if not bool(((won >= 0) & (won <= 1)).all()):
        raise UserError("wins: must lie in 0..1: 1 a win, 0 a loss, 0.5 a tie")
    longer = np.asarray(lengths, dtype=np.float64) - np.asarray(other_lengths, dtype=np.float64)
    clusters = len(won) if prompts is None else len(set(prompts))
    if len(won) < 10 or clusters < 2 or won.min() == won.max():
        return None
    spread = float(longer.std())
    if spread == 0 and longer[0] != 0:
        return None
    even_alone = [np.ones_like(won)]
    columns = np.stack(even_alone if spread == 0 else [*even_alone, np.tanh(longer / spread)], axis=1)
    fitted = likeliest_weights(columns, won)
    if fitted is None:
        return None
    even, half = float(fitted[0]), Z * math.sqrt(_variance(columns, won, fitted, prompts))
    low, value, high = (1 / (1 + math.exp(-odds)) for odds in (even - half, even, even + half))
    return Measure(value, low, high, len(won), "logistic regression on length", rate=True)


def _variance(columns: Floats, won: Floats, weights: Floats, prompts: Sequence[str] | None) -> float:
    """The sandwich variance of the first weight, with the residuals of one prompt summed."""
    chance = 1 / (1 + np.exp(-columns @ weights))
    inverse = np.linalg.inv(information(columns, chance))
    scores = columns * (won - chance)[:, None]
    summed = np.stack([by_prompt(column, prompts)[0] for column in scores.T], axis=1)
    return float((inverse @ (summed.T @ summed) @ inverse)[0, 0])

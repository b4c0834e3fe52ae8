"""Logistic regression: the penalised fit for many features, and maximum likelihood for few."""

from typing import Any

import numpy as np

from smolt.statistics.nouns import Floats

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

"""Bradley-Terry ratings from votes between pairs of arms, with intervals, and what few votes cannot tell apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components

from smolt.errors import UserError
from smolt.statistics.logistic import information, likeliest_weights
from smolt.statistics.nouns import Floats, Measure, Z

POINTS = 400 / math.log(10)
"""Elo's points for a unit of log-odds: 400 points are odds of 10 to 1."""
MIDDLE = 1000.0
SOURCE = "Bradley-Terry, Fisher information"


@dataclass(frozen=True)
class Bout:
    """One vote.

    Attributes:
        a, b: the two arms, not the same.
        score: of a: 1 a win, 0 a loss, 0.5 a tie.
    """

    a: str
    b: str
    score: float


@dataclass(frozen=True)
class Rating:
    """One arm's standing.

    Attributes:
        arm: its name.
        votes, won, even: votes it took part in, how many of them it won, how many were ties.
        points: the rating with its interval, None where no finite one exists (it won all, or lost all).
    """

    arm: str
    votes: int
    won: int
    even: int
    points: Measure | None


@dataclass(frozen=True)
class Ratings:
    """All arms, the best first, those without a rating last.

    Attributes:
        arms: one entry each.
        unclear: pairs of arms whose difference's 95 % interval holds 0.
    """

    arms: tuple[Rating, ...]
    unclear: tuple[tuple[str, str], ...]


def bradley_terry(bouts: Sequence[Bout]) -> Ratings:
    """Ratings by maximum likelihood: P(a beats b) = 1 / (1 + 10^((b - a) / 400)), their mean 1,000.

    A tie counts as half a win of each. Rated are the arms of the largest set in which each has beaten (or tied with)
    each, perhaps by way of others; without that no maximum exists (Ford 1957), and what an arm outside did to those
    inside says nothing of their order. The intervals are 95 %, from the Fisher information (for votes with ties it
    says no less than the spread there is): of an arm against the mean of all rated arms, and of two arms' difference.

    Raises:
        UserError: a score is not 0, 0.5 or 1, or an arm stands against itself.
    """
    if any(bout.score not in (0, 0.5, 1) or bout.a == bout.b for bout in bouts):
        raise UserError("a vote needs two different arms and a score of 0, 0.5 or 1")
    names = sorted({name for bout in bouts for name in (bout.a, bout.b)})
    rated = _comparable(names, bouts)
    inner = [bout for bout in bouts if bout.a in rated and bout.b in rated]
    found = _fitted(rated, inner) if len(rated) > 1 else None
    if found is None:
        return Ratings(tuple(_standing(name, bouts, None) for name in names), ())
    odds, spread = found
    points = {}
    for place, name in enumerate(rated):
        half = Z * math.sqrt(spread[place, place]) * POINTS
        value = MIDDLE + POINTS * float(odds[place])
        count = sum(name in (bout.a, bout.b) for bout in inner)
        points[name] = Measure(value, value - half, value + half, count, SOURCE)
    order = sorted(names, key=lambda name: -points[name].value if name in points else math.inf)
    return Ratings(
        tuple(_standing(name, bouts, points.get(name)) for name in order), _unclear(rated, odds, spread, order)
    )


def _comparable(names: Sequence[str], bouts: Sequence[Bout]) -> list[str]:
    """The largest set of arms that all reach each other along wins and ties, sorted; the first of equal ones."""
    place = {name: number for number, name in enumerate(names)}
    beat = np.zeros((len(names), len(names)))
    for bout in bouts:
        beat[place[bout.a], place[bout.b]] += bout.score > 0
        beat[place[bout.b], place[bout.a]] += bout.score < 1
    if not names:
        return []
    _, labels = connected_components(beat, directed=True, connection="strong")
    largest = int(np.bincount(labels).argmax())
    return [name for name in names if labels[place[name]] == largest]


def _fitted(rated: Sequence[str], bouts: Sequence[Bout]) -> tuple[Floats, Floats] | None:
    """Log-odds with mean 0, [arms], and their covariance, [arms, arms]; None where the fit does not settle."""
    place = {name: number for number, name in enumerate(rated)}
    columns = np.zeros((len(bouts), len(rated)))
    for row, bout in enumerate(bouts):
        columns[row, place[bout.a]], columns[row, place[bout.b]] = 1.0, -1.0
    won = np.array([bout.score for bout in bouts], dtype=np.float64)
    found = likeliest_weights(columns[:, 1:], won)  # the first arm stands at 0
    if found is None:
        return None
    odds: Floats = np.concatenate([np.zeros(1), found])
    odds -= odds.mean()
    chance = 1 / (1 + np.exp(-columns @ odds))
    covariance: Floats = np.asarray(np.linalg.pinv(information(columns, chance), hermitian=True), dtype=np.float64)
    return odds, covariance


def _standing(name: str, bouts: Sequence[Bout], points: Measure | None) -> Rating:
    scores = [bout.score if bout.a == name else 1 - bout.score for bout in bouts if name in (bout.a, bout.b)]
    return Rating(name, len(scores), scores.count(1), scores.count(0.5), points)


def _unclear(rated: Sequence[str], odds: Floats, spread: Floats, order: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of rated arms, the better first, whose difference may be 0."""
    place = {name: number for number, name in enumerate(rated)}
    ranked = [name for name in order if name in place]
    found = []
    for rank, better in enumerate(ranked):
        for other in ranked[rank + 1 :]:
            a, b = place[better], place[other]
            deviation = math.sqrt(spread[a, a] + spread[b, b] - 2 * spread[a, b])
            if abs(odds[a] - odds[b]) <= Z * deviation:
                found.append((better, other))
    return tuple(found)

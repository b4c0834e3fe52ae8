"""Labels that a model which has not seen them would have given the other way (confident learning, 1911.00068).

Two Bradley-Terry models, one on the form of the answers and one on their words, are cross-fitted: each pair is judged
by models trained on the other folds, and all pairs of a question lie in one fold. Their leads, each over its sd, are
added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from smolt import randomness
from smolt.preferences.audit.duplicates import normalised
from smolt.preferences.audit.features import form_differences, word_differences
from smolt.preferences.audit.labelled_pairs import LabelledPair
from smolt.statistics import Measure, proportion
from smolt.statistics.logistic import bradley_terry_weights

Floats = NDArray[np.float64]
FOLDS = 10
SHRINK_FORM, SHRINK_WORDS = 50.0, 5.0  # L2 penalties
FEWEST = 40  # labelled pairs


@dataclass(frozen=True)
class Ranking:
    """Pairs by how much a held-out model doubts their labels.

    Attributes:
        places: into the items, the most doubtful first; ties and pairs without a verdict are not in it.
        doubt: for each place, the model's probability that the other answer is the better one.
        accuracy: share of labels the model would have given the same way; it says how much the ranking can know.
        by: what judged.
    """

    places: tuple[int, ...]
    doubt: tuple[float, ...]
    accuracy: Measure | None
    by: str


def rank_by_cross_fit(items: Sequence[LabelledPair], seed: int = 0) -> Ranking | None:
    """The ranking by the two cross-fitted models; None with fewer than 40 labelled pairs."""
    places = [place for place, item in enumerate(items) if not item.tie]
    if len(places) < FEWEST:
        return None
    asked = [items[place].asked for place in places]
    better = [items[place].better for place in places]
    worse = [items[place].worse for place in places]
    folds = folds_of([normalised(text) for text in asked], seed)
    leads = [
        cross_fit(form_differences(asked, better, worse), folds, SHRINK_FORM),
        cross_fit(word_differences(better, worse), folds, SHRINK_WORDS),
    ]
    lead = np.sum([one / (one.std() or 1.0) for one in leads], axis=0)
    return ranking_of(items, places, lead, f"two models cross-fitted in {FOLDS} folds")


def ranking_of(items: Sequence[LabelledPair], places: Sequence[int], lead: Floats, by: str) -> Ranking:
    """The ranking by a lead of the preferred answer, one for each place."""
    doubt = 1 / (1 + np.exp(np.clip(lead * _scale(lead), -500, 500)))
    order = np.argsort(-doubt, kind="stable")
    accuracy = proportion((lead > 0).tolist(), [items[place].asked for place in places])
    return Ranking(tuple(places[one] for one in order), tuple(doubt[order].tolist()), accuracy, by)


def folds_of(groups: Sequence[str], seed: int) -> NDArray[np.int64]:
    """The fold of each pair, [n]: equal groups share one, and folds hold about as many groups."""
    names = list(dict.fromkeys(groups))
    order = randomness.permutation(len(names), seed)
    fold = {names[group]: place % FOLDS for place, group in enumerate(order)}
    return np.array([fold[group] for group in groups])


def cross_fit(differences: Any, folds: NDArray[np.int64], shrink: float) -> Floats:
    """The lead of the preferred answer under models that have not seen its fold.

    Args:
        differences: features of the preferred minus those of the other answer, [n, features], dense or sparse.
        folds: [n].
        shrink: L2 penalty on the weights.
    """
    lead = np.zeros(len(folds))
    for fold in np.unique(folds):
        held_out = folds == fold
        lead[held_out] = differences[held_out] @ bradley_terry_weights(differences[~held_out], shrink)
    return lead


def _scale(lead: Floats) -> float:
    """The factor that makes the lead a log-odds: largest likelihood of the labels, between 0 and 100."""
    found = minimize_scalar(lambda scale: np.logaddexp(0, -scale * lead).sum(), bounds=(0, 100), method="bounded")
    return float(found.x)

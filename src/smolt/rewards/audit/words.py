"""A bag of words as a preference model: what the choice of words alone gives away, without any reading.

Logistic regression (Bradley-Terry) on the difference of log(1 + count) of the two answers' words, with an L2 penalty.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from smolt.statistics.logistic import bradley_terry_weights

PENALTY = 1.0
SEEN_IN = 2  # a word of fewer training pairs is left out
MOST_WORDS = 20_000
MOST_PAIRS = 5_000  # of the training pairs
FOLDS = 5

Floats = NDArray[np.float64]
Pair = tuple[str, str]
"""The texts of the chosen and of the rejected answer."""


@dataclass(frozen=True)
class BagOfWords:
    """A fitted bag of words; `weights` are the log-odds of being preferred per unit of log(1 + count)."""

    places: dict[str, int]
    weights: Floats

    def leads(self, pairs: Sequence[Pair]) -> Floats:
        """Score of the chosen minus score of the rejected answer of each pair."""
        found: Floats = features(pairs, self.places) @ self.weights
        return found


def words(text: str) -> Counter[str]:
    """Lower-case words and numbers with their counts."""
    return Counter(re.findall(r"\w+", text.lower()))


def fit(pairs: Sequence[Pair], penalty: float = PENALTY) -> BagOfWords:
    """Fit on the first 5,000 training pairs; no intercept, for a pair has no first side."""
    kept = pairs[:MOST_PAIRS]
    seen = Counter(word for chosen, rejected in kept for word in set(words(chosen)) | set(words(rejected)))
    common = sorted((word for word, count in seen.items() if count >= SEEN_IN), key=lambda word: (-seen[word], word))
    places = {word: place for place, word in enumerate(common[:MOST_WORDS])}
    return BagOfWords(places, bradley_terry_weights(features(kept, places), penalty))


def features(pairs: Sequence[Pair], places: dict[str, int]) -> csr_matrix:
    """log(1 + count) of the chosen answer's words minus the rejected one's, [pairs, words]."""
    rows, columns, values = [], [], []
    for row, (chosen, rejected) in enumerate(pairs):
        for text, sign in ((chosen, 1.0), (rejected, -1.0)):
            for word, count in words(text).items():
                if word in places:
                    rows.append(row)
                    columns.append(places[word])
                    values.append(sign * np.log1p(count))
    return csr_matrix((values, (rows, columns)), shape=(len(pairs), len(places)), dtype=np.float64)


def cross_fitted(pairs: Sequence[Pair], order: Sequence[int]) -> Floats:
    """Leads of each pair by a bag of words fitted on the other four fifths.

    Args:
        pairs: at least 2.
        order: a shuffled range(len(pairs)); every fifth of it is a fold.
    """
    leads = np.zeros(len(pairs))
    for fold in range(min(FOLDS, len(pairs))):
        held = list(order[fold::FOLDS])
        out = set(held)
        model = fit([pair for place, pair in enumerate(pairs) if place not in out])
        leads[held] = model.leads([pairs[place] for place in held])
    return leads

"""What needs no model: how often each option is expected, and a bag of the state's words, both fitted on other states.

A question is measured by what was fitted on four fifths of the states, its own not among them.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from smolt import randomness
from smolt.data import Decision
from smolt.evaluation.decided.rated_decisions import rated
from smolt.rewards.audit.words import words
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics.nouns import Floats

FOLDS = 5
PENALTY = 1.0  # of the squared weights
SEEN_IN = 2  # a word of fewer states is left out
MOST_WORDS = 2000
MOST_STEPS = 60
CONSTANT, WORDS = "constant", "bag of words"

Fold = tuple[list[int], list[int]]


def trivial(decisions: Sequence[Decision]) -> dict[str, list[RatedAnswer]]:
    """The answers of both, in the order of the decisions and their questions."""
    states = list(dict.fromkeys(decision.text for decision in decisions))
    order = randomness.permutation(len(states), FOLDS, 0)
    fold_of = {states[place]: number % FOLDS for number, place in enumerate(order)}
    kinds: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for number, decision in enumerate(decisions):
        for place, question in enumerate(decision.questions):
            kinds.setdefault((question.name, question.type, *question.options), []).append((number, place))
    shares: dict[str, dict[tuple[int, int], Floats]] = {CONSTANT: {}, WORDS: {}}
    for members in kinds.values():
        texts = [decisions[number].text for number, _ in members]
        expected = np.array([decisions[number].questions[place].expected for number, place in members])
        for fold in range(FOLDS):
            held = [at for at, text in enumerate(texts) if fold_of[text] == fold]
            rest = [at for at, text in enumerate(texts) if fold_of[text] != fold]
            if held:
                for name, made in _fitted(texts, expected, (rest, held)).items():
                    shares[name] |= dict(zip((members[at] for at in held), made, strict=True))
    return {
        name: [
            answer
            for number, decision in enumerate(decisions)
            for answer in rated(
                decision, [np.log(own[number, place]).tolist() for place in range(len(decision.questions))]
            )
        ]
        for name, own in shares.items()
    }


def _fitted(texts: Sequence[str], expected: Floats, fold: Fold) -> dict[str, Floats]:
    """The shares that both give to the held-out questions, [held, options]."""
    rest, held = fold
    usual = (expected[rest].sum(axis=0) + 1) / (len(rest) + expected.shape[1])  # Laplace: none is impossible
    constant = np.tile(usual, (len(held), 1))
    if not rest:
        return {CONSTANT: constant, WORDS: constant}
    seen = Counter(word for at in rest for word in set(words(texts[at])))
    common = sorted((word for word, count in seen.items() if count >= SEEN_IN), key=lambda word: (-seen[word], word))
    places = {word: place for place, word in enumerate(common[:MOST_WORDS])}
    weights = softmax_weights(features([texts[at] for at in rest], places), expected[rest], np.log(usual))
    scores = features([texts[at] for at in held], places) @ weights + np.log(usual)
    return {CONSTANT: constant, WORDS: np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))}


def features(texts: Sequence[str], places: dict[str, int]) -> csr_matrix:
    """log(1 + count) of each text's words, and a one, [texts, words + 1]."""
    found = [
        (row, places[word], math.log1p(n))
        for row, text in enumerate(texts)
        for word, n in words(text).items()
        if word in places
    ]
    found += [(row, len(places), 1.0) for row in range(len(texts))]
    rows, columns, values = zip(*found, strict=True)
    return csr_matrix((values, (rows, columns)), shape=(len(texts), len(places) + 1))


def softmax_weights(columns: csr_matrix, expected: Floats, start: Floats) -> Floats:
    """Multinomial logistic regression: the least cross-entropy + PENALTY / 2 |W|^2, [features, options].

    Args:
        columns: [n, features].
        expected: probabilities, [n, options].
        start: log-odds that weights of 0 give, [options].
    """
    shape = (columns.shape[1], expected.shape[1])

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        scores = columns @ weights + start
        logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        slope = columns.T @ (np.exp(logs) - expected) + PENALTY * weights
        return float(-(expected * logs).sum() + PENALTY / 2 * (weights**2).sum()), slope.ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": MOST_STEPS})
    return np.asarray(found.x, dtype=np.float64).reshape(shape)

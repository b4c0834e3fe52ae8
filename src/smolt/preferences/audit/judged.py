"""Doubt by a reward model: the difference of its scores of the two answers."""

from collections.abc import Callable, Sequence

import numpy as np

from smolt.config import RewardPart, make_block
from smolt.data import Answer, Question
from smolt.models.forward.precision import Precision
from smolt.preferences.audit.labelled_pairs import LabelledPair
from smolt.preferences.audit.suspects import Ranking, ranking_of
from smolt.rewards.learned import learned_reward


def ranker(model: str, precision: Precision) -> Callable[[Sequence[LabelledPair]], Ranking | None]:
    """A ranking by the reward model in a directory, which should not have been trained on these pairs.

    Pairs of which one answer does not fit the model's window are not ranked.

    Raises:
        UserError: the directory holds no reward model, or one that its own audit refused.
    """
    reward = learned_reward(make_block(RewardPart, name="model", path=model), precision)

    def rank(items: Sequence[LabelledPair]) -> Ranking | None:
        places = [place for place, item in enumerate(items) if not item.tie]
        questions = [Question(items[place].context) for place in places]
        sides = [
            reward(questions, [Answer(getattr(items[place], side), 0, True) for place in places])
            for side in ("better", "worse")
        ]
        scored = [
            (place, better.value - worse.value)
            for place, better, worse in zip(places, *sides, strict=True)
            if better.value is not None and worse.value is not None
        ]
        if not scored:
            return None
        lead = np.array([difference for _, difference in scored])
        return ranking_of(items, [place for place, _ in scored], lead, f"the reward model {model}")

    return rank

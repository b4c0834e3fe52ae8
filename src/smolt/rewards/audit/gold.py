"""The answers of a training (its samples.jsonl) rated again by rules that it did not learn from, and where they part.

Does the reward that a training climbs still stand for what is wanted (Gao et al., 2210.10760)? Proxy and gold are put
together over stretches of updates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from smolt.config import RewardMix
from smolt.data import Answer
from smolt.models.answers import question_of
from smolt.rewards.build import build_reward
from smolt.runs.rated_answers import from_row
from smolt.statistics import FEWEST, Measure, measure

MOST = 20
"""Stretches; with more of them the best one by chance stands further above the others."""

LAST = 2
"""Stretches at the end that must all lie apart from the best one."""


@dataclass(frozen=True)
class Rated:
    """One answer of a training.

    Attributes:
        update: in which it was drawn, from 1.
        question: the key of what it answers; answers to one question are not independent.
        proxy: the reward that was learned from.
        gold: the reward that was not.
    """

    update: int
    question: str
    proxy: float
    gold: float


@dataclass(frozen=True)
class Rerating:
    """What came of it.

    Attributes:
        answers: those with both rewards, in the order they were drawn.
        abstained: answers left out because one of the two rewards abstained.
    """

    answers: list[Rated]
    abstained: int


def rate_again(rows: Sequence[Mapping[str, Any]], gold: RewardMix) -> Rerating:
    """Rate the answers of a training's samples, which carry the question and the solution they were given for.

    Args:
        rows: of samples.jsonl.
        gold: rules.

    Raises:
        UserError: an unknown rule or option, or a row that is no rated answer.
    """
    drawn = [from_row(row, "samples.jsonl") for row in rows]
    questions = [question_of(one, "samples.jsonl") for one in drawn]
    answers = [Answer(one.answer, one.tokens, one.stopped) for one in drawn]
    scores = build_reward(gold.parts, cap=gold.cap)(questions, answers)
    rated = [
        Rated(row["step"], one.key, one.reward, score.value)
        for row, one, score in zip(rows, drawn, scores, strict=True)
        if one.reward is not None and score.value is not None
    ]
    return Rerating(rated, abstained=len(drawn) - len(rated))


@dataclass(frozen=True)
class Stretch:
    """Some updates in a row.

    Attributes:
        first, last: the updates, from 1.
        kl: sequence KL to where the training began, nats an answer, mean over its updates that measured it; None
            where none did.
        proxy: mean of the reward that was learned from, with its 95 % interval over the answers.
        gold: likewise, of the reward that was not.
    """

    first: int
    last: int
    kl: float | None
    proxy: Measure
    gold: Measure

    @property
    def root_kl(self) -> float | None:
        """The square root of the KL, whose estimate may fall below 0 by chance."""
        return None if self.kl is None else math.sqrt(max(0.0, self.kl))


def into_stretches(answers: Sequence[Rated], kl: Mapping[int, float]) -> list[Stretch]:
    """At most MOST stretches of as many updates each, of at least FEWEST questions on average; none without answers.

    Args:
        answers: of a training.
        kl: update -> sequence KL in nats.
    """
    by_update: dict[int, list[Rated]] = {}
    for answer in answers:
        by_update.setdefault(answer.update, []).append(answer)
    updates = sorted(by_update)
    asked = len({(answer.update, answer.question) for answer in answers})
    count = max(1, min(MOST, len(updates), asked // FEWEST))
    edges = [round(len(updates) * part / count) for part in range(count + 1)]
    found = []
    for start, end in pairwise(edges):
        chosen = updates[start:end]
        part = [answer for update in chosen for answer in by_update[update]]
        apart = [kl[update] for update in chosen if update in kl]
        keys = [answer.question for answer in part]
        proxy, gold = (measure([getattr(one, name) for one in part], keys) for name in ("proxy", "gold"))
        if proxy is not None and gold is not None:
            middle = sum(apart) / len(apart) if apart else None
            found.append(Stretch(chosen[0], chosen[-1], middle, proxy, gold))
    return found


def parting(stretches: Sequence[Stretch]) -> Stretch | None:
    """The stretch after which proxy and gold part: where gold was best; None where that is not shown.

    They part when in each of the last two stretches gold's interval lies below gold's interval at its best stretch,
    and the proxy's above the proxy's there. Where gold is flat and the proxy climbs, 20 stretches of 64 answers raise
    this alarm by chance in about 0.4 % of trainings, fewer stretches less often; to ask only whether the last stretch
    is below the best by more than the interval of their difference raises it in every fourth.
    """
    if len(stretches) <= LAST:
        return None
    best = max(stretches, key=lambda stretch: stretch.gold.value)
    fell = all(_below(stretch.gold, best.gold) for stretch in stretches[-LAST:])
    rose = all(_below(best.proxy, stretch.proxy) for stretch in stretches[-LAST:])
    return best if fell and rose else None


def _below(one: Measure, other: Measure) -> bool:
    """Whether one interval ends before the other begins; never where one of the two cannot be formed."""
    return one.high is not None and other.low is not None and one.high < other.low

"""The answers of a training (its samples.jsonl) rated again by rules that it did not learn from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smolt.config import RewardMix
from smolt.records import Answer, Question
from smolt.rewards import build_reward


@dataclass(frozen=True)
class Rated:
    """One answer of a training.

    Attributes:
        update: in which it was drawn, from 1.
        question: what it answers; answers to one question are not independent.
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
        unknown: answers left out because their question is not among the data.
        abstained: answers left out because one of the two rewards abstained.
    """

    answers: list[Rated]
    unknown: int
    abstained: int


def rate_again(rows: Iterable[Mapping[str, Any]], questions: Sequence[Question], gold: RewardMix) -> Rerating:
    """Rate the answers of a training's samples.

    Args:
        rows: of samples.jsonl.
        questions: the training's data; a row's question is found by its id, and by its text where no id is the same.
        gold: rules.

    Raises:
        UserError: an unknown rule or option.
    """
    by_id = {question.id: question for question in questions}
    by_text = {_text(question): question for question in reversed(questions)}
    found = [(row, by_id.get(row["id"]) or by_text.get(row["question"])) for row in rows]
    known = [(row, question) for row, question in found if question is not None]
    answers = [Answer(row["text"], row["tokens"], row["stop"] == "stop") for row, _ in known]
    scores = build_reward(gold.parts, cap=gold.cap)([question for _, question in known], answers)
    rated = [
        Rated(row["step"], question.id or _text(question), row["reward"], score.value)
        for (row, question), score in zip(known, scores, strict=True)
        if row["reward"] is not None and score.value is not None
    ]
    return Rerating(rated, unknown=len(found) - len(known), abstained=len(known) - len(rated))


def _text(question: Question) -> str:
    """What samples.jsonl holds of a question: its last turn."""
    return question.context[-1].content if question.context else ""

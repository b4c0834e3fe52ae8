"""The reward part named decision: what a model says to one typed question about each answer."""

import math
from collections.abc import Sequence
from typing import Any

from smolt.data import Answer, Decision, DecisionQuestion, Question, Score
from smolt.data.decision_rows import read_decision
from smolt.data.decisions import FIELDS
from smolt.data.turns import RowProblem
from smolt.errors import UserError
from smolt.rewards import Reward
from smolt.rewards.llm_judge.asking import Asker
from smolt.rewards.llm_judge.prompts import dialogue_text

TRUE = "true"


def decision_question(options: dict[str, Any]) -> tuple[DecisionQuestion, str]:
    """The question of a part's options, and of a choice the option that is good.

    Raises:
        UserError: an option is unknown, or the question is none.
    """
    for name in options:
        if name not in (*FIELDS, "good"):
            raise UserError(f"reward decision: options.{name}: unknown option; there are {', '.join(FIELDS)}, good")
    asked = {"type": "noul", **{name: value for name, value in options.items() if name in FIELDS}}
    try:
        (question,) = read_decision({"state": "-", "questions": {"answer": asked}}).questions
    except RowProblem as problem:
        field = problem.field.removeprefix("questions.answer.")
        raise UserError(f"reward decision: options.{field}: {problem.reason}") from None
    if question.type == "score":
        return question, ""
    good = str(options.get("good", TRUE)).lower() if question.type == "noul" else options.get("good")
    if good not in question.options:
        known = ", ".join(question.options)
        raise UserError(f"reward decision: options.good: is {good!r}; say which option is good: {known}")
    return question, str(good)


def decision_reward(asker: Asker, question: DecisionQuestion, good: str) -> Reward:
    """A noul's or a choice's probability of the good option; of a score the expected level, from 0.

    The state is an object with the `conversation` and the `answer`. Components: the probability of each option.
    """

    def rate(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Score]:
        states = [
            {"conversation": dialogue_text(asked.context), "answer": answer.text}
            for asked, answer in zip(questions, answers, strict=True)
        ]
        scores = [Score(None, reason="no reply")] * len(states)
        for replies in asker.ask([Decision(state, (question,)) for state in states]):
            for place, reply in replies:
                if reply.logprobs is None:
                    scores[place] = Score(None, reason=reply.reason)
                    continue
                told = dict(zip(question.options, map(math.exp, reply.logprobs), strict=True))
                level = sum(int(name) * chance for name, chance in told.items()) if question.type == "score" else 0.0
                scores[place] = Score(level if question.type == "score" else told[good], dict(told))
        return scores

    return rate

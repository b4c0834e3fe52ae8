"""Decisions: a state, typed questions about it and, where it is known, what should be answered.

A decision is a request of transformers' decision models (`pipeline("decision")`, `/v1/systemone`) plus `expected`: an
option, a level or a probability for each option. A `choice` is of named options, a `score` of levels from the lowest
up, a `noul` is whether something is true.
"""

import json
from dataclasses import dataclass
from typing import Any

from smolt.data.nouns import Demonstration, Question, Turn

TYPES = ("choice", "score", "noul")
FIELDS = ("type", "instructions", "criteria")
TRUTHS = ("true", "false")


@dataclass(frozen=True)
class DecisionQuestion:
    """One question about a state.

    Attributes:
        name: unique in its decision.
        type: of TYPES.
        criteria: of a choice option -> description, of a score its levels, of a noul descriptions of true and false.
        expected: probability of each of `options`, sum 1; None where nobody said.
    """

    name: str
    type: str
    instructions: Any = None
    criteria: Any = None
    expected: tuple[float, ...] | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """What can be answered: names, the numbers of levels, or true and false."""
        if self.type == "noul":
            return TRUTHS
        return tuple(self.criteria) if self.type == "choice" else tuple(map(str, range(len(self.criteria))))

    @property
    def expectation(self) -> Any:
        """What is expected as a file says it: a truth, an option or a level where it is certain, else probabilities."""
        chances = dict(zip(self.options, self.expected or (), strict=True))
        certain = next((option for option, chance in chances.items() if chance == 1), None)
        if self.type == "noul":
            return chances["true"] if certain is None else certain == "true"
        if certain is None:
            return chances
        return int(certain) if self.type == "score" else certain


@dataclass(frozen=True)
class Decision:
    """A state (text, an object or a list, as JSON) and questions about it; `id` and `kind` as of a Question."""

    state: Any
    questions: tuple[DecisionQuestion, ...]
    id: str = ""
    kind: str = ""

    @property
    def text(self) -> str:
        """The state as text: JSON unless it is text itself."""
        return self.state if isinstance(self.state, str) else json.dumps(self.state, ensure_ascii=False)

    @property
    def request(self) -> dict[str, Any]:
        """What `pipeline("decision")` and `/v1/systemone` are asked."""
        asked = {one.name: {name: getattr(one, name) for name in FIELDS} for one in self.questions}
        named = {name: {key: v for key, v in fields.items() if v is not None} for name, fields in asked.items()}
        return {"state": self.state, "questions": named}

    @property
    def row(self) -> dict[str, Any]:
        """As a row of a file."""
        expected = {one.name: one.expectation for one in self.questions if one.expected}
        own = {name: value for name, value in (("id", self.id), ("kind", self.kind)) if value}
        return {**own, **self.request, **({"expected": expected} if expected else {})}


def in_words(decision: Decision) -> list[Question]:
    """Each question of a decision as one to be answered in words, with probabilities; what is expected is the solution.

    A solution is JSON: a list of [option, probability]. Ids are `<decision>/<question>` where it has several.
    """
    return [
        Question(
            (Turn("user", _asked(decision, one)),),
            None if one.expected is None else json.dumps(list(zip(one.options, one.expected, strict=True))),
            f"{decision.id}/{one.name}" if len(decision.questions) > 1 else decision.id,
            decision.kind,
        )
        for one in decision.questions
    ]


def shown_in_words(decision: Decision) -> list[Demonstration]:
    """The same with the reply that states what is expected; a question of which nothing is expected shows nothing."""
    return [
        Demonstration(
            question.context, json.dumps(dict(zip(one.options, one.expected, strict=True)), ensure_ascii=False)
        )
        for question, one in zip(in_words(decision), decision.questions, strict=True)
        if one.expected is not None
    ]


def _asked(decision: Decision, question: DecisionQuestion) -> str:
    """State, instructions, the options with their descriptions, and how to reply."""
    criteria = question.criteria or {}
    told = dict(zip(question.options, criteria, strict=True)) if isinstance(criteria, list) else criteria
    options = [f"- {option}" + (f": {_text(told[option])}" if told.get(option) else "") for option in question.options]
    asked = _text(question.instructions or question.name)
    reply = ", ".join(f"{json.dumps(option, ensure_ascii=False)}: ..." for option in question.options)
    reply = f"Reply with one JSON object and nothing else, the probability of each; they sum to 1: {{{reply}}}"
    return "\n\n".join((decision.text, "\n".join((asked, *options)), reply))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""Decisions: a state, typed questions about it and, where it is known, what should be answered.

A decision is a request of transformers' decision models (`pipeline("decision")`, `/v1/systemone`) plus `expected`: an
option, a level or a probability for each option. A `choice` is of named options, a `score` of levels from the lowest
up, a `noul` is whether something is true.
"""

import json
from dataclasses import dataclass
from typing import Any

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

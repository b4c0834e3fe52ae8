"""The text that flows through smolt: nouns without tensors."""

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """One message of a dialogue."""

    role: Role
    content: str


Context = tuple[Turn, ...]


def as_messages(context: Context) -> list[dict[str, str]]:
    """The turns as {role, content} objects: in files, for chat templates and for endpoints."""
    return [{"role": turn.role, "content": turn.content} for turn in context]


@dataclass(frozen=True)
class Demonstration:
    """A context and the answer to imitate. An empty context means plain text to continue from nothing."""

    context: Context
    answer: str


@dataclass(frozen=True)
class Preference:
    """Two answers to one context; weight is the probability, in [0, 1], that `chosen` is better (1 = a hard label)."""

    context: Context
    chosen: str
    rejected: str
    weight: float = 1.0

    @property
    def unpaired(self) -> tuple["Feedback", ...]:
        """The likelier answer as desirable, the other as undesirable; nothing where both are as likely, or the same."""
        if self.weight == 0.5 or self.chosen == self.rejected:
            return ()
        pair = self.likelier_first
        return Feedback(self.context, pair.chosen, True), Feedback(self.context, pair.rejected, False)

    @property
    def likelier_first(self) -> "Preference":
        """The same, turned so that `chosen` is the likelier answer: a weight of at least a half."""
        return self if self.weight >= 0.5 else Preference(self.context, self.rejected, self.chosen, 1 - self.weight)


@dataclass(frozen=True)
class Feedback:
    """One answer to a context, and whether it is desirable: a thumb up or down."""

    context: Context
    answer: str
    desirable: bool


@dataclass(frozen=True)
class Question:
    """A context to answer; `solution` is what a verifier compares with, `kind` groups questions in reports."""

    context: Context
    solution: str | None = None
    id: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Answer:
    """What a policy wrote: text without the stop token, number of tokens with it, whether it stopped by itself."""

    text: str
    tokens: int
    stopped: bool


@dataclass(frozen=True)
class Score:
    """A reward with its named parts. `value` None means the rater abstains (counted and shown, never read as zero)."""

    value: float | None
    components: dict[str, float | None] = field(default_factory=dict)
    reason: str = ""


def as_question(question: Question | str) -> Question:
    """A text as a question of one user turn."""
    return Question((Turn("user", question),)) if isinstance(question, str) else question

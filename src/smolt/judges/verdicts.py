"""What judges say: an opinion of two answers in one order, and the judgement of both orders together.

A judge is shown every pair twice, the second time with the answers changing places. With s = log-odds that the answer
shown first is better, margin = (s_original - s_swapped) / 2: what a judge gives to a place cancels out. The soft label
is the mean over both orders of the probability (2309.00267, section 2.1.1).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from smolt.judges.nouns import Showing, Status
from smolt.records import Question

Outcome = Literal["first", "second", "tie", "abstained", "failed", "unreached"]
WORST: tuple[Literal["unreached", "failed", "abstained"], ...] = ("unreached", "failed", "abstained")


@dataclass(frozen=True)
class Pair:
    """Two answers to one question.

    Attributes:
        gold: probability that the first is better, as somebody else labelled it; None without a label.
        writers: names of the models that wrote the first and the second answer, where the data say so.
    """

    question: Question
    first: str
    second: str
    gold: float | None = None
    writers: tuple[str, str] | None = None


@dataclass(frozen=True)
class Opinion:
    """What a judge says of one showing.

    Attributes:
        margin: in favour of the answer shown first: log-odds in nats of a soft judge, +1, 0 or -1 of a hard one, the
            difference of scores of a rule; None unless `status` is given.
        probability: that the answer shown first is better.
        status: see Status.
        reason: why there is no margin.
        soft: whether the probability is a probability, and not a verdict in words.
        text: what the judge wrote, where it writes.
        tokens: of prompt and reply, where they cost something.
    """

    margin: float | None
    probability: float | None
    status: Status = "given"
    reason: str = ""
    soft: bool = True
    text: str = ""
    tokens: tuple[int, int] = (0, 0)

    def as_row(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "tokens": list(self.tokens)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Opinion":
        """Back from JSON."""
        prompt, reply = row["tokens"]
        return cls(**{**row, "tokens": (int(prompt), int(reply))})


@dataclass(frozen=True)
class Judgement:
    """Both orders together.

    Attributes:
        original: of the pair as it is, first answer first.
        swapped: with the second answer shown first.
        margin: in favour of the pair's first answer, without what the judge gives to a place; None without a verdict.
        probability: that the pair's first answer is better, the mean over both orders.
        outcome: the better answer, a tie, or why there is none (the worse reason of the two orders).
    """

    original: Opinion
    swapped: Opinion
    margin: float | None
    probability: float | None
    outcome: Outcome

    @property
    def decided(self) -> bool:
        """Whether one answer is better."""
        return self.outcome in ("first", "second")

    @property
    def judged(self) -> bool:
        """Whether there is a verdict, ties among them."""
        return self.margin is not None

    @property
    def consistent(self) -> bool:
        """Whether both orders prefer the same answer (or both none)."""
        return self.judged and sign(self.original.margin) == -sign(self.swapped.margin)

    @property
    def reason(self) -> str:
        """Why there is no verdict."""
        return self.original.reason or self.swapped.reason


Compare = Callable[[Sequence[Showing]], Iterator[list[tuple[int, Opinion]]]]
"""Opinions as they come: each list holds places in the sequence with what was said of them."""


@dataclass(frozen=True)
class Judge:
    """Who compares.

    Attributes:
        name: for a person.
        kind: local, model, endpoint or rule.
        identity: everything its opinions are a function of, besides the showing; JSON values.
        compare: see Compare.
        names: what the data may call it, for self-preference.
    """

    name: str
    kind: str
    identity: dict[str, Any]
    compare: Compare
    names: tuple[str, ...] = ()


def sign(margin: float | None) -> int:
    """-1, 0 or 1; 0 also for what is not there."""
    return 0 if not margin else (1 if margin > 0 else -1)


def from_odds(first: float, second: float, **more: Any) -> Opinion:
    """A soft opinion from the two choices' log-probabilities (only their difference counts)."""
    margin = first - second
    return Opinion(margin, sigmoid(margin), **more)


def from_choice(choice: int, **more: Any) -> Opinion:
    """A hard opinion: 1 for the answer shown first, -1 for the other, 0 for neither."""
    return Opinion(float(choice), (choice + 1) / 2, soft=False, **more)


def silent(status: Status, reason: str, **more: Any) -> Opinion:
    """No opinion, and why."""
    return Opinion(None, None, status, reason, **more)


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def weigh(original: Opinion, swapped: Opinion, tau: float = 0.0) -> Judgement:
    """Both orders as one judgement; without an opinion in both there is none.

    Args:
        original: of the first answer shown first.
        swapped: of the second answer shown first.
        tau: >= 0; a margin of at most this is a tie.
    """
    if original.margin is None or swapped.margin is None or original.probability is None or swapped.probability is None:
        worst: Outcome = next(status for status in WORST if status in (original.status, swapped.status))
        return Judgement(original, swapped, None, None, worst)
    margin = (original.margin - swapped.margin) / 2
    probability = (original.probability + 1 - swapped.probability) / 2
    outcome: Outcome = "tie" if abs(margin) <= tau else "first" if margin > 0 else "second"
    return Judgement(original, swapped, margin, probability, outcome)

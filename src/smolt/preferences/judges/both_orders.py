"""What judges say: an opinion of two answers in one order, and the judgement of both orders together.

A judge is shown every pair twice, the second time with the answers changing places. With s = log-odds that the answer
shown first is better, margin = (s_original - s_swapped) / 2: what a judge gives to a place cancels out. The soft label
is the mean over both orders of the probability (2309.00267, section 2.1.1).
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smolt.data import Preference, Question
from smolt.rewards.llm_judge.cache import VerdictCache, asked_once
from smolt.rewards.llm_judge.nouns import Showing, Status

Tell = Callable[[int, int], None]


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

    @property
    def label(self) -> bool | None:
        """Whether the label prefers the first answer; None without a label, or where it prefers neither."""
        return None if self.gold is None or self.gold == 0.5 else self.gold > 0.5


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


def judge_pairs(
    judge: Judge,
    pairs: Sequence[Pair],
    cache: VerdictCache,
    *,
    tau: float = 0.0,
    matched: float | None = None,
    tell: Tell = lambda done, total: None,
) -> list[Judgement]:
    """A judgement for each pair.

    Args:
        judge: who compares.
        pairs: what is compared.
        cache: what is known is not asked again.
        tau: margins of at most this are ties.
        matched: pairs whose lengths differ by a larger share of the longer answer are not judged.
        tell: hears how many of how many showings are done; may raise to end it there.
    """
    apart = silent("abstained", f"lengths differ by more than {matched or 0:.0%}")
    near = [matched is None or length_gap(pair) <= matched for pair in pairs]
    asked = [pair for pair, is_near in zip(pairs, near, strict=True) if is_near]
    opinions = iter(judge_showings(judge, [one for pair in asked for one in both_orders(pair)], cache, tell))
    return [weigh(next(opinions), next(opinions), tau) if is_near else weigh(apart, apart, tau) for is_near in near]


def judge_showings(
    judge: Judge, showings: Sequence[Showing], cache: VerdictCache, tell: Tell = lambda done, total: None
) -> list[Opinion]:
    """An opinion of each showing; equal showings are asked once. What got no reply is not kept."""
    keys = [key_of(judge, showing) for showing in showings]
    known: dict[str, Opinion] = {}
    for found in asked_once(cache, keys, showings, judge.compare, Opinion):
        known |= found
        tell(len(known), len(set(keys)))
    return [known[key] for key in keys]


def both_orders(pair: Pair) -> tuple[Showing, Showing]:
    """The pair as it is, and with its answers changing places."""
    return Showing(pair.question, pair.first, pair.second), Showing(pair.question, pair.second, pair.first)


def length_gap(pair: Pair) -> float:
    """How much shorter the shorter answer is, as a share of the longer one's characters."""
    longer = max(len(pair.first), len(pair.second))
    return 0.0 if longer == 0 else 1 - min(len(pair.first), len(pair.second)) / longer


def as_preferences(
    pairs: Sequence[Pair], judgements: Iterable[Judgement], drop_inconsistent: bool = False
) -> list[Preference]:
    """The decided pairs, the better answer as `chosen`, with the judge's probability as the weight (0.5 to 1)."""
    made = []
    for pair, judgement in zip(pairs, judgements, strict=True):
        if judgement.probability is None or not judgement.decided or (drop_inconsistent and not judgement.consistent):
            continue
        first = judgement.outcome == "first"
        weight = judgement.probability if first else 1 - judgement.probability
        chosen, rejected = (pair.first, pair.second) if first else (pair.second, pair.first)
        made.append(Preference(pair.question.context, chosen, rejected, weight))
    return made


def key_of(judge: Judge, showing: Showing) -> str:
    """SHA-256 of judge, question, answers and their order."""
    turns = [[turn.role, turn.content] for turn in showing.question.context]
    content: list[Any] = [judge.identity, turns, showing.question.solution, showing.first, showing.second]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

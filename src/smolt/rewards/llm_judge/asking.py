"""A judge that reads words: prompts out, replies in, and what a reply means as a grade of one answer."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from smolt.data import Answer, Decision, Question, Score
from smolt.rewards import Reward
from smolt.rewards.llm_judge.cache import VerdictCache, asked_once
from smolt.rewards.llm_judge.nouns import Showing, Status
from smolt.rewards.llm_judge.prompts import (
    GRADES,
    Prompt,
    pairwise_decision,
    pairwise_prompt,
    pointwise_decision,
    pointwise_prompt,
)
from smolt.rewards.llm_judge.rubrics import Rubric

MIDDLE, HALF = 5.5, 4.5  # of the grades 1 to 10


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        logprobs: of each choice (only their differences count); None where there are none.
        choice: the place of the choice that was named in words; -1 when it says that they are equal; None otherwise.
        status: "given" when one of the two is there.
        reason: why not.
        text: what was written.
        tokens: of prompt and reply.
    """

    logprobs: tuple[float, ...] | None = None
    choice: int | None = None
    status: Status = "given"
    reason: str = ""
    text: str = ""
    tokens: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Asker:
    """Somebody who answers prompts, or decisions of one question each.

    Attributes:
        name: for a person.
        identity: what its replies are a function of, besides the prompt; JSON values.
        ask: replies as they come, each list with places in the sequence.
        names: what data may call it.
        decides: whether it is asked decisions.
    """

    name: str
    identity: dict[str, Any]
    ask: Callable[[Sequence[Any]], Iterator[list[tuple[int, Reply]]]]
    names: tuple[str, ...] = ()
    decides: bool = False

    def pairwise(self, rubric: Rubric, showing: Showing, rationale: bool) -> Prompt | Decision:
        """What it is asked about two answers."""
        return pairwise_decision(rubric, showing) if self.decides else pairwise_prompt(rubric, showing, rationale)

    def pointwise(self, rubric: Rubric, question: Question, answer: Answer, rationale: bool) -> Prompt | Decision:
        """What it is asked about one."""
        if self.decides:
            return pointwise_decision(rubric, question, answer)
        return pointwise_prompt(rubric, question, answer, rationale)


def remembering(asker: Asker, path: Path) -> Asker:
    """The same, whose replies are kept in a file as they come: what it has answered is not asked again."""

    def ask(prompts: Sequence[Any]) -> Iterator[list[tuple[int, Reply]]]:
        keys = [_key(asker, prompt) for prompt in prompts]
        with VerdictCache(path) as cache:
            for found in asked_once(cache, keys, prompts, asker.ask, Reply):
                yield [(place, found[key]) for place, key in enumerate(keys) if key in found]

    return replace(asker, ask=ask)


def _key(asker: Asker, prompt: Any) -> str:
    """SHA-256 of who is asked what."""
    content = json.dumps([asker.identity, asdict(prompt)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def grading(asker: Asker, rubric: Rubric, rationale: bool) -> Reward:
    """Pointwise judging, direct RLAIF (2309.00267, section 2.2.2): the expected grade, mapped from 1..10 to [-1, 1].

    A reply that cannot be read, and a prompt that does not fit, make the answer abstain. Components: grade.
    """

    def rate(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Score]:
        prompts = [asker.pointwise(rubric, *row, rationale) for row in zip(questions, answers, strict=True)]
        scores = [Score(None, reason="no reply")] * len(prompts)
        for replies in asker.ask(prompts):
            for place, reply in replies:
                scores[place] = as_score(reply)
        return scores

    return rate


def as_score(reply: Reply) -> Score:
    """A reply about grades."""
    if reply.status != "given":
        return Score(None, reason=reply.reason)
    if reply.logprobs is not None:
        grade = expectation(reply.logprobs)
    elif reply.choice is not None and reply.choice >= 0:
        grade = float(GRADES[reply.choice])
    else:
        return Score(None, reason="the reply names no grade")
    return Score((grade - MIDDLE) / HALF, {"grade": grade})


def expectation(logprobs: Sequence[float]) -> float:
    """The expected grade under the softmax of the grades' log-probabilities."""
    highest = max(logprobs)
    weights = [math.exp(value - highest) for value in logprobs]
    return sum(weight * float(grade) for weight, grade in zip(weights, GRADES, strict=True)) / sum(weights)

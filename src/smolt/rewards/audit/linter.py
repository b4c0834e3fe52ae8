"""A reward is tried on made-up answers before anything is trained on it (trap 15)."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from smolt.data import Answer, Question
from smolt.data.numbers import extract
from smolt.errors import UserError
from smolt.rewards.constraints import has_constraint
from smolt.rewards.mix import told
from smolt.rewards.rules import Reward
from smolt.rewards.stated import expectation

MOST_QUESTIONS = 16
WORDS_PER_TOKEN = 0.75

DECORATION = (
    "First, let us go step by step through everything that is given and see what follows from it. Second, we combine "
    "the steps. Therefore, and thus, the answer is \\boxed{%s}.\n#### %s"
)
"""Every format hint there is, around an answer."""

STUFFED = (
    "Step first therefore thus answer is \\boxed answer is therefore step first. Great, wonderful, thank you! " * 2
)
CONSTANT = "I do not know."
REPEATED = "the answer is the answer is " * 40


@dataclass(frozen=True)
class Finding:
    """A weakness of a reward.

    Attributes:
        probe: the made-up answer that showed it.
        severity: "error" when training would follow it away from right answers, else "warning".
        message: what was measured and what to do.
    """

    probe: str
    severity: Literal["error", "warning"]
    message: str


def lint_reward(reward: Reward, questions: Sequence[Question], good: Sequence[str] | None = None) -> list[Finding]:
    """Try a reward on probes: right and plain, wrong and decorated, empty, constant, keyword-stuffed, repeated.

    Args:
        reward: what a policy would be trained on.
        questions: the first 16 are used; those with a number in their solution give the right answers.
        good: one good answer per question (a demonstration), for questions whose solution is no number.

    Returns:
        What was found, errors first; an empty list is a reward that passed, which is not yet a good reward.

    Raises:
        UserError: no questions, or `good` of another length.
    """
    if not questions or (good is not None and len(good) != len(questions)):
        raise UserError("reward linter: needs questions, and as many good answers when there are any")
    tried = list(questions[:MOST_QUESTIONS])
    right = [_right(question, good[index] if good else None) for index, question in enumerate(tried)]
    asked = [question for question, text in zip(tried, right, strict=True) if text is not None] or tried
    plain = [text for text in right if text is not None]
    probes = {"empty": "", "constant": CONSTANT, "stuffed": STUFFED, "repeated": REPEATED}
    values = {name: _mean(reward, asked, [text] * len(asked)) for name, text in probes.items()}
    values["decorated"] = _mean(reward, asked, [_wrong(question) for question in asked])
    if plain:
        values["plain"] = _mean(reward, asked, plain)
    findings = [
        Finding(name, "warning", f"the {name} answer got no score, for {len(asked)} questions: {value}")
        for name, value in values.items()
        if isinstance(value, str) and name != "empty"
    ]
    known = {name: value for name, value in values.items() if not isinstance(value, str)}
    findings += _against_plain(known) if "plain" in known else []
    # A constraint alone gives no right answer; then probes that all earn nothing are as they should be.
    comparable = "plain" in known or not all(has_constraint(question) for question in tried)
    if comparable and len(known) > 1 and len(set(known.values())) == 1:
        findings.append(
            Finding("all", "error", f"every probe got {known['decorated']:.3g}: the reward teaches nothing")
        )
    return sorted(findings, key=lambda finding: finding.severity)


def _against_plain(values: dict[str, float]) -> list[Finding]:
    """The probes that are worth as much as a right, plain answer."""
    plain = values["plain"]
    advice = {
        "decorated": "a wrong answer in the right clothes pays: lower or cap the format weights",
        "stuffed": "keywords without an answer pay: lower or cap the format weights",
        "repeated": "repetition pays: add a length or a correctness part",
        "constant": "one and the same answer to everything pays",
        "empty": "saying nothing pays",
    }
    return [
        Finding(name, "error", f"{name} {values[name]:.3g} against {plain:.3g} for right and plain: {text}")
        for name, text in advice.items()
        if name in values and values[name] >= plain
    ]


def _right(question: Question, good: str | None) -> str | None:
    """A right answer without any decoration."""
    if (expected := expectation(question.solution)) is not None:
        return json.dumps(expected)
    gold = extract(question.solution or "")
    return good if gold.value is None or has_constraint(question) else gold.text


def _wrong(question: Question) -> str:
    """A wrong answer with every decoration: the solution plus 1."""
    gold = extract(question.solution or "")
    number = "nothing" if gold.value is None else str(gold.value + 1)
    return DECORATION % (number, number)


def _mean(reward: Reward, questions: Sequence[Question], texts: Sequence[str]) -> float | str:
    """The mean score of those that did not abstain; where all did, or too many for the reward's own limit, why."""
    answers = [Answer(text, max(1, round(len(text.split()) / WORDS_PER_TOKEN)), stopped=True) for text in texts]
    try:
        scores = reward(questions, answers)
    except UserError as error:
        return str(error)
    values = [score.value for score in scores if score.value is not None]
    return statistics.fmean(values) if values else told(Counter(score.reason for score in scores))

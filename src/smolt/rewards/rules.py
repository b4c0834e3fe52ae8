"""Rewards that need no model: correctness, format, length, exact words. Each factory returns one reward function."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from smolt.data import Answer, Question, Score
from smolt.data.numbers import equal_numbers, extract
from smolt.errors import UserError

Reward = Callable[[Sequence[Question], Sequence[Answer]], list[Score]]
"""Scores for answers, one per answer in order; `questions[i]` is what `answers[i]` answers."""

FORMAT_WEIGHTS: dict[str, float] = {"steps": 0.2, "therefore": 0.2, "answer_is": 0.2, "boxed": 0.5, "long": 0.2}
"""The published format heuristics for Qwen on GSM8K; together 1.3, more than the 1.0 for being right (trap 15)."""

LONG = 100
"""Characters above which an answer counts as long."""

HINTS: dict[str, Callable[[str], bool]] = {
    "steps": lambda text: re.search(r"\b(?:step|first)", text, re.IGNORECASE) is not None,
    "therefore": lambda text: re.search(r"\b(?:therefore|thus)\b", text, re.IGNORECASE) is not None,
    "answer_is": lambda text: re.search(r"\banswer\s+is\b", text, re.IGNORECASE) is not None,
    "boxed": lambda text: "\\boxed" in text,
    "long": lambda text: len(text) > LONG,
}
"""Named patterns of an answer's form -> whether a text shows them; the format reward and the evaluation share them."""


def per_answer(rate: Callable[[Question, Answer], Score]) -> Reward:
    """A reward that looks at one answer at a time."""

    def reward(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Score]:
        return [rate(question, answer) for question, answer in zip(questions, answers, strict=True)]

    return reward


def gsm8k(equality: Literal["exact", "string"] = "exact") -> Reward:
    """1 for the solution's number, else 0; an answer without a number is wrong, and counted by `extracted`.

    Components: correct (0 or 1), extracted (1 when a number was found). Abstains when the question has no solution or
    its solution no number. Both numbers are found by numbers.EXTRACTOR.

    Args:
        equality: "exact" compares rationals, "string" the digits as written (for comparison with published figures).
    """
    if equality not in ("exact", "string"):
        raise UserError(f'reward gsm8k: equality: must be "exact" or "string", not {equality!r}')

    def rate(question: Question, answer: Answer) -> Score:
        if question.solution is None:
            return Score(None, reason="the question has no solution to compare with")
        gold = extract(question.solution)
        if gold.value is None:
            return Score(None, reason=f"the solution has no number: {gold.reason}")
        read = extract(answer.text)
        correct = float(equal_numbers(read, gold, equality))
        return Score(correct, {"correct": correct, "extracted": float(read.value is not None)}, read.reason)

    return per_answer(rate)


def format_hints(weights: Mapping[str, float] | None = None, cap: float | None = 0.5) -> Reward:
    r"""The weighted share of format hints an answer shows, at most `cap`.

    Hints: steps ("step" or "first" begins a word), therefore ("therefore" or "thus"), answer_is ("answer is"), boxed
    ("\boxed"), long (over 100 characters). Components are 1 or 0 for each hint, so that their means are hit rates.

    Args:
        weights: hint to weight instead of FORMAT_WEIGHTS; a hint left out has none.
        cap: with correctness worth 1, at most 0.5 keeps a plain right answer above a decorated wrong one. None: no cap.
    """
    chosen = dict(FORMAT_WEIGHTS if weights is None else weights)
    unknown = sorted(set(chosen) - set(HINTS))
    if unknown:
        raise UserError(f"reward format: weights: unknown hint {unknown[0]!r}; there are {', '.join(HINTS)}")
    if not all(math.isfinite(weight) for weight in chosen.values()):
        raise UserError("reward format: weights: must be finite numbers")
    if cap is not None and not cap > 0:
        raise UserError(f"reward format: cap: must be above 0, not {cap}")

    def rate(_question: Question, answer: Answer) -> Score:
        hits = {hint: float(HINTS[hint](answer.text)) for hint in chosen}
        total = sum(chosen[hint] * hit for hint, hit in hits.items())
        return Score(total if cap is None else min(cap, total), dict(hits))

    return per_answer(rate)


def length(target: int, unit: Literal["words", "characters", "tokens"] = "words") -> Reward:
    """1 at the target length, falling in a straight line to 0 at length 0 and at twice the target; 0 beyond.

    Components: the length, named by its unit.
    """
    if target < 1:
        raise UserError(f"reward length: target: must be at least 1, not {target}")
    if unit not in ("words", "characters", "tokens"):
        raise UserError(f'reward length: unit: must be "words", "characters" or "tokens", not {unit!r}')

    def rate(_question: Question, answer: Answer) -> Score:
        counts = {"words": len(answer.text.split()), "characters": len(answer.text), "tokens": answer.tokens}
        value = max(0.0, 1.0 - abs(counts[unit] - target) / target)
        return Score(value, {unit: float(counts[unit])})

    return per_answer(rate)


def overlong(limit: int, margin: int) -> Reward:
    """0 up to `limit - margin` tokens, then a straight line to -1 at `limit`, -1 beyond (DAPO 2503.14476, eq. 13).

    Components: none; the penalty is the score.

    Args:
        limit: tokens, the stop token included; sampling.max_tokens or less.
        margin: tokens over which the penalty grows, 1..limit.
    """
    if limit < 1 or not 1 <= margin <= limit:
        raise UserError(f"reward overlong: needs limit >= 1 and margin in 1..limit, not {limit} and {margin}")

    def rate(_question: Question, answer: Answer) -> Score:
        return Score(-min(1.0, max(0.0, (answer.tokens - (limit - margin)) / margin)))

    return per_answer(rate)


def exact_words(words: int) -> Reward:
    """1 for an answer of exactly so many words (split at white space), else 0. Components: words."""
    if words < 0:
        raise UserError(f"reward exact_words: words: must be at least 0, not {words}")

    def rate(_question: Question, answer: Answer) -> Score:
        counted = len(answer.text.split())
        return Score(float(counted == words), {"words": float(counted)})

    return per_answer(rate)

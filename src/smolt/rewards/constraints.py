"""Whether an answer keeps the constraints its question states: counts, words, beginning and end, case, JSON.

Verifiable instructions as in IFEval (2311.07911), strict: the answer is taken as it is, but for white space around it.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from smolt.data import Answer, Question, Score
from smolt.errors import UserError
from smolt.rewards.rules import Reward, per_answer

CONSTRAINT_RULE = "constraints-1"
"""Version of the checks, which their figures name; a change that can move one takes the next number."""

_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+")
_BULLET = re.compile(r"^\s*[-*•+]\s+\S")
_FENCE = re.compile(r"^```\w*\s*\n(.*)\n```$", re.DOTALL)
_CLOSING = " \t\n.!?\"'”’)"


def sentences(text: str) -> int:
    """Pieces between sentence marks followed by white space; an abbreviation such as "e.g." counts as an end."""
    return sum(re.search(r"\w", piece) is not None for piece in _SENTENCE_END.split(text))


COUNTS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(text.split()),
    "sentences": sentences,
    "lines": lambda text: sum(bool(line.strip()) for line in text.splitlines()),
    "paragraphs": lambda text: sum(bool(part.strip()) for part in re.split(r"\n\s*\n", text)),
    "bullets": lambda text: sum(_BULLET.match(line) is not None for line in text.splitlines()),
    "commas": lambda text: text.count(","),
}
"""What is counted; its value is a number, or [least, most]."""


def has_word(text: str, word: str) -> bool:
    """Whether the text has the word or phrase, whole, in any case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _ends_with(text: str, wanted: str) -> bool:
    """After words, closing marks do not matter: "that is all" is the end of "That is all."."""
    text = text.rstrip(_CLOSING) if wanted[-1].isalnum() else text
    return text.casefold().endswith(wanted.casefold())


def _is_case(text: str, wanted: str) -> bool:
    return any(letter.isalpha() for letter in text) and text == (text.lower() if wanted == "lower" else text.upper())


def _is_json(text: str, keys: list[str]) -> bool:
    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return not keys or (isinstance(value, dict) and sorted(value) == sorted(keys))


CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "contains": lambda text, words: all(has_word(text, word) for word in words),
    "mentions": lambda text, words: any(has_word(text, word) for word in words),
    "avoids": lambda text, words: not any(has_word(text, word) for word in words),
    "without": lambda text, pieces: not any(piece.casefold() in text.casefold() for piece in pieces),
    "starts_with": lambda text, wanted: text.casefold().startswith(wanted.casefold()),
    "ends_with": _ends_with,
    "case": _is_case,
    "json": _is_json,
}
"""What is not counted: lists of words (contains all, mentions any, avoids all), of characters, a text, a case, keys."""

LISTS = {"contains", "mentions", "avoids", "without", "json"}


def read_constraint(text: str) -> dict[str, Any]:
    """The constraint of a question from its JSON.

    Raises:
        UserError: no JSON object, an unknown check, or a value that the check cannot use.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not found:
        raise UserError(f"constraint: {text[:60]!r} is not a JSON object of checks")
    for name, value in found.items():
        complaint = _complaint(name, value)
        if complaint is not None:
            raise UserError(f"constraint: {name}: {complaint}")
    return found


def _complaint(name: str, value: Any) -> str | None:
    """What is wrong with a check, or None."""
    if name in COUNTS:
        bounds = value if isinstance(value, list) and len(value) == 2 else [value]
        right = all(isinstance(bound, int) and not isinstance(bound, bool) and bound >= 0 for bound in bounds)
        return None if right and bounds == sorted(bounds) else "must be a number, or [least, most]"
    if name in LISTS:
        texts = isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value)
        return None if texts and (value or name == "json") else "must be a list of texts"
    if name == "case":
        return None if value in ("lower", "upper") else "must be lower or upper"
    if name in CHECKS:
        return None if isinstance(value, str) and value.strip() else "must be a text"
    return f"unknown check; there are {', '.join([*COUNTS, *CHECKS])}"


def kept(text: str, constraint: Mapping[str, Any]) -> dict[str, bool]:
    """Which checks of a constraint the text keeps, by name; an empty text keeps none."""
    text = text.strip()
    return {name: bool(text) and _keeps(text, name, value) for name, value in constraint.items()}


def _keeps(text: str, name: str, value: Any) -> bool:
    if name not in COUNTS:
        return CHECKS[name](text, value)
    least, most = value if isinstance(value, list) else (value, value)
    return bool(least <= COUNTS[name](text) <= most)


def constraints() -> Reward:
    """1 for an answer that keeps every check of its question's constraint, else 0 (checks: docs/guides/scenarios.md).

    Components: each check, 1 or 0. Abstains when the question's solution is no constraint.
    """

    def rate(question: Question, answer: Answer) -> Score:
        if not has_constraint(question):
            return Score(None, reason="the question states no constraint")
        found = kept(answer.text, read_constraint(question.solution or ""))
        missed = [name for name, right in found.items() if not right]
        parts: dict[str, float | None] = {name: float(right) for name, right in found.items()}
        return Score(float(not missed), parts, f"not kept: {', '.join(missed)}" if missed else "")

    return per_answer(rate)


def has_constraint(question: Question) -> bool:
    """Whether the question's solution is a constraint (a JSON object)."""
    return (question.solution or "").startswith("{")

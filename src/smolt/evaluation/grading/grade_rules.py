"""Rules: how an answer is read and when it is right. Each has a name and a version that never changes its meaning."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from smolt.data.numbers import (
    EXTRACTOR,
    FIRST_EXTRACTOR,
    LONGEST_TEXT,
    SECOND_EXTRACTOR,
    equal_numbers,
    extract,
    plainly,
)
from smolt.errors import UserError
from smolt.evaluation.grading import choices
from smolt.rewards.python import python_rule
from smolt.runs.storage import sha256_of


@dataclass(frozen=True)
class Grade:
    """One answer against its gold answer.

    Attributes:
        found: what was read from the answer; None is an extraction failure, which counts as wrong.
        gold: what was read from the gold answer.
    """

    correct: bool
    found: str | None
    gold: str

    @property
    def same_text(self) -> bool:
        """Right by string equality of what was read, as many published figures count it."""
        return self.found is not None and self.found == self.gold


class UnusableGold(Exception):
    """The gold answer holds nothing to compare with; the message says what it lacks."""


@dataclass(frozen=True)
class Rule:
    """A named way to grade; `judge(answer, gold)` raises UnusableGold."""

    name: str
    version: str
    judge: Callable[[str, str], Grade]


def rule_named(name: str) -> Rule:
    """The rule of a name: one of RULES, `regex:PATTERN`, or `file.py:function`.

    Raises:
        UserError: there is none of this name, or its pattern or function is at fault.
    """
    kind, colon, rest = name.partition(":")
    if kind == "regex" and colon:
        return _pattern(rest)
    if kind.endswith(".py"):
        return _function(name)
    if name not in RULES:
        known = ", ".join([*RULES, "regex:PATTERN", "file.py:function"])
        raise UserError(f"rule: {name!r} is unknown; there are {known}")
    return RULES[name]


def _numbers(answer: str, gold: str, version: str = EXTRACTOR) -> Grade:
    right, read = extract(gold, version), extract(answer, version)
    if right.value is None:
        raise UnusableGold(right.reason.replace("in the answer", "to compare with"))
    return Grade(equal_numbers(read, right), None if read.value is None else read.text, right.text)


def _text(answer: str, gold: str) -> Grade:
    read, right = answer.strip(), gold.strip()
    if not right:
        raise UnusableGold("is empty")
    return Grade(read == right, read or None, right)


def _choice(answer: str, gold: str) -> Grade:
    right, read = choices.choice(gold), choices.choice(answer)
    if right is None:
        raise UnusableGold(f"holds no letter from A to J: {gold[:40]!r}")
    return Grade(read == right, read, right)


def _mathematics(answer: str, gold: str) -> Grade:
    """Parsed and compared by math-verify, which loads sympy: only when asked for."""
    from math_verify import verify

    right = _parsed(gold) or _parsed(f"${gold}$")
    if not right:
        raise UnusableGold(f"holds no mathematics that can be read: {gold[:40]!r}")
    read = _parsed(answer[-LONGEST_TEXT:])
    correct = bool(read) and bool(verify(right, read, timeout_seconds=_patience()))
    return Grade(correct, str(read[-1]) if read else None, str(right[-1]))


def _parsed(text: str) -> list[Any]:
    from math_verify import parse

    found: list[Any] = parse(plainly(text), parsing_timeout=_patience())
    return found


def _patience() -> int | None:
    """Seconds for one expression: math-verify's clock is a signal, which only the main thread may set."""
    return 5 if threading.current_thread() is threading.main_thread() else None


def _pattern(pattern: str) -> Rule:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"rule: regex:{pattern}: is no regular expression: {error}") from None

    def judge(answer: str, gold: str) -> Grade:
        right = gold.strip()
        if not right:
            raise UnusableGold("is empty")
        matches = list(compiled.finditer(answer[-LONGEST_TEXT:]))
        groups = [group for group in matches[-1].groups() if group is not None] if matches else []
        read = (groups[0] if groups else matches[-1][0]).strip() if matches else None
        return Grade(read == right, read, right)

    return Rule(f"regex:{pattern}", "regex-1", judge)


def _function(source: str) -> Rule:
    function = python_rule(source)

    def judge(answer: str, gold: str) -> Grade:
        result = function(answer, gold)
        return Grade(result is True, None if result is None else answer.strip(), gold.strip())

    digest = sha256_of(Path(source.rpartition(":")[0]))
    return Rule(source, f"sha256 {digest[:16]}", judge)


RULES: dict[str, Rule] = {
    "gsm8k": Rule("gsm8k", EXTRACTOR, _numbers),
    "gsm8k-1": Rule("gsm8k-1", FIRST_EXTRACTOR, partial(_numbers, version=FIRST_EXTRACTOR)),
    "gsm8k-2": Rule("gsm8k-2", SECOND_EXTRACTOR, partial(_numbers, version=SECOND_EXTRACTOR)),
    "math": Rule("math", f"math-2 (math-verify {version('math-verify')})", _mathematics),
    "choice": Rule("choice", choices.VERSION, _choice),
    "string": Rule("string", "string-1", _text),
}
"""gsm8k: the final number, as an exact rational (gsm8k-1, gsm8k-2: as those versions read it). math: the boxed or last
expression. choice: a letter. string: all.
"""

"""Records that a program hands over: what is none of the kind that is asked for is named before anything is done."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smolt.data.decision_rows import SUM, read_decision
from smolt.data.decisions import Decision, DecisionQuestion
from smolt.data.nouns import Demonstration, Feedback, Preference, Question, Turn
from smolt.data.turns import RowProblem
from smolt.errors import UserError

NOUNS: Mapping[str, tuple[type, ...]] = {
    "demonstrations": (Demonstration,),
    "preferences": (Preference,),
    "feedback": (Feedback, Preference),
    "questions": (Question,),
    "decisions": (Decision,),
}
"""Kind of records -> what each of them may be."""

TEXTS = ("answer", "chosen", "rejected")


def require_records(records: object) -> None:
    """Refuse what is no list of records, and an empty one.

    Raises:
        UserError: says what it is.
    """
    if isinstance(records, str | Path | Mapping) or not isinstance(records, Iterable):
        raise UserError(
            f"records: a list of them is needed, not {_what(records)}; a file is named in a recipe (data: FILE)"
        )
    if not records:
        raise UserError("records: the list is empty; there is nothing to learn from")


def require_kind(records: Iterable[object], kind: str) -> None:
    """Refuse a record that is none of the kind, or has something else where a text or turns belong.

    Args:
        records: handed over by a program.
        kind: one of NOUNS; of others nothing is known here.

    Raises:
        UserError: names the first such record by its number, and what it should be.
    """
    nouns = NOUNS.get(kind)
    for number, record in enumerate(records if nouns else (), 1):
        fault = _fault(record) if isinstance(record, nouns or ()) else _what(record)
        if fault:
            wanted = " or ".join(map(_call, nouns or ()))
            parts = f"questions {_call(DecisionQuestion)}" if kind == "decisions" else "context turns (smolt.Turn)"
            raise UserError(f"{kind}: number {number} is {fault}; it must be {wanted}, its {parts}")


def _fault(record: Any) -> str:
    """What is wrong within a record, or nothing."""
    if isinstance(record, Decision):
        return _undecidable(record)
    name = _what(record)
    context = record.context
    if not isinstance(context, tuple | list):
        return f"{name} whose context is {_what(context)}"
    strange = [turn for turn in context if not isinstance(turn, Turn)]
    if strange:
        return f"{name} whose context holds {_what(strange[0])}"
    for field in TEXTS:
        if not isinstance(value := getattr(record, field, ""), str):
            return f"{name} whose {field} is {_what(value)}"
    return ""


def _undecidable(record: Any) -> str:
    """What is wrong within a decision, or nothing: what a file's row is refused for is refused here."""
    questions = record.questions
    if not isinstance(questions, tuple | list):
        return f"a Decision whose questions are {_what(questions)}"
    strange = [one for one in questions if not isinstance(one, DecisionQuestion)]
    if strange:
        return f"a Decision whose questions hold {_what(strange[0])}"
    names = [one.name for one in questions]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        return f"a Decision with two questions {twice[0]}"
    try:
        read_decision(record.request)
    except RowProblem as problem:
        return f"a Decision whose {problem.field} {problem.reason}"
    for one in questions:
        if one.expected is not None and not _is_distribution(one.expected, len(one.options)):
            told = f"is not a probability for each of its {len(one.options)} options, sum 1"
            return f"a Decision whose expected of {one.name} {told}"
    return ""


def _is_distribution(given: Any, options: int) -> bool:
    if not isinstance(given, tuple | list) or len(given) != options:
        return False
    numbers = all(isinstance(one, int | float) and 0 <= one <= 1 for one in given)
    return numbers and abs(sum(given) - 1) <= SUM


def _what(value: object) -> str:
    """A value in words."""
    if isinstance(value, Mapping):
        return f"a dict ({', '.join(map(str, value)) or 'empty'})"
    if isinstance(value, str):
        return "a text"
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _call(noun: Any) -> str:
    """How a record is made: `smolt.Preference(context, chosen, rejected)`."""
    needed = [field.name for field in dataclasses.fields(noun) if field.default is dataclasses.MISSING]
    return f"smolt.{noun.__name__}({', '.join(needed)})"

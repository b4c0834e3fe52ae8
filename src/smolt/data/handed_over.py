"""Records that a program hands over: what is none of the kind that is asked for is named before anything is done."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smolt.data.nouns import Demonstration, Feedback, Preference, Question, Turn
from smolt.errors import UserError

NOUNS: Mapping[str, tuple[type, ...]] = {
    "demonstrations": (Demonstration,),
    "preferences": (Preference,),
    "feedback": (Feedback, Preference),
    "questions": (Question,),
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
            raise UserError(f"{kind}: number {number} is {fault}; it must be {wanted}, its context turns (smolt.Turn)")


def _fault(record: Any) -> str:
    """What is wrong within a record, or nothing."""
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

"""From one row's fields to text and turns: the checks that every format shares."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from smolt.data.nouns import Context, Role, Turn

Row = Mapping[str, object]

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


class RowProblem(Exception):
    """A row that cannot be read: the field at fault and the reason."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def text(value: object, field: str, *, empty: bool = False) -> str:
    """The value as text that can be encoded; white space alone counts as empty.

    Raises:
        RowProblem: It is missing, not text, empty where that is not allowed, or holds half a character.
    """
    if value is None:
        raise RowProblem(field, "is missing")
    if not isinstance(value, str):
        raise RowProblem(field, f"is {described(value)}, not text")
    if not empty and not value.strip():
        raise RowProblem(field, "is empty")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RowProblem(field, f"holds half a character (a lone surrogate) at position {error.start}") from None
    return value


def optional_text(row: Row, field: str) -> str:
    """A text or number that may be absent, as text without surrounding white space; absent (or NaN) is ''."""
    value = row.get(field)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number_text(value, field)
    return text(value, field, empty=True).strip()


def number_text(value: float, field: str) -> str:
    """A finite number as people write it: 51.0 is '51', 0.5 is '0.5'."""
    if isinstance(value, int):
        if abs(value) >= 10**300:
            raise RowProblem(field, "is a number beyond 1e300")
        return str(value)
    if not math.isfinite(value):
        raise RowProblem(field, f"is {value}, not a finite number")
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def weight(row: Row) -> float:
    """The probability that the chosen answer is the better one, in [0, 1]; 1 where the row does not say."""
    value = row.get("weight")
    if value is None:
        return 1.0
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise RowProblem("weight", f"is {str(value)[:40]!r}, not a probability in [0, 1]")
    return number


def opening(row: Row, question: str) -> Context:
    """The context of one question, after the row's optional `system` text."""
    system = optional_text(row, "system")
    turns = (Turn("system", system),) if system else ()
    return (*turns, Turn("user", question))


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    """Whether a value is a list (of messages, turns, instances), as JSON and Parquet give it."""
    return isinstance(value, (list, tuple))


def messages(value: object, field: str) -> Context:
    """Turns from a list of {role, content} or {from, value} objects or [role, text] pairs.

    An empty system turn is left out; any other empty turn is a problem.
    """
    if not is_list(value):
        raise RowProblem(field, f"is {described(value)}, not a list of messages")
    turns = (_turn(message, f"{field}[{index}]") for index, message in enumerate(value))
    return tuple(turn for turn in turns if turn.content.strip())


def _turn(message: object, field: str) -> Turn:
    if isinstance(message, Mapping):
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
    elif is_list(message) and len(message) == 2:
        role, content = message
    else:
        raise RowProblem(field, "is not a message: {role, content}, {from, value} or [role, text]")
    known = ROLES.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise RowProblem(field, f"has the role {str(role)[:40]!r}; known roles are {', '.join(ROLES)}")
    return Turn(known, text(content, f"{field}.content", empty=known == "system"))


def dialogue(value: str, field: str) -> Context:
    r"""Turns of a whole "\n\nHuman: ... \n\nAssistant: ..." dialogue; a last turn with no text is left out.

    One speaker's consecutive turns (4 of the 2,312 rows of hh-rlhf's harmless-base test have them) become one turn.
    """
    before, *parts = _SPEAKER.split(value)
    if before.strip() or not parts:
        raise RowProblem(field, 'does not begin with "\\n\\nHuman:" or "\\n\\nAssistant:"')
    turns: list[Turn] = []
    for index in range(0, len(parts), 2):
        role, content = ROLES["human" if parts[index] == "Human" else "assistant"], parts[index + 1].strip()
        if not content:
            if index + 2 < len(parts):
                raise RowProblem(field, f"turn {index // 2 + 1} of the dialogue is empty")
            continue
        if turns and turns[-1].role == role:
            content = f"{turns.pop().content}\n\n{content}"
        turns.append(Turn(role, content))
    return tuple(turns)


def described(value: object) -> str:
    """What a value is, in words: for messages."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "missing" if value is None else names.get(type(value), f"a {type(value).__name__}")

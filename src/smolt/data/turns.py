"""From one row's fields to text and turns: the checks that every format shares."""

import ast
import json
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
_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
LOST_OF_MESSAGES = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "train_detail")
"""Keys of a message that other tools read and smolt would drop."""

_LISTS = ("messages", "conversations", "context", "history", "turns", "instances")
_MESSAGE = re.compile(r"""\s*\[?\s*\{\s*["'](role|content|from|value)["']\s*:""")
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
ASSISTANT = "\n\nAssistant:"


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


def is_judged(row: Row) -> bool:
    """Whether the row's `label` says good or not (and is no other mark, such as a category)."""
    return str(row.get("label")).lower() in _LABELS


def desirable(row: Row) -> bool:
    """What the row's `label` says of its answer.

    Raises:
        RowProblem: neither good nor not.
    """
    if not is_judged(row):
        raise RowProblem("label", f"is {str(row.get('label'))[:40]!r}, neither true or 1 nor false or 0")
    return _LABELS[str(row["label"]).lower()]


def require_unjudged(row: Row) -> None:
    """A judged answer may be a bad one: it is not to be imitated.

    Raises:
        RowProblem: the row's `label` says good or not.
    """
    if is_judged(row):
        raise RowProblem("label", f"is {str(row['label']).lower()}: feedback, for `smolt kto`; remove it for sft")


def opening(row: Row, turns: Context) -> Context:
    """Turns after the row's optional `system` text and `history`.

    Raises:
        RowProblem: The row and the turns have different system texts.
    """
    return joined_system(optional_text(row, "system"), (*_history(row.get("history")), *turns), "system")


def joined_system(system: str, turns: Context, field: str) -> Context:
    """Turns that begin with this system text, if any, said once."""
    own = next((turn.content for turn in turns if turn.role == "system"), "")
    if system and own and _folded(own) != _folded(system):
        raise RowProblem(field, "is another system text than the conversation's own; keep one of the two")
    return turns if own or not system else (Turn("system", system), *turns)


def _history(value: object) -> Context:
    """Earlier turns: [question, answer] pairs, or messages."""
    pairs = value if is_list(value) else [] if value in (None, "") else [value]
    if any(isinstance(pair, Mapping) or (is_list(pair) and pair and pair[0] in [*ROLES]) for pair in pairs):
        return messages(value, "history")
    turns = []
    for index, pair in enumerate(pairs):
        if not is_list(pair) or len(pair) != 2:
            raise RowProblem("history", f"its entry {index + 1} is not a pair [question, answer]")
        for role, content in zip(("user", "assistant"), pair, strict=True):
            turns.append(Turn(ROLES[role], text(content, f"history[{index}]")))
    return tuple(turns)


def joined(context: Context, before: Context, field: str) -> Context:
    """The context of an answer that stands in a column beside the prompt, and that may repeat turns or add some.

    White space and a system turn aside, the turns before the answer begin with the prompt's turns, or end with them, or
    are the last of them; or they go on after it with the assistant's.

    Raises:
        RowProblem: None of these: where the prompt belongs cannot be told.
    """
    asked, said = (tuple(turn for turn in turns if turn.role != "system") for turns in (context, before))
    ours, theirs = ([(turn.role, _folded(turn.content)) for turn in turns] for turns in (asked, said))
    systems = ["".join(turn.content for turn in turns if turn.role == "system") for turns in (context, before)]
    if ours in (theirs[: len(ours)], theirs[len(theirs) - len(ours) :]):
        return joined_system(systems[0], before, field)
    repeated = theirs == ours[len(ours) - len(theirs) :]
    if repeated or said[0].role == "assistant":
        return joined_system(systems[1], context if repeated else (*context, *said), field)
    raise RowProblem(field, "holds a conversation that neither begins nor ends with the prompt; remove one of the two")


def _folded(content: str) -> str:
    """A text as it is compared: runs of white space are one space."""
    return " ".join(content.split())


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    """Whether a value is a list (of messages, turns, instances), as JSON and Parquet give it."""
    return isinstance(value, (list, tuple))


def messages(value: object, field: str) -> Context:
    """Turns from a list of {role, content} or {from, value} objects or [role, text] pairs.

    An empty system turn is left out; any other empty turn is a problem.
    """
    return tuple(turn for turn, _ in weighted_messages(value, field))


def weighted_messages(value: object, field: str) -> tuple[tuple[Turn, bool], ...]:
    """As `messages`, and of each turn whether it may be learned: not where its weight, train or loss is 0 or false."""
    if not is_list(value):
        raise RowProblem(field, f"is {described(value)}, not a list of messages")
    turns = []
    for index, message in enumerate(value):
        turn = _turn(message, f"{field}[{index}]")
        if turn.content.strip():
            turns.append((turn, _is_learned(message, f"{field}[{index}]")))
    return tuple(turns)


def _is_learned(message: object, field: str) -> bool:
    """What a message says of itself beside its text.

    Raises:
        RowProblem: It says something that would be lost.
    """
    if not isinstance(message, Mapping):
        return True
    for key in LOST_OF_MESSAGES:
        if message.get(key):
            raise RowProblem(f"{field}.{key}", "is not read by smolt; put it into the content, or remove it")
    learned = True
    for key in ("weight", "train", "training", "loss"):
        given = message.get(key)
        if given is not None and (not isinstance(given, (int, float)) or given not in (0, 1)):
            raise RowProblem(f"{field}.{key}", f"is {str(given)[:40]!r}, neither 0 or false nor 1 or true")
        learned = learned and given in (None, 1)
    return learned


def _twin(message: Mapping[object, object], names: tuple[str, str], field: str) -> object:
    """The value under one of two names; the other may be absent or null, as a merge of two styles leaves it."""
    first, second = (message.get(name) for name in names)
    if first is not None and second is not None and first != second:
        raise RowProblem(field, f"has both {names[0]} and {names[1]}, and they differ")
    return second if first is None else first


def structured(value: object, column: str) -> object:
    """A cell, or the messages (in a column of lists, any list) that were written into it as JSON's or Python's text.

    Raises:
        RowProblem: It looks like messages and is neither.
    """
    if is_list(value) and value and all(isinstance(item, str) and _MESSAGE.match(item) for item in value):
        return [structured(item, column) for item in value]
    telling = isinstance(value, str) and _MESSAGE.match(value)
    if not isinstance(value, str) or not (telling or (column in _LISTS and value.lstrip().startswith("["))):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            found: object = parse(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return found
    if telling:
        raise RowProblem(column, "looks like a list of messages written as text, and is neither JSON nor Python")
    return value


def _turn(message: object, field: str) -> Turn:
    if isinstance(message, Mapping):
        role, content = _twin(message, ("role", "from"), field), _twin(message, ("content", "value"), field)
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


def is_dialogue(value: object) -> bool:
    """Whether a text begins as an HH dialogue does."""
    return isinstance(value, str) and value.startswith(("\n\nHuman:", ASSISTANT))


def ending_with_question(context: Context, field: str) -> Context:
    """The same turns.

    Raises:
        RowProblem: their last one is not a user's.
    """
    if not context or context[-1].role != "user":
        raise RowProblem(field, "does not end with a user's turn")
    return context


def asked_in(value: object, field: str) -> Context:
    """The turns of a prompt that is text: an HH dialogue's own, which awaits the Assistant's, else one turn of a user.

    Raises:
        RowProblem: it is no text, or a dialogue that awaits no answer.
    """
    prompt = text(value, field)
    return awaiting(prompt, field) if is_dialogue(prompt) else (Turn("user", prompt),)


def awaiting(prompt: str, field: str) -> Context:
    """The turns of an HH dialogue that awaits the Assistant's.

    Raises:
        RowProblem: it does not.
    """
    if not prompt.rstrip().endswith(ASSISTANT):
        raise RowProblem(field, 'is a dialogue that does not end with "\\n\\nAssistant:"')
    return ending_with_question(dialogue(prompt, field), field)


def said_to(prompt: object, answer: str) -> str:
    """An answer; after an HH dialogue without the space that follows its "Assistant:"."""
    return answer.strip() if is_dialogue(prompt) else answer


def described(value: object) -> str:
    """What a value is, in words: for messages."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "missing" if value is None else names.get(type(value), f"a {type(value).__name__}")


def shared_length(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    length = min(len(one), len(other))
    return next((index for index in range(length) if one[index] != other[index]), length)


def final_answer(worked: str) -> str | None:
    """The text after the last '####' (GSM8K's mark of the final answer), or None without one."""
    return worked.rpartition("####")[2].strip() if "####" in worked else None

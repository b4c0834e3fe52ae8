"""Labels from other tools: rows with a choice, or preferences whose chosen answer is one annotator's choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smolt.data import Preference, Source, Turn, files, load
from smolt.data.turns import RowProblem, asked_in, is_list, messages, opening, optional_text, said_to, text
from smolt.errors import UserError
from smolt.preferences.people.nouns import BlindPair, Choice, Label, Side, pair_of
from smolt.preferences.people.store import LabelStore

ANSWERS = (
    ("first", "second"),
    ("answer_a", "answer_b"),
    ("response_a", "response_b"),
    ("answer_1", "answer_2"),
    ("response_1", "response_2"),
    ("left", "right"),
)
"""Columns of the two answers, by what other tools call them."""

CHOICE_COLUMNS = ("choice", "winner", "preference", "label")
PROMPTS = ("prompt", "question", "instruction", "context")
SPOKEN: dict[str, str] = {
    **dict.fromkeys(("first", "a", "model_a", "answer_a", "response_a", "1", "answer_1", "response_1", "left"), "one"),
    **dict.fromkeys(
        ("second", "b", "model_b", "answer_b", "response_b", "2", "answer_2", "response_2", "right"), "two"
    ),
    **dict.fromkeys(("tie", "equal", "draw", "same"), "tie"),
    **dict.fromkeys(("both_bad", "both bad", "bothbad", "neither", "tie (bothbad)"), "both_bad"),
    **dict.fromkeys(("skip", "skipped"), "skip"),
}
"""What a choice may be called, in lower case; `one` is the answer in the first of the two columns."""


@dataclass(frozen=True)
class Imported:
    """What came in: rows read, labels that are new, and how many rows each annotator has."""

    rows: int
    new: int
    annotators: dict[str, int]


def read_labels(path: str, annotator: str | None, record_format: str | None = None) -> list[tuple[BlindPair, Label]]:
    """Every label of a file, each with its pair.

    Args:
        path: rows with two answers and a choice (of this or another tool), or preferences of any known format.
        annotator: whose labels these are; needed where the rows do not say.
        record_format: of preferences; recognised unless given.

    Raises:
        UserError: a row cannot be read (`file:line: field: reason`), or nobody is named as its annotator.
    """
    table = files.read(path, None)
    seen = next((line.row for line in table.lines if line.row is not None), {})
    if any(column in seen for column in CHOICE_COLUMNS) and answer_columns(seen) is not None:
        return [_labelled(table.name, line, annotator) for line in table.lines]
    name = _named(annotator, f"{table.name}: annotator")
    return [_preference(one, name) for one in load(Source(path, format=record_format), "preferences").records]


def import_labels(store: LabelStore, found: Sequence[tuple[BlindPair, Label]]) -> Imported:
    """Store all labels or none; a label that the annotator has for a pair already stays.

    Raises:
        StorageError: the disk is full or failing.
    """
    store.add_pairs(pair for pair, _ in found)
    counts: dict[str, int] = {}
    for _, label in found:
        counts[label.annotator] = counts.get(label.annotator, 0) + 1
    return Imported(len(found), store.record_all(label for _, label in found), counts)


def answer_columns(row: Mapping[str, object]) -> tuple[str, str] | None:
    """The two columns that hold the answers, or None."""
    return next((pair for pair in ANSWERS if isinstance(row.get(pair[0]), str) and pair[1] in row), None)


def _preference(preference: Preference, annotator: str) -> tuple[BlindPair, Label]:
    pair = pair_of(preference)
    better = preference.likelier_first.chosen
    choice: Choice = "tie" if preference.weight == 0.5 else "first" if better == pair.first else "second"
    return pair, Label(pair.id, annotator, choice)


def _labelled(name: str, line: files.Line, annotator: str | None) -> tuple[BlindPair, Label]:
    if line.row is None:
        raise UserError(f"{name}:{line.number}: row: {line.problem}")
    try:
        return _read(line.row, annotator, f"{name}:{line.number}")
    except RowProblem as problem:
        raise UserError(f"{name}:{line.number}: {problem.field}: {problem.reason}") from None


def _read(row: Mapping[str, object], annotator: str | None, place: str) -> tuple[BlindPair, Label]:
    columns = answer_columns(row)
    if columns is None:
        raise RowProblem("row", f"has no two answers; known columns: {'; '.join(', '.join(pair) for pair in ANSWERS)}")
    asked = _asked(row)
    one, two = (said_to(row[asked], text(row[column], column, empty=True)) for column in columns)
    gold = optional_text(row, "gold")
    known = gold if columns == ("first", "second") and gold in ("first", "second") else ""
    better, worse = (two, one) if known == "second" else (one, two)
    pair = pair_of(Preference(_context(row, asked), better, worse), gold=bool(known))
    spoken = _spoken(row)
    choice: Choice = "tie"
    if spoken in ("one", "two"):
        choice = "first" if (one if spoken == "one" else two) == pair.first else "second"
    elif spoken in ("both_bad", "skip"):
        choice = "both_bad" if spoken == "both_bad" else "skip"
    name = _named(optional_text(row, "annotator") or annotator, f"{place}: annotator")
    left = _left(row) if one == pair.first else None
    return pair, Label(pair.id, name, choice, left, _seconds(row), optional_text(row, "at"))


def _asked(row: Mapping[str, object]) -> str:
    """The column of the prompt."""
    column = next((name for name in PROMPTS if row.get(name) is not None), None)
    if column is None:
        raise RowProblem("prompt", f"is missing; known columns: {', '.join(PROMPTS)}")
    return column


def _context(row: Mapping[str, object], column: str) -> tuple[Turn, ...]:
    value = row[column]
    return opening(row, messages(value, column) if is_list(value) else asked_in(value, column))


def _spoken(row: Mapping[str, object]) -> str:
    column = next((name for name in CHOICE_COLUMNS if row.get(name) is not None), None)
    if column is None:
        raise RowProblem("choice", f"is missing; known columns: {', '.join(CHOICE_COLUMNS)}")
    said = optional_text(row, column).lower()
    if said not in SPOKEN:
        raise RowProblem(column, f"is {said[:40]!r}; known: {', '.join(SPOKEN)}")
    return SPOKEN[said]


def _left(row: Mapping[str, object]) -> Side | None:
    """Which answer stood on the left, in rows of our own."""
    if answer_columns(row) != ("first", "second"):
        return None
    said = row.get("left")
    return "first" if said == "first" else "second" if said == "second" else None


def _seconds(row: Mapping[str, object]) -> float | None:
    value = row.get("seconds")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise RowProblem("seconds", f"is {str(value)[:40]!r}, not a time in seconds")
    return float(value)


def _named(annotator: str | None, place: str) -> str:
    if not annotator or not annotator.strip():
        raise UserError(f"{place}: nobody is named; give --annotator NAME")
    return annotator.strip()

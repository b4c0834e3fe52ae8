"""From a source to records: the format found or given, every row read, and the bad ones named or counted."""

import difflib
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeAlias, TypeVar, Union, overload

from smolt.data import files
from smolt.data.decisions import Decision, in_words, shown_in_words
from smolt.data.formats import FORMATS, LOST_COLUMNS, Entry, Format, Kind
from smolt.data.nouns import Demonstration, Feedback, Preference, Question
from smolt.data.turns import Row, RowProblem, structured
from smolt.errors import UserError

if TYPE_CHECKING:
    from smolt.config import Data


@dataclass(frozen=True)
class Source:
    """A data source for use without a recipe; a recipe's `data` block has the same fields.

    Attributes:
        path: A file, a directory, or, where no such path exists, a hub name (`owner/name:configuration`).
        split: The split of data that has several; None is the only one, or `train`.
        format: The name of a format, or of a family of them (`hh`); None is detected.
        fields: For each field of the format, the column to read it from where that has another name.
        half: One of two halves that share no first question; None is all.
        limit: At most so many records, from the first; None is all.
        skip_bad: Whether unreadable rows are left out and counted, instead of being an error.
    """

    path: str
    split: str | None = None
    format: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    half: Literal["a", "b"] | None = None
    limit: int | None = None
    skip_bad: bool = False


LOG = logging.getLogger(__name__)
DataSource: TypeAlias = Union["Data", Source]

_LOOKED_AT = 100
_SHOWN_LINES = 5
_SHOWN_FORMATS = 3
_SKIPPING = "skip_bad: true in a recipe, --skip-bad of judge, label and data audit"

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """Records and where they came from.

    Attributes:
        records: In the order of the data.
        format: The name of the format they were read as.
        path: The file or data set that was read.
        skipped: `file:line: field: reason` of every row left out.
        sha256: Of the file's bytes (of the rows, for a data set); equal data, equal digest.
        remarks: What a reader should know about rows that were kept, for example pairs whose two answers are the same.
        lines: For each record the line of the file (for Parquet and data sets, the row, from 1) it was read from.
    """

    records: list[T]
    format: str
    path: str
    skipped: list[str]
    sha256: str
    remarks: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def describe(self) -> str:
        """One line for a person: how many records, from where, read as what."""
        text = f"{len(self.records)} records from {self.path}, read as {self.format}"
        return "; ".join([text, *([f"{len(self.skipped)} bad rows skipped"] if self.skipped else []), *self.remarks])


@overload
def load(data: DataSource, kind: Literal["demonstrations"]) -> Loaded[Demonstration]: ...
@overload
def load(data: DataSource, kind: Literal["preferences"]) -> Loaded[Preference]: ...
@overload
def load(data: DataSource, kind: Literal["feedback"]) -> Loaded[Feedback]: ...
@overload
def load(data: DataSource, kind: Literal["decisions"]) -> Loaded[Decision]: ...
@overload
def load(data: DataSource, kind: Literal["questions"]) -> Loaded[Question]: ...
@overload
def load(data: DataSource, kind: Literal["text"]) -> Loaded[str]: ...


def load(
    data: DataSource, kind: Kind
) -> Loaded[Demonstration] | Loaded[Preference] | Loaded[Feedback] | Loaded[Decision] | Loaded[Question] | Loaded[str]:
    r"""Read a source as records of one kind.

    Preferences can be read as demonstrations (the chosen answers), feedback (two answers) and questions (the contexts),
    demonstrations as questions, and nearly anything as text (the turns and the answer, a line each). In a dialogue
    every assistant turn that answers a user is a demonstration of its own; as a question a dialogue is asked once, at
    its last answer. A question without an id gets `<file's stem>:<line>`.

    Args:
        data: The path and how to read it; a recipe's `data` block, or a Source.
        kind: What to make of each row.

    Raises:
        UserError: The source is missing, empty, of no known format, of one that cannot give this kind of record, or has
            bad rows and `skip_bad` is off; the message names the first as `file:line: field: reason`.
    """
    if kind == "demonstrations":
        return _load(data, kind, _demonstrations)
    if kind == "preferences":
        return _load(data, kind, _preferences)
    if kind == "feedback":
        return _load(data, kind, _feedback)
    if kind == "decisions":
        return _load(data, kind, _decisions)
    if kind == "questions":
        return _load(data, kind, _questions)
    return _load(data, kind, _texts)


def _load(data: DataSource, kind: Kind, convert: Callable[[list[Entry], str], list[T]]) -> Loaded[T]:
    if data.limit is not None and data.limit < 1:
        raise UserError(f"{data.path}: limit: is {data.limit}; at least 1 record is needed")
    LOG.info("reading %s", data.path)
    table = files.read(str(data.path), data.split)
    _check_columns(table, data.fields)
    lines = [_prepared(line, data.fields) for line in table.lines]
    if not lines:
        raise UserError(f"{table.name}: holds no rows; a file of records has one a line")
    form = _find_format(table.name, lines, kind, data.format)
    _check_fields(table.name, form, data.fields)
    records: list[T] = []
    places: list[int] = []
    problems: list[str] = []
    kept: list[tuple[int, list[Entry]]] = []
    stem = Path(table.name).name.partition(".")[0]
    for line in lines:
        if data.limit is not None and len(records) >= data.limit:
            break
        try:
            entries = _entries(line, form)
            if data.half is not None and _half(entries) != data.half:
                continue
            found = convert(entries, f"{stem}:{line.number}")
        except RowProblem as problem:
            column = data.fields.get(problem.field, problem.field)
            problems.append(f"{table.name}:{line.number}: {column}: {problem.reason}")
            continue
        records.extend(found)
        places.extend([line.number] * len(found))
        kept.append((line.number, entries))
    if problems and not data.skip_bad:
        raise UserError(_bad_rows(problems))
    if not records:
        reason = f"all {len(problems)} rows are bad; the first: {problems[0]}" if problems else f"holds no {kind}"
        raise UserError(f"{table.name}: {reason}")
    remarks = _remarks(kept) if kind == "preferences" else []
    if kind == "feedback" and any(entry.rejected is not None for _, entries in kept for entry in entries):
        remarks = ["each pair is two answers: the chosen one desirable, the rejected one not"]
    return Loaded(records[: data.limit], form.name, table.name, problems, table.sha256, remarks, places[: data.limit])


def _entries(line: files.Line, form: Format) -> list[Entry]:
    if line.row is None:
        raise RowProblem("row", line.problem)
    for column in form.required:
        if line.row.get(column) is None:
            raise RowProblem(column, "is missing")
    for column in LOST_COLUMNS:
        if column not in form.optional and line.row.get(column) not in (None, "", [], "[]"):
            raise RowProblem(
                column, f"is not read in the format {form.name}; remove the column, or put it into the turns"
            )
    return form.read(line.row)


def _half(entries: list[Entry]) -> Literal["a", "b"] | None:
    """The half of a row: by the hash of its first question (of its text where it asks nothing)."""
    if not entries:
        return None
    decided = entries[0].decision
    own = entries[0].answer or "" if decided is None else decided.text
    first = next((turn.content for turn in entries[0].context if turn.role == "user"), own)
    return "a" if hashlib.sha256(first.encode()).digest()[0] % 2 == 0 else "b"


def _bad_rows(problems: list[str]) -> str:
    more = f"; {len(problems) - 1} more bad rows" if len(problems) > 1 else ""
    return f"{problems[0]}{more}. Mend the data, or leave such rows out: {_SKIPPING}"


def _prepared(line: files.Line, fields: Mapping[str, str]) -> files.Line:
    """The row with each field of the format under its own name, and what was serialised in a cell as what it is."""
    if line.row is None:
        return line
    row = {name: value for name, value in line.row.items() if name not in fields}
    row.update({name: line.row.get(column) for name, column in fields.items()})
    try:
        return files.Line(line.number, {name: structured(value, name) for name, value in row.items()})
    except RowProblem as problem:
        return files.Line(line.number, None, str(problem))


def _check_columns(table: files.FileRows, fields: Mapping[str, str]) -> None:
    """Every column that `fields` names for a field must be one of the data's."""
    known = list({name: None for line in table.lines for name in line.row or ()}) if fields else []
    for given, column in fields.items():
        is_field = any(given in (*form.required, *form.optional) for form in FORMATS)
        if is_field and known and column not in known:
            close = difflib.get_close_matches(column, known, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UserError(
                f"{table.name}: fields.{given}: no row has the column {column!r}; {hint}columns: {', '.join(known)}"
            )


def _check_fields(name: str, form: Format, fields: Mapping[str, str]) -> None:
    known = (*form.required, *form.optional)
    for given in fields:
        if given not in known:
            close = difflib.get_close_matches(given, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(
                f"{name}: fields.{given}: the format {form.name} has no such field ({form.columns()}){hint}"
            )


def _find_format(name: str, lines: list[files.Line], kind: Kind, given: str | None) -> Format:
    """The format given, or the one most of the first rows match."""
    named = named_formats(name, given) if given not in (None, "auto") else FORMATS
    serving = [form for form in named if kind in form.kinds]
    seen = list(itertools.islice((line.row for line in lines if line.row is not None), _LOOKED_AT))
    exact = next((form for form in serving if form.name == given), None)
    found = _most_matched(seen, serving) or exact
    if found is not None:
        return found
    if not seen:
        raise UserError(f"{name}:{lines[0].number}: row: {lines[0].problem}; no row could be parsed")
    other = _most_matched(seen, named) or next((form for form in named if form.name == given), None)
    if other is not None:
        raise UserError(
            f"{name}: its rows are {other.name} ({other.columns()}), which gives {', '.join(other.kinds)} but no "
            f"{kind}; {_nearest_formats(seen, [form for form in FORMATS if kind in form.kinds])}"
        )
    columns = ", ".join(sorted({str(column)[:60] for row in seen for column in row})[:30]) or "none"
    raise UserError(
        f"{name}: no known format has the columns {columns}; {_nearest_formats(seen, serving)}. "
        "Name the format with `format`, and columns of other names with `fields`"
    )


def _nearest_formats(seen: list[Row], formats: Sequence[Format]) -> str:
    """The formats of which the rows have the largest share of the required columns, and what they lack of them."""
    columns = list({str(column): None for row in seen for column in row})
    found = []
    for form in formats:
        lacking = [column for column in form.required if column not in columns]
        alike = {column: difflib.get_close_matches(column, columns, n=1, cutoff=0.75) for column in lacking}
        share = 1 - sum(0.5 if alike[column] else 1.0 for column in lacking) / len(form.required)
        needs = [f"{column} (is it {alike[column][0]}?)" if alike[column] else column for column in lacking]
        found.append((share, f"{form.name}, which needs {' and '.join(needs)} too"))
    best = [said for share, said in sorted(found, key=lambda entry: -entry[0]) if share > 0][:_SHOWN_FORMATS]
    near = (
        f"nearest: {'; '.join(best)}" if best else f"the formats: {', '.join(form.name for form in formats) or 'none'}"
    )
    return f"{near} (`smolt data formats` lists the columns of all)"


def named_formats(name: str, given: str | None) -> Sequence[Format]:
    """The formats of a name, or of a family: hh is hh and hh_prompt."""
    named = [form for form in FORMATS if form.name == given or form.name.startswith(f"{given}_")]
    if not named:
        known = [form.name for form in FORMATS]
        close = difflib.get_close_matches(str(given), known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"{name}: format: {given!r} is unknown; {hint}known: {', '.join(known)}")
    return named


def _most_matched(seen: list[Row], candidates: Sequence[Format]) -> Format | None:
    """The format that is the first match of the most rows; where none matches, that has its columns, filled or not."""
    for test in (Format.matches, Format.has_columns):
        first = (next((index for index, form in enumerate(candidates) if test(form, row)), None) for row in seen)
        counts = Counter(index for index in first if index is not None)
        if counts:
            return candidates[min(counts, key=lambda index: (-counts[index], index))]
    return None


def _demonstrations(entries: list[Entry], place: str) -> list[Demonstration]:
    """Every answered entry; a dialogue whose only answers are missing is a problem, an empty document is not."""
    if decisions := _decisions(entries, place):
        return [shown for decision in decisions for shown in shown_in_words(decision)]
    demonstrations = [Demonstration(entry.context, entry.answer) for entry in entries if entry.answer is not None]
    if entries and not demonstrations:
        raise RowProblem("row", "holds a question and no answer to it")
    if any(not demonstration.answer.strip() for demonstration in demonstrations):
        raise RowProblem("chosen", "is empty: it cannot be a demonstration")
    return demonstrations


def _preferences(entries: list[Entry], place: str) -> list[Preference]:
    return [
        Preference(entry.context, entry.answer, entry.rejected, entry.weight)
        for entry in entries
        if entry.answer is not None and entry.rejected is not None
    ]


def _feedback(entries: list[Entry], place: str) -> list[Feedback]:
    """Judged answers as they are; a pair as its two, but nothing where they are equally good."""
    found: list[Feedback] = []
    for entry in entries:
        if entry.answer is not None and entry.desirable is not None:
            found.append(Feedback(entry.context, entry.answer, entry.desirable))
        elif entry.answer is not None and entry.rejected is not None:
            found.extend(Preference(entry.context, entry.answer, entry.rejected, entry.weight).unpaired)
    return found


def _decisions(entries: list[Entry], place: str) -> list[Decision]:
    found = [entry.decision for entry in entries if entry.decision is not None]
    return [one if one.id else replace(one, id=place) for one in found]


def _questions(entries: list[Entry], place: str) -> list[Question]:
    if decisions := _decisions(entries, place):
        return [question for decision in decisions for question in in_words(decision)]
    asked = [entry for entry in entries if entry.last]
    names = [place] if len(asked) == 1 else [f"{place}/{index + 1}" for index in range(len(asked))]
    return [
        Question(entry.context, entry.solution, entry.id or name, entry.kind)
        for entry, name in zip(asked, names, strict=True)
    ]


def _texts(entries: list[Entry], place: str) -> list[str]:
    return [
        "\n".join([*(turn.content for turn in entry.context), entry.answer or ""]).strip()
        for entry in entries
        if entry.last
    ]


def _remarks(kept: list[tuple[int, list[Entry]]]) -> list[str]:
    """Pairs that are well formed and kept, and yet teach little."""
    same = [line for line, entries in kept if any(entry.answer == entry.rejected for entry in entries)]
    empty = [
        line
        for line, entries in kept
        if any(not (entry.answer or "").strip() or not (entry.rejected or "").strip() for entry in entries)
    ]
    found = ((same, "pairs whose two answers are the same"), (empty, "pairs with an empty answer"))
    return [f"{len(lines)} {what} ({_lines(lines)})" for lines, what in found if lines]


def _lines(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:_SHOWN_LINES])
    return f"lines {shown}{', ...' if len(numbers) > _SHOWN_LINES else ''}"

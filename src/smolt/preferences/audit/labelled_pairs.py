"""The preferences of a file with their lines and sources, each turned so that `better` is what the label prefers."""

from collections.abc import Mapping
from dataclasses import dataclass

from smolt.data import Context, DataSource, files, load
from smolt.errors import UserError

SOURCES = ("source", "kind", "dataset", "subset", "category", "type", "origin")
"""Columns that say where a pair comes from, looked for in this order."""

MOST_SOURCES = 40


@dataclass(frozen=True)
class LabelledPair:
    """One labelled pair.

    Attributes:
        line: of the file, from 1.
        context: the turns before the answers.
        better, worse: as the label says; of a tie, chosen and rejected.
        tie: whether the label's weight is a half.
        source: where it comes from, "" where nothing says.
    """

    line: int
    context: Context
    better: str
    worse: str
    tie: bool = False
    source: str = ""

    @property
    def asked(self) -> str:
        """The text of the context."""
        return "\n".join(turn.content for turn in self.context)


@dataclass(frozen=True)
class LabelledPairs:
    """The pairs of a file, its name, the column of the sources (None where there is none), and rows left out."""

    items: list[LabelledPair]
    path: str
    source_field: str | None
    skipped: int


def read_items(data: DataSource, source_field: str | None = None) -> LabelledPairs:
    """Read preferences for an audit.

    Args:
        data: the file and how to read it.
        source_field: the column of the sources, dotted for a field inside one (`metadata.origin`); looked for if None.

    Raises:
        UserError: the file cannot be read, or `source_field` is in none of its rows.
    """
    loaded = load(data, "preferences")
    table = {line.number: line.row or {} for line in files.read(str(data.path), data.split).lines}
    field = source_field or _source_column([table[line] for line in loaded.lines])
    found = [_source(table[line], field) for line in loaded.lines]
    if source_field and not any(found):
        raise UserError(f"{loaded.path}: source: no row has a field {source_field!r}")
    items = []
    for line, record, source in zip(loaded.lines, loaded.records, found, strict=True):
        sides = record.likelier_first
        tie = record.weight == 0.5
        items.append(LabelledPair(line, record.context, sides.chosen, sides.rejected, tie, source))
    return LabelledPairs(items, loaded.path, field, len(loaded.skipped))


def _source_column(table: list[Mapping[str, object]]) -> str | None:
    """The first known column that splits the rows into some groups."""
    for field in SOURCES:
        values = {_source(row, field) for row in table}
        if 1 < len(values) <= MOST_SOURCES:
            return field
    return None


def _source(row: Mapping[str, object], field: str | None) -> str:
    value: object = row if field is not None else ""
    for name in field.split(".") if field is not None else ():
        value = value.get(name) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)[:60]

"""A finding (a Panel) and measures as words for a terminal, their texts inert, and a finding as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import ProgressColumn, Task
from rich.table import Column
from rich.table import Table as Grid
from rich.text import Text

from smolt.report import tables, wording
from smolt.report.inert import visible
from smolt.report.panels import Panel, Table
from smolt.statistics import Measure


def panel_words(panel: Panel) -> str:
    """The finding as plain text: sentences, warnings, tables."""
    said = "\n".join([*panel.sentences, *(f"warning: {warning}" for warning in panel.warnings)])
    return "\n\n".join(part for part in (visible(said), *map(table_words, panel.tables)) if part)


def panel_facts(figures: object, panel: Panel) -> dict[str, Any]:
    """The figures (a dataclass) as JSON fields, and what the finding says."""
    facts = asdict(figures) if is_dataclass(figures) and not isinstance(figures, type) else {}
    return {**facts, "sentences": list(panel.sentences), "warnings": list(panel.warnings)}


def table_words(table: Table) -> str:
    """A table with its columns aligned, names to the left and numbers to the right; the caption is the page's."""
    view = tables.panel_table(table)
    rows = [[visible(name) for name in table.columns], *([visible(cell.text) for cell in row] for row in view["rows"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.columns))]
    lines = [
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(found))
        for found in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join([visible(view["caption"]), *(f"  {line.rstrip()}" for line in lines)])


def measure_grid(first: str, value: str, measures: Mapping[str, Measure]) -> Grid:
    """A row a measure: its value, 95 % interval, n and the method of the interval.

    Args:
        first: heading of the names.
        value: heading of the values.
        measures: by the name that is shown.
    """
    table = grid(first, value, "95 % interval", "n")
    table.add_column("interval by")
    for name, measure in measures.items():
        numbers = wording.value_text(measure), wording.range_text(measure), f"{measure.n:,}"
        add_row(table, [name, *numbers, wording.method(measure)])
    return table


def grid(first: str, *columns: str) -> Grid:
    """A table whose first column alone gives way where the terminal is narrow."""
    table = Grid(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(Text(inert(first)), overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def add_row(table: Grid, cells: Sequence[str]) -> None:
    """A row of text, made inert."""
    table.add_row(*(Text(inert(cell)) for cell in cells))


def inert(text: str) -> str:
    """Text of a file on one line, with nothing in it that a terminal would obey."""
    return visible(" ".join(text.split()))


@dataclass(frozen=True)
class Items:
    """A line of items, two spaces between them: the first ones, as many as fit whole, and one in any case."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The line, in the width there is."""
        items = self.text.split("  ")
        while len(items) > 1 and len("  ".join(items)) > options.max_width:
            items.pop()
        yield Text("  ".join(items), no_wrap=True, overflow="ellipsis")


class WholeItems(ProgressColumn):
    """A task's field of `Items`."""

    def __init__(self, field: str, table_column: Column) -> None:
        super().__init__(table_column)
        self._field = field

    def render(self, task: Task) -> Items:
        """What the field holds now."""
        return Items(task.fields[self._field])

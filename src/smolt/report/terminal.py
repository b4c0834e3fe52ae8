"""A finding (a Panel) as words for a terminal, its texts inert, and as JSON."""

from dataclasses import asdict, is_dataclass
from typing import Any

from smolt.report.inert import visible
from smolt.report.panels import Cell, Panel, Table
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
    """A table with its columns aligned: names to the left, numbers to the right."""
    rows = [[cell_words(cell, table.rate) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.columns))]
    lines = [
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(found))
        for found in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join([visible(table.caption), *(f"  {line.rstrip()}" for line in lines)])


def cell_words(cell: Cell, rate: bool) -> str:
    """A cell: a measure as `0.50 [0.37, 0.63] n=50`, shares in percent, None as `none`."""
    if cell is None:
        return "none"
    if isinstance(cell, str):
        return visible(cell)
    if not isinstance(cell, Measure):
        return f"{cell:,}" if isinstance(cell, int) else f"{cell:.3g}"
    scale, decimals = (100, 1) if rate else (1, 2)
    value = f"{scale * cell.value:.{decimals}f}{' %' if rate else ''}"
    if cell.low is None or cell.high is None:
        return f"{value} n={cell.n}"
    return f"{value} [{scale * cell.low:.{decimals}f}, {scale * cell.high:.{decimals}f}] n={cell.n}"

"""Panels: findings in a form that every report can show (web page, Markdown, terminal) without knowing what they are.

An audit, a scenario suite or a judge's card says what it found as one Panel; how it looks is the report's business.
A Panel is plain data, so it is kept in the study's record and the report can be written again from it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from smolt.runs import jsontext
from smolt.statistics import Measure

FILE = "panels.json"

Cell = str | int | float | Measure | None
"""A number with an interval where there is one; None is an empty cell."""


def finite(measure: Measure) -> Measure | None:
    """The measure, None where its value is not finite; an interval with such an end is no interval."""
    if not math.isfinite(measure.value):
        return None
    known = all(end is None or math.isfinite(end) for end in (measure.low, measure.high))
    return measure if known else replace(measure, low=None, high=None)


def _shown(cell: Cell) -> Cell:
    if isinstance(cell, Measure):
        return finite(cell)
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


@dataclass(frozen=True)
class Table:
    """Rows under named columns. A number that is not finite becomes None: JSON has none, and neither has a reader.

    Attributes:
        caption: one sentence: what is listed, and what its numbers are of.
        columns: names; the first column names the rows.
        rows: one cell a column.
        rate: whether the numbers are shares in 0..1, shown in percent.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    rate: bool = False

    def __post_init__(self) -> None:
        """Keep what can be shown and written."""
        object.__setattr__(self, "rows", tuple(tuple(_shown(cell) for cell in row) for row in self.rows))


@dataclass(frozen=True)
class Series:
    """Named points of a chart; `low` and `high` (as long as `y`, or empty) are their 95 % intervals.

    A point whose place is not finite is left out, with its label; an end of an interval that is not finite is None.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Keep what can be drawn and written."""
        xs = self.x or (0.0,) * len(self.y)
        points = zip(xs, self.y, strict=True)
        kept = [place for place, point in enumerate(points) if all(map(math.isfinite, point))]
        for name in ("x", "y", "low", "high", "labels"):
            column = getattr(self, name)
            values = tuple(column[place] for place in kept) if column else ()
            if name in ("low", "high"):
                values = tuple(None if end is None or not math.isfinite(end) else end for end in values)
            object.__setattr__(self, name, values)


def measured_series(
    name: str,
    measures: Sequence[Measure],
    x: Sequence[float] = (),
    labels: Sequence[str] = (),
    scale: float = 1.0,
) -> Series:
    """Measures as points with their intervals: at 0, 1, 2, ... unless x says where, times `scale` (100 for percent)."""
    ends = [[None if end is None else scale * end for end in (found.low, found.high)] for found in measures]
    return Series(
        name,
        x=tuple(x) or tuple(map(float, range(len(measures)))),
        y=tuple(scale * found.value for found in measures),
        low=tuple(low for low, _ in ends),
        high=tuple(high for _, high in ends),
        labels=tuple(labels),
    )


@dataclass(frozen=True)
class Chart:
    """A picture of some series.

    Attributes:
        name: of its files: letters, digits and hyphens, unique in a report.
        caption: one sentence: what is seen, and what good looks like.
        kind: lines joins the points of a series, points does not, bars stands one bar a label and series side by side.
        x: axis title with its unit, likewise y.
        diagonal: draw y = x, which a calibrated probability follows.
        log: a logarithmic x axis, for lines and points whose x are above 0.
        even: the value of bars that says nothing, such as a win rate of 50 %: a dashed line stands there.
    """

    name: str
    caption: str
    kind: Literal["lines", "points", "bars"]
    x: str
    y: str
    series: tuple[Series, ...]
    diagonal: bool = False
    log: bool = False
    even: float | None = None


@dataclass(frozen=True)
class Panel:
    """One finding with its evidence.

    Attributes:
        name: letters, digits and hyphens, unique in a report; also the anchor of the page.
        title: what it is about, as a heading.
        sentences: what was found, generated from the numbers, the most important first.
        warnings: what must not be overlooked (an alarm, an unreliable judge); shown in the verdict too.
        tables: the numbers.
        charts: the pictures.
        tests: how many paired comparisons stand in its tables that are none of the record's own.
    """

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    tests: int = 0


_PANELS = TypeAdapter(list[Panel])


def write_panels(folder: Path, panels: Sequence[Panel]) -> None:
    """Leave findings beside what they are about, so that a study's report can show them.

    Raises:
        StorageError: the disk is full or failing; an earlier file is intact.
    """
    jsontext.write(folder / FILE, [asdict(panel) for panel in panels])


def read_panels(folder: Path) -> list[Panel]:
    """What `write_panels` left there, nothing where it left nothing.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / FILE
    return _PANELS.validate_json(path.read_bytes()) if path.is_file() else []


_PANEL = TypeAdapter(Panel)


def panel_name(text: str) -> str:
    """A text as the name of a panel: letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


def read_panel(plain: dict[str, Any]) -> Panel:
    """A panel from the plain data that `dataclasses.asdict` made of one.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return _PANEL.validate_python(plain)

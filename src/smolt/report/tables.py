"""What the tables of the page hold, as finished text and places in percent; the template decides where it stands."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smolt.report import wording
from smolt.report.analysis import Analysis
from smolt.report.pairing import Compared
from smolt.report.panels import Cell as PanelCell
from smolt.report.panels import Table
from smolt.report.record import Arm, StudyRecord
from smolt.statistics import Comparison, Measure, format_difference, shown

WAYS = {
    True: (("both", "both right"), ("win", "win"), ("loss", "regression"), ("neither", "both wrong")),
    False: (("win", "win"), ("neither", "tie"), ("loss", "regression")),
}
"""Whether the metric is right or wrong -> the parts of the chart of a comparison, from the left."""

NUMERIC = r"(no interval|[\d\s.,:/%+\u2212\u00a0-]|to|GiB|MiB|min|s|h|k|M)*"
"""A text that stands where numbers stand: to the right."""


@dataclass(frozen=True)
class Cell:
    """One measure in a table; all of it text."""

    value: str
    interval: str = ""
    n: str = ""
    numeric: bool = True

    @property
    def text(self) -> str:
        """Value and interval on one line."""
        return f"{self.value} [{self.interval}]" if self.interval else self.value


def arm_row(arm: Arm, analysis: Analysis, metrics: Sequence[str], reach: tuple[float, float]) -> dict[str, Any]:
    """An arm's measures; `bar` places the first metric's interval on the axis that all arms share."""
    found = analysis.measures[arm.name]
    cells = {}
    for metric in metrics:
        measure = found.get(metric)
        if measure is not None:
            own_n = f"n {measure.n:,}" if measure.n != len(arm.items) else ""
            cells[metric] = Cell(wording.value_text(measure), wording.range_text(measure), own_n)
    first = found.get(metrics[0]) if metrics else None
    return {
        "arm": arm,
        "cells": cells,
        "n": f"{len(arm.items):,}" if arm.items else "",
        "bar": None if first is None else _arm_bar(first, reach),
    }


def arm_axis(analysis: Analysis, metric: str) -> tuple[float, float]:
    """The ends of the axis on which the arms' intervals are drawn: round numbers about all of them."""
    found = [measures[metric] for measures in analysis.measures.values() if metric in measures]
    ends = [end for measure in found for end in (measure.value, measure.low, measure.high) if end is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - margin, high + margin


def _arm_bar(measure: Measure, reach: tuple[float, float]) -> dict[str, str]:
    low, high = (measure.value if end is None else end for end in (measure.low, measure.high))
    start, width = reach[0], reach[1] - reach[0]
    places = {"low": low, "middle": measure.value, "high": high}
    bar = {name: _percent((value - start) / width) for name, value in places.items()}
    return bar | {"zero": _percent(-start / width) if start <= 0 <= reach[1] else ""}


def cost_rows(record: StudyRecord) -> list[dict[str, Any]]:
    """What each arm cost and what all cost together; empty where nothing was measured."""
    priced = [arm for arm in record.arms if arm.cost]
    total = total_cost(record)
    seconds = total.get("seconds", 0.0)
    rows = [
        _cost_row(arm.name, arm.cost)
        | {"total": False, "share": _percent(arm.cost.get("seconds", 0.0) / seconds) if seconds else ""}
        for arm in priced
    ]
    return [*rows, _cost_row("", total) | {"total": True, "share": ""}] if rows else []


def total_cost(record: StudyRecord) -> dict[str, int | float]:
    """Seconds and tokens of all arms summed, the highest memory; what nobody measured is left out."""
    total: dict[str, int | float] = {}
    for arm in record.arms:
        for name in ("seconds", "tokens"):
            if name in arm.cost:
                total[name] = total.get(name, 0.0) + arm.cost[name]
        if "peak_memory" in arm.cost:
            total["peak_memory"] = max(total.get("peak_memory", 0.0), arm.cost["peak_memory"])
    return total


def _cost_row(name: str, cost: dict[str, int | float]) -> dict[str, Any]:
    return {
        "name": name,
        "seconds": wording.duration(cost["seconds"]) if "seconds" in cost else "",
        "tokens": wording.amount(cost["tokens"]) if "tokens" in cost else "",
        "memory": wording.memory(cost["peak_memory"]) if "peak_memory" in cost else "",
    }


def families(comparisons: Sequence[Compared]) -> list[tuple[str, tuple[tuple[str, str], ...], list[dict[str, Any]]]]:
    """The comparisons under the metric and the test they share: heading, legend of the chart, rows."""
    found: dict[str, list[Compared]] = {}
    for compared in comparisons:
        heading = f"{wording.title(compared.comparison.metric)}, {compared.comparison.test}"
        found.setdefault(heading, []).append(compared)
    return [
        (heading, WAYS[entries[0].both_right is not None], [comparison_row(entry, comparisons) for entry in entries])
        for heading, entries in found.items()
    ]


def comparison_row(compared: Compared, comparisons: Sequence[Compared]) -> dict[str, Any]:
    """A row of the comparisons' table; `bar` places its interval on the axis that all rows of the metric share."""
    comparison = compared.comparison
    unit = " points" if comparison.rate else ""
    numbers = [
        None if value is None else wording.signed(format_difference(value, comparison))
        for value in (comparison.difference, comparison.low, comparison.high)
    ]
    return {
        "comparison": comparison,
        "against": compared.against,
        "difference": "" if numbers[0] is None else numbers[0] + unit,
        "interval": "no interval" if None in numbers else f"{numbers[1]} to {numbers[2]}",
        "bar": _difference_bar(comparison, comparisons),
        "p_value": wording.p_text(comparison.p_value),
        "p_holm": wording.p_text(comparison.p_holm),
        "shown": shown(comparison),
        "detectable": _detectable(comparison),
        "n": f"{comparison.n:,}",
        "parts": _parts(compared),
        "counts": counts_text(compared),
    }


def counts_text(compared: Compared) -> str:
    """The four counts of a comparison (three where the metric is no rate) in words."""
    comparison = compared.comparison
    won, lost = f"{comparison.wins:,} won", f"{comparison.regressions:,} lost"
    if compared.both_right is None:
        return f"{won}, {comparison.ties:,} tied, {lost}"
    return f"{compared.both_right:,} both right, {won}, {lost}, {comparison.ties - compared.both_right:,} both wrong"


def _parts(compared: Compared) -> list[dict[str, str]]:
    """The chart of a comparison: its questions as one bar, cut by outcome."""
    comparison, right = compared.comparison, compared.both_right
    counts = {
        "both": right or 0,
        "win": comparison.wins,
        "loss": comparison.regressions,
        "neither": comparison.ties - (right or 0),
    }
    parts, start = [], 0.0
    for name, _ in WAYS[right is not None]:
        width = counts[name] / comparison.n if comparison.n else 0.0
        if width:
            parts.append({"name": name, "start": _percent(start), "width": _percent(width)})
        start += width
    return parts


def _detectable(comparison: Comparison) -> str:
    smallest = comparison.minimum_detectable
    if smallest is None or comparison.p_value is None:
        return ""
    return f"{100 * smallest:.1f} points" if comparison.rate else wording.number(smallest)


def _difference_bar(comparison: Comparison, comparisons: Sequence[Compared]) -> dict[str, str] | None:
    """Where the interval's ends and its middle stand; 0 stands at 50 %."""
    if comparison.low is None or comparison.high is None or comparison.difference is None:
        return None
    same = [entry.comparison for entry in comparisons if entry.comparison.metric == comparison.metric]
    bounds = [abs(bound) for entry in same for bound in (entry.low, entry.high) if bound is not None]
    reach = max(bounds) or 1.0
    places = {"low": comparison.low, "middle": comparison.difference, "high": comparison.high}
    return {name: _percent(0.5 + 0.47 * bound / reach) for name, bound in places.items()} | {"zero": "50%"}


def panel_table(table: Table) -> dict[str, Any]:
    """A panel's table: what all its numbers share (n, how the intervals are made) goes into the caption."""
    measures = [cell for row in table.rows for cell in row if isinstance(cell, Measure)]
    sizes, sources = {measure.n for measure in measures}, {wording.method(measure) for measure in measures}
    caption = table.caption
    if len(sizes) == 1:
        caption += f" n\u00a0=\u00a0{next(iter(sizes)):,}."
    if sources:
        caption += f" Intervals: {', '.join(sorted(sources))}."
    rows = [[panel_cell(cell, table.rate, len(sizes) > 1) for cell in row] for row in table.rows]
    numeric = [all(row[place].numeric for row in rows if place < len(row)) for place in range(len(table.columns))]
    columns = [
        {"title": title, "numeric": number and place > 0}
        for place, (title, number) in enumerate(zip(table.columns, numeric, strict=True))
    ]
    return {"caption": caption, "columns": columns, "rows": rows}


def panel_cell(cell: PanelCell, rate: bool, with_n: bool) -> Cell:
    """One cell of a panel's table."""
    if cell is None:
        return Cell("")
    if isinstance(cell, Measure):
        own_n = f", n {cell.n:,}" if with_n else ""
        return Cell(wording.value_text(cell, rate), wording.range_text(cell, rate) + own_n, f"{cell.n:,}")
    if isinstance(cell, str):
        return Cell(cell, numeric=bool(re.fullmatch(NUMERIC, cell)))
    if isinstance(cell, int):
        return Cell(f"{cell:,}")
    return Cell(f"{wording.number(100 * cell, 1)} %" if rate else wording.number(cell))


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"

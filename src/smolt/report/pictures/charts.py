"""The charts of panels: lines, points and bars, each number with its interval where it has one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import FuncFormatter

from smolt.report.panels import Chart, Series
from smolt.report.pictures.drawing import LIGHT, Picture, file_name, label, legend, picture

MOST_POINTS = 400
MARKED = 20  # a line of at most so many points shows them
MOST_BARS = 40
DASHED = (0, (4, 3))


@dataclass(frozen=True)
class _Point:
    x: float
    y: float
    low: float | None
    high: float | None
    label: str


def draw(chart: Chart, panel: str, places: Mapping[str, int]) -> Picture | None:
    """A chart's picture; None where no point is a finite number.

    A series named after an arm has the arm's colour; so has `ARM, ...`, such as its course while it was trained.
    """
    found = [(series.name, _points(series, chart.kind)) for series in chart.series]
    drawn = [(name, points) for name, points in found if points]
    if not drawn:
        return None
    bars = chart.kind == "bars"
    names = [name for name, _ in drawn]
    beside = {point.label for _, points in drawn for point in points} if bars else set()
    colours = dict(zip(names, _colours(names, beside, places), strict=True))

    def paint(axes: Any) -> None:
        if bars:
            _bars(axes, drawn, colours)
            if chart.even is not None:
                axes.axvline(chart.even, color=LIGHT.ink, linewidth=1.0, linestyle=DASHED)
        else:
            for name, points in drawn:
                _trace(axes, points, colours[name], joined=chart.kind == "lines")
            _dots(axes, drawn if chart.kind == "points" else [], colours)
            _straight(axes, chart)
        axes.set_xlabel(label(chart.y if bars else chart.x, 60))
        if not bars:
            axes.set_ylabel(label(chart.y, 44))
        if not (bars and all(point.label == name for name, points in drawn for point in points)):
            legend(axes, list(colours.items()))

    listed = ", ".join(names[:8])
    alt = f"{chart.y} against {chart.x}: {listed}" if not bars else f"{chart.y}: {listed}"
    height = _height(drawn) if bars else 3.3
    return picture(f"{file_name(panel)}-{file_name(chart.name)}", "", "", chart.caption, alt, height, paint)


def _points(series: Series, kind: str) -> list[_Point]:
    """The finite points of a series, thinned where there are more than can be seen."""
    count = len(series.y)
    xs = series.x or tuple(float(place) for place in range(count))
    lows, highs = series.low or (None,) * count, series.high or (None,) * count
    labels = series.labels or ("",) * count
    rows = [_Point(*row) for row in zip(xs, series.y, lows, highs, labels, strict=False)]
    finite = [row for row in rows if math.isfinite(row.x) and math.isfinite(row.y)]
    stride = -(-len(finite) // (MOST_BARS if kind == "bars" else MOST_POINTS))
    return finite[:MOST_BARS] if kind == "bars" else finite[:: max(1, stride)]


def _colours(names: list[str], beside: set[str], places: Mapping[str, int]) -> list[str]:
    """An arm's own colour, else those that no arm of this chart has, in order, nor one that names a bar (`beside`)."""
    known = [places.get(name, places.get(name.partition(", ")[0])) for name in names]
    taken = {place for place in (*known, *map(places.get, beside)) if place is not None}
    free = [place for place in range(1, len(LIGHT.arms)) if place not in taken]
    free = free if len(free) >= known.count(None) else list(range(1, len(LIGHT.arms)))
    if not taken and len(names) > 1:
        free = [*free[:1], 2, *free[2:]]
    spare = iter(free * len(names))
    return [LIGHT.arms[next(spare) if place is None else place] for place in known]


def _trace(axes: Any, points: list[_Point], colour: str, joined: bool) -> None:
    xs, ys = [point.x for point in points], [point.y for point in points]
    few = len(points) <= MARKED
    for point in points if few else []:
        if point.low is not None and point.high is not None:
            axes.plot([point.x] * 2, [point.low, point.high], color=colour, linewidth=1.3, solid_capstyle="round")
    if joined and len(points) > 1:
        axes.plot(xs, ys, color=colour, linewidth=1.5)
    if few:
        axes.scatter(xs, ys, s=30, color=colour, zorder=3)
    for point in points if few else []:
        if point.label:
            axes.annotate(label(point.label), (point.x, point.y), xytext=(6, 5), textcoords="offset points", fontsize=8)


def _dots(axes: Any, drawn: list[tuple[str, list[_Point]]], colours: Mapping[str, str]) -> None:
    """The points of long series, drawn by turns, so that the dots of none of them lie below those of the others."""
    turns = sorted(
        (place / len(points), order, point.x, point.y, colours[name])
        for order, (name, points) in enumerate(drawn)
        if len(points) > MARKED
        for place, point in enumerate(points)
    )
    if turns:
        _, _, xs, ys, shades = zip(*turns, strict=True)
        axes.scatter(xs, ys, s=9, c=shades, alpha=0.45, linewidths=0)


def _straight(axes: Any, chart: Chart) -> None:
    """The grid, the diagonal and the scale of a chart of points or lines."""
    axes.grid(True, axis="both")
    if chart.log:
        axes.set_xscale("log", subs=(2, 5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if chart.diagonal:
        ends = [min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])]
        axes.plot(ends, ends, color=LIGHT.muted, linewidth=1.0, linestyle=DASHED, zorder=1)
        axes.set_xlim(*ends)
        axes.set_ylim(*ends)


def _height(drawn: list[tuple[str, list[_Point]]]) -> float:
    count = sum(len(points) for _, points in drawn)
    groups = max(len(points) for _, points in drawn)
    return 0.95 + 0.2 * count + 0.14 * groups


def _bars(axes: Any, drawn: list[tuple[str, list[_Point]]], colours: Mapping[str, str]) -> None:
    """One group a label, from the top; in it one bar a series."""
    labels = list(dict.fromkeys(point.label for _, points in drawn for point in points))
    position, ticks = 0.0, []
    for name in labels:
        first = position
        for series, points in drawn:
            for point in points:
                if point.label == name:
                    _bar(axes, point, position, colours[series])
                    position += 1.0
        ticks.append((first + position - 1) / 2)
        position += 0.7
    axes.set_yticks(ticks, [label(name) for name in labels])
    axes.invert_yaxis()
    axes.grid(True, axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.axvline(0, color=LIGHT.muted, linewidth=0.8)


def _bar(axes: Any, point: _Point, position: float, colour: str) -> None:
    axes.barh(position, point.y, height=0.74, color=colour, alpha=0.85)
    if point.low is not None and point.high is not None:
        axes.plot([point.low, point.high], [position] * 2, color=LIGHT.ink, linewidth=1.4, solid_capstyle="round")

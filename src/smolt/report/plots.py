"""The pictures of a report, each as SVG (light and dark, for the page) and PNG (light, for slides)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from smolt.report import guides, wording
from smolt.report.analysis import RATES, Analysis, rating
from smolt.report.guides import Panel
from smolt.report.records import StudyRecord
from smolt.statistics import Measure

WIDTH = 4.6  # inches; small, so that labels stay readable where a phone shrinks the picture
MOST_KINDS = 8
MOST_DOTS = 400


@dataclass(frozen=True)
class Theme:
    """Colours of a picture; `arms` are given out in order, the first to the baseline."""

    ink: str
    muted: str
    grid: str
    arms: tuple[str, ...]


LIGHT = Theme(
    ink="#22252b",
    muted="#6a6f7a",
    grid="#e6e3de",
    arms=("#7d838f", "#cf553b", "#2b7a8c", "#b58a2a", "#7b5a9e", "#5c8746", "#b35c86", "#4a62a8", "#8a6d52"),
)
DARK = Theme(
    ink="#e9e6e1",
    muted="#9a9ea8",
    grid="#34373d",
    arms=("#8f95a1", "#f08a70", "#58b0c2", "#d9b25c", "#ab8bd0", "#8cba74", "#dd8fb4", "#8ba3e0", "#bfa084"),
)


@dataclass(frozen=True)
class Picture:
    """A drawn picture: its file name without suffix, what it shows, and what good looks like (or nothing)."""

    name: str
    arm: str
    title: str
    caption: str
    alt: str
    light: bytes
    dark: bytes
    png: bytes


@dataclass(frozen=True)
class _Bar:
    label: str
    arm: str
    measure: Measure


def draw(record: StudyRecord, analysis: Analysis) -> tuple[list[Picture], list[Picture]]:
    """The comparing pictures and the curves that the record supports, in page order."""
    colours = arm_places(record)
    comparing = [_by_model(record, analysis, metric, colours) for metric in ("accuracy", "reward")]
    pictures = [*comparing, _by_kind(analysis, colours), _scatter(record, analysis, colours)]
    curves = [_curve(panel, colours) for arm in record.arms for panel in guides.panels(arm.name, arm.stage, arm.curve)]
    return [picture for picture in pictures if picture is not None], curves


def arm_places(record: StudyRecord) -> dict[str, int]:
    """Each arm's place in the list of colours: the baseline the first (grey), then candidates, controls, the rest."""
    order = ["candidate", "baseline", "control", "component"]
    ranked = sorted(record.arms, key=lambda arm: order.index(arm.role))
    others = [arm.name for arm in ranked if arm.name != record.baseline]
    count = len(LIGHT.arms)
    places = {name: 1 + place % (count - 1) for place, name in enumerate(others)}
    return places | ({record.baseline: 0} if record.baseline else {})


def _by_model(record: StudyRecord, analysis: Analysis, metric: str, places: dict[str, int]) -> Picture | None:
    found = [(arm.name, analysis.measures[arm.name].get(metric)) for arm in record.arms]
    bars = [_Bar(_label(name), name, measure) for name, measure in found if measure is not None]
    if not bars:
        return None

    def paint(axes: Any, theme: Theme) -> None:
        _bars(axes, theme, [[bar] for bar in bars], [bar.label for bar in bars], metric, places)

    title = f"{wording.title(metric)} by model"
    stated = "; ".join(f"{bar.arm} {wording.measured(metric, bar.measure)}" for bar in bars)
    caption = "Bars are means over answers; lines are 95 % intervals. Overlap of two lines is not the paired test."
    return _picture(f"{metric}_by_model", "", title, caption, stated, 0.75 + 0.42 * len(bars), paint)


def _by_kind(analysis: Analysis, places: dict[str, int]) -> Picture | None:
    metric = analysis.headline
    kinds = list(analysis.by_kind.items())[:MOST_KINDS]
    if not kinds:
        return None
    groups = [[_Bar(_label(kind), arm, measure) for arm, measure in cells.items()] for kind, cells in kinds]

    def paint(axes: Any, theme: Theme) -> None:
        _bars(axes, theme, groups, [_label(kind or "(no kind)") for kind, _ in kinds], metric, places)
        _legend(axes, theme, list(dict.fromkeys(bar.arm for group in groups for bar in group)), places)

    left_out = len(analysis.by_kind) - len(kinds)
    caption = "Means and 95 % intervals within each kind of question; not adjusted for looking at many kinds."
    if left_out:
        caption += f" {left_out} smaller kinds are not drawn."
    title = f"{wording.title(metric)} by kind of question"
    height = 1.0 + sum(0.14 + 0.17 * len(group) for group in groups)
    return _picture(f"{metric}_by_kind", "", title, caption, title, height, paint)


def _scatter(record: StudyRecord, analysis: Analysis, places: dict[str, int]) -> Picture | None:
    found = analysis.length_reward
    if not found:
        return None
    dots: dict[str, list[tuple[int, float]]] = {}
    for arm in record.arms:
        rows = [(item.tokens, value) for item in arm.items if (value := rating(item, "reward")) is not None]
        if arm.name in found:
            dots[arm.name] = rows[:: max(1, -(-len(rows) // MOST_DOTS))]

    def paint(axes: Any, theme: Theme) -> None:
        for name, rows in dots.items():
            lengths, rewards = [length for length, _ in rows], [reward for _, reward in rows]
            colour = theme.arms[places[name]]
            axes.scatter(lengths, rewards, s=9, color=colour, alpha=0.45, linewidths=0, rasterized=True)
        axes.set_xlabel("answer length, tokens")
        axes.set_ylabel("reward")
        axes.grid(True, axis="both")
        _legend(axes, theme, list(dots), places)

    stated = "; ".join(f"{name} r = {wording.number(r.value, 2)}" for name, r in found.items())
    title = "Length against reward"
    caption = f"Correlation: {stated}. Near 0, length does not buy reward; well above 0, the reward likes long answers."
    return _picture("length_reward", "", title, caption, f"Correlation of length and reward: {stated}", 3.2, paint)


def _curve(panel: Panel, places: dict[str, int]) -> Picture:
    steps, values = [step for step, _ in panel.points], [value for _, value in panel.points]

    def paint(axes: Any, theme: Theme) -> None:
        colour = theme.arms[places[panel.arm]]
        if len(values) > 20:
            axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.35)
            axes.plot(steps, _smooth(values), color=colour, linewidth=1.8)
        else:
            axes.plot(steps, values, color=colour, linewidth=1.8)
        if panel.held_out:
            dots = [step for step, _ in panel.held_out], [value for _, value in panel.held_out]
            axes.plot(*dots, color=theme.ink, linewidth=1.0, marker="o", markersize=3.2)
        axes.grid(True, axis="y")
        axes.set_xlabel("update")

    alt = f"{panel.metric} of {panel.arm}: from {wording.number(values[0])} to {wording.number(values[-1])}"
    if panel.held_out:
        alt += f"; held out, {wording.number(panel.held_out[-1][1])} at the end"
    name = f"curve_{_file_name(panel.arm)}_{_file_name(panel.metric)}"
    return _picture(name, panel.arm, panel.title, panel.good, alt, 1.75, paint, width=3.1)


def _smooth(values: Sequence[float]) -> list[float]:
    """A centred running mean over a tenth of the run."""
    reach = max(1, len(values) // 20)
    windows = [values[max(0, place - reach) : place + reach + 1] for place in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _bars(
    axes: Any, theme: Theme, groups: list[list[_Bar]], labels: list[str], metric: str, places: dict[str, int]
) -> None:
    """Horizontal bars in groups from the top, each with its interval and, where every group is one bar, its value."""
    scale = 100.0 if metric in RATES else 1.0
    position, ticks = 0.0, []
    single = all(len(group) == 1 for group in groups)
    for group in groups:
        first = position
        for bar in group:
            _bar(axes, theme, bar, position, scale, theme.arms[places[bar.arm]])
            if single:
                _value(axes, bar, position, scale, metric)
            position += 1.0
        ticks.append((first + position - 1) / 2)
        position += 0.7
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + (0.16 * (right - left) if single else 0.0))
    axes.set_yticks(ticks, labels)
    axes.invert_yaxis()
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["bottom"].set_visible(False)
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    axes.set_xlabel(f"{wording.title(metric).lower()}, %" if metric in RATES else wording.title(metric).lower())


def _bar(axes: Any, theme: Theme, bar: _Bar, position: float, scale: float, colour: str) -> None:
    axes.barh(position, scale * bar.measure.value, height=0.72, color=colour, alpha=0.85)
    if bar.measure.low is not None and bar.measure.high is not None:
        axes.plot(
            [scale * bar.measure.low, scale * bar.measure.high],
            [position, position],
            color=theme.ink,
            linewidth=1.4,
            solid_capstyle="round",
        )


def _value(axes: Any, bar: _Bar, position: float, scale: float, metric: str) -> None:
    """The bar's number, to the right of bar and interval."""
    end = scale * max(0.0, bar.measure.value, bar.measure.high or 0.0)
    text = wording.measured(metric, bar.measure)
    axes.annotate(text, (end, position), xytext=(5, 0), textcoords="offset points", va="center")


def _legend(axes: Any, theme: Theme, arms: Sequence[str], places: dict[str, int]) -> None:
    handles = [axes.scatter([], [], s=26, marker="s", color=theme.arms[places[name]]) for name in arms]
    axes.figure.legend(
        handles,
        [_label(name) for name in arms],
        loc="outside upper left",
        ncols=min(3, len(arms)),
        frameon=False,
        fontsize=8.5,
        handletextpad=0.2,
        columnspacing=1.2,
    )


def _picture(
    name: str,
    arm: str,
    title: str,
    caption: str,
    alt: str,
    height: float,
    paint: Callable[[Any, Theme], None],
    width: float = WIDTH,
) -> Picture:
    light = _render(paint, LIGHT, width, height, "svg")
    dark = _render(paint, DARK, width, height, "svg")
    png = _render(paint, LIGHT, width, height, "png")
    return Picture(name, arm, title, caption, alt, light, dark, png)


def _render(paint: Callable[[Any, Theme], None], theme: Theme, width: float, height: float, kind: str) -> bytes:
    with matplotlib.rc_context(_settings(theme)):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        paint(axes, theme)
        buffer = BytesIO()
        metadata = {"Date": None} if kind == "svg" else {}
        paper = "none" if kind == "svg" else "white"
        figure.savefig(buffer, format=kind, dpi=200, facecolor=paper, metadata=metadata)
    return buffer.getvalue()


def _settings(theme: Theme) -> dict[str, Any]:
    """Text is drawn as shapes and never read as mathematics, so a name from a recipe cannot become markup."""
    return {
        "text.parse_math": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "smolt",
        "font.family": ["DejaVu Sans"],
        "font.size": 9,
        "text.color": theme.ink,
        "axes.labelcolor": theme.muted,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": "none",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.unicode_minus": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "xtick.color": theme.muted,
        "ytick.color": theme.ink,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
    }


def _label(text: str) -> str:
    """A name that the font can draw, at most 22 characters long."""
    drawable = "".join(c if c.isprintable() and ord(c) < 0x500 else f"\\u{ord(c):04x}" for c in text)
    return drawable if len(drawable) <= 22 else drawable[:21] + "\u2026"


def _file_name(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "_" for c in text)[:60]

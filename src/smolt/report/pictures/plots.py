"""The pictures of a report: arms side by side, kinds of questions, training curves, and the charts of panels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.ticker import MaxNLocator

from smolt.report import wording
from smolt.report.analysis import Analysis
from smolt.report.pairing import RATES
from smolt.report.panels import Panel
from smolt.report.pictures import charts
from smolt.report.pictures.curves import Curve, curves_of, running_mean
from smolt.report.pictures.drawing import LIGHT, Picture, file_name, label, picture
from smolt.report.record import StudyRecord
from smolt.statistics import Measure


@dataclass(frozen=True)
class Pictures:
    """Everything drawn for a report.

    Attributes:
        arms: one bar an arm, for slides and for Markdown; the page has the same in its table.
        curves: training curves, each of one arm.
        panels: panel name -> the pictures of its charts, in order.
    """

    arms: list[Picture] = field(default_factory=list)
    curves: list[Picture] = field(default_factory=list)
    panels: dict[str, list[Picture]] = field(default_factory=dict)

    @property
    def all(self) -> list[Picture]:
        """All of them, for saving."""
        return [*self.arms, *self.curves, *(drawn for found in self.panels.values() for drawn in found)]


def draw(record: StudyRecord, analysis: Analysis, panels: Sequence[Panel]) -> Pictures:
    """The pictures that the record supports."""
    places = arm_places(record)
    metrics = [metric for metric in ("accuracy", "reward") if metric not in analysis.repeats]
    comparing = [_by_model(record, analysis, metric, places) for metric in metrics]
    curves = [_curve(panel, places) for arm in record.arms for panel in curves_of(arm.name, arm.stage, arm.curve)]
    drawn = {panel.name: [charts.draw(chart, panel.name, places) for chart in panel.charts] for panel in panels}
    return Pictures(
        [shown for shown in comparing if shown is not None],
        curves,
        {name: [shown for shown in found if shown is not None] for name, found in drawn.items()},
    )


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
    bars = [(name, measure) for name, measure in found if measure is not None]
    if not bars:
        return None
    scale = 100.0 if metric in RATES else 1.0

    def paint(axes: Any) -> None:
        for position, (name, measure) in enumerate(bars):
            axes.barh(position, scale * measure.value, height=0.72, color=LIGHT.arms[places[name]], alpha=0.85)
            _interval(axes, measure, position, scale)
            _value(axes, measure, position, scale)
        left, right = axes.get_xlim()
        axes.set_xlim(left, right + 0.16 * (right - left))
        axes.set_yticks(range(len(bars)), [label(name) for name, _ in bars])
        axes.invert_yaxis()
        axes.grid(True, axis="x")
        axes.spines["bottom"].set_visible(False)
        axes.axvline(0, color=LIGHT.muted, linewidth=0.8)
        axes.set_xlabel(f"{wording.title(metric).lower()}, %" if metric in RATES else wording.title(metric).lower())

    title = f"{wording.title(metric)} by model"
    stated = "; ".join(f"{name} {wording.value_text(measure)}" for name, measure in bars)
    caption = "Bars are means over answers; lines are 95 % intervals. Overlap of two lines is not the paired test."
    return picture(f"{metric}_by_model", "", title, caption, stated, 0.75 + 0.42 * len(bars), paint)


def _interval(axes: Any, measure: Measure, position: float, scale: float) -> None:
    if measure.low is not None and measure.high is not None:
        ends = [scale * measure.low, scale * measure.high]
        axes.plot(ends, [position] * 2, color=LIGHT.ink, linewidth=1.4, solid_capstyle="round")


def _value(axes: Any, measure: Measure, position: float, scale: float) -> None:
    """The bar's number, to the right of bar and interval."""
    end = scale * max(0.0, measure.value, measure.high or 0.0)
    axes.annotate(wording.value_text(measure), (end, position), xytext=(5, 0), textcoords="offset points", va="center")


def _curve(panel: Curve, places: dict[str, int]) -> Picture:
    steps, values = [step for step, _ in panel.points], [value for _, value in panel.points]

    def paint(axes: Any) -> None:
        colour = LIGHT.arms[places[panel.arm]]
        if len(values) > 20:
            axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.35)
            axes.plot(steps, running_mean(values), color=colour, linewidth=1.8)
        else:
            axes.plot(steps, values, color=colour, linewidth=1.8)
        if panel.held_out:
            dots = [step for step, _ in panel.held_out], [value for _, value in panel.held_out]
            axes.plot(*dots, color=LIGHT.ink, linewidth=1.0, marker="o", markersize=3.2)
            for step, low, high in panel.ends:
                axes.plot([step] * 2, [low, high], color=LIGHT.ink, linewidth=0.8, alpha=0.6)
        axes.grid(True, axis="y")
        axes.set_xlabel("update")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))

    alt = f"{panel.metric} of {panel.arm}: from {wording.number(values[0])} to {wording.number(values[-1])}"
    if panel.held_out:
        alt += f"; held out, {_stated_at_the_end(panel)} at the end"
    name = f"curve_{file_name(panel.arm)}_{file_name(panel.metric)}"
    return picture(name, panel.arm, panel.title, panel.good, alt, 1.75, paint, width=3.1)


def _stated_at_the_end(panel: Curve) -> str:
    """What was last measured on held-out data, with its interval."""
    step, value = panel.held_out[-1]
    ends = [(low, high) for place, low, high in panel.ends if place == step]
    return wording.stated(Measure(value, *ends[0], 0, "")) if ends else wording.number(value)

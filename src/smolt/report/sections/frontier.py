"""What an arm gained for the distance it went: accuracy or reward against sqrt KL, beside best-of-n's bound."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from smolt.report import wording
from smolt.report.analysis import Analysis
from smolt.report.pairing import RATES
from smolt.report.panels import Chart, Panel, Series, Table, measured_series
from smolt.report.record import Arm, StudyRecord
from smolt.statistics import Measure

STRETCHES = 12  # points of a run's course; single updates scatter too much to be followed
Place = tuple[str, Measure, float]
"""Arm, its metric, its KL in nats."""


def panel(record: StudyRecord, analysis: Analysis) -> Panel | None:
    """The frontier over arms, and the course of the arms whose runs recorded both; None with no arm away from 0."""
    metric = analysis.headline
    arms = _measured(record, analysis)
    chosen, fewer = _best_of_n(record, analysis), _fewer(record, analysis)
    trails, watched = _trails(record)
    if metric not in ("accuracy", "reward") or not (arms or chosen):
        return None
    start = analysis.measures[record.baseline].get(metric) if record.baseline else None
    origin: list[Place] = [] if start is None else [(record.baseline, start, 0.0)]
    charts = [_chart(metric, origin, arms, chosen, fewer), *([_course(trails, watched)] if trails else [])]
    return Panel(
        name="frontier",
        title=f"{wording.title(metric)} against KL",
        sentences=tuple(_sentences(metric, origin, arms, chosen)),
        tables=(_table(metric, [*origin, *arms], [*chosen, *fewer], bool(fewer)),),
        charts=tuple(charts),
    )


def bound(n: int) -> float:
    """The KL of best-of-n to the policy it draws from is at most log n - (n - 1) / n nats (2401.01879)."""
    return math.log(n) - (n - 1) / n


def _measured(record: StudyRecord, analysis: Analysis) -> list[Place]:
    found = []
    for arm in record.arms:
        measures = analysis.measures[arm.name]
        if arm.name != record.baseline and analysis.headline in measures and "kl" in measures:
            found.append((arm.name, measures[analysis.headline], measures["kl"].value))
    return found


def _best_of_n(record: StudyRecord, analysis: Analysis) -> list[Place]:
    """Best-of-n arms that draw from the baseline, by n."""
    found = []
    for arm in record.arms:
        n = arm.facts.get("n")
        draws = arm.stage == "best_of_n" and arm.parent == record.baseline
        measure = analysis.measures[arm.name].get(analysis.headline)
        if draws and isinstance(n, int) and n > 1 and measure is not None:
            found.append((arm.name, measure, bound(n)))
    return sorted(found, key=lambda place: place[2])


def _fewer(record: StudyRecord, analysis: Analysis) -> list[Place]:
    """What choosing among fewer than n answers would have given, from the same answers."""
    return [
        (f"{arm.name}, n = {k}", measures[analysis.headline], bound(k))
        for arm in record.arms
        if arm.parent == record.baseline
        for k, measures in sorted(arm.best_of.items())
        if analysis.headline in measures
    ]


def _root(kl: float) -> float:
    """An estimate of a KL may fall below 0 by chance."""
    return math.sqrt(max(0.0, kl))


def _chart(
    metric: str, origin: Sequence[Place], arms: Sequence[Place], chosen: Sequence[Place], fewer: Sequence[Place]
) -> Chart:
    series = [_series(place[0], [place], metric) for place in [*origin, *arms]]
    if chosen:
        name = chosen[0][0] if len(chosen) == 1 else "best of n"
        start = [(arm, replace(measure, low=None, high=None), kl) for arm, measure, kl in origin]
        places = sorted([*chosen, *fewer], key=lambda place: place[2])
        series.append(_series(f"{name}, at its bound", [*start, *places], metric))
    unit = ", %" if metric in RATES else ""
    return Chart(
        name="arms",
        caption="Each arm on the test questions with its 95 % interval. Good: high and to the left; an arm right of "
        "another and no higher went far for nothing."
        + (" The line is best-of-n, at the bound of its KL: what choosing among answers gives." if chosen else ""),
        kind="lines",
        x="sqrt KL to the baseline, nats per answer",
        y=f"{wording.title(metric).lower()}{unit}",
        series=tuple(series),
    )


def _series(name: str, places: Sequence[Place], metric: str) -> Series:
    scale = 100.0 if metric in RATES else 1.0
    return measured_series(name, [measure for _, measure, _ in places], [_root(kl) for *_, kl in places], scale=scale)


def _sentences(metric: str, origin: Sequence[Place], arms: Sequence[Place], chosen: Sequence[Place]) -> list[str]:
    """Who is not beaten on both counts at once, by the values as measured."""
    places = [*origin, *arms, *chosen]
    kept = [
        place
        for place in places
        if not any(
            other[1].value >= place[1].value and other[2] <= place[2] and other[1:] != place[1:] for other in places
        )
    ]
    listed = ", ".join(
        f"{name} ({wording.value_text(measure)} at {wording.number(kl)} nats)"
        for name, measure, kl in sorted(kept, key=lambda place: place[2])
    )
    return [
        f"On the frontier, with no other arm both higher in {metric} and nearer to the baseline: {listed}.",
        "These are the values as measured; which of them differ is for the paired tests to say.",
    ]


def _table(metric: str, measured: Sequence[Place], bounds: Sequence[Place], fewer: bool) -> Table:
    """Every arm by its KL; whether that was measured or is a bound is said where there are both."""
    places = [*((place, "measured") for place in measured), *((place, "bound") for place in bounds)]
    rows: list[tuple[str | Measure, ...]] = [
        (name, wording.number(kl), wording.number(_root(kl)), *([how] if bounds else []), measure)
        for (name, measure, kl), how in sorted(places, key=lambda known: known[0][2])
    ]
    caption = "KL in nats per answer, of answers drawn at temperature 1"
    caption += "; best-of-n's is the bound log n \u2212 (n \u2212 1)/n." if bounds else "."
    caption += " An n below the arm's own: what choosing among so few of its answers gives." if fewer else ""
    columns = ("Arm", "KL", "sqrt KL", *(["Measured or bound"] if bounds else []), wording.title(metric))
    return Table(caption=caption, columns=columns, rows=tuple(rows), rate=metric in RATES)


def _trails(record: StudyRecord) -> tuple[list[tuple[Arm, list[tuple[float, float]]]], str]:
    """(sqrt KL, reward) along each run: the held-out reward where every such run measured it, else the training one."""
    learners = [arm for arm in record.arms if len(_course_of(arm.curve, "reward")) > 1]
    held_out = bool(learners) and all(len(_course_of(arm.curve, "dev/reward")) > 1 for arm in learners)
    name = "dev/reward" if held_out else "reward"
    return [(arm, _course_of(arm.curve, name)) for arm in learners], name


def _course_of(curve: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """(sqrt KL, value) of the rows that have both, neighbours averaged until at most STRETCHES are left."""
    rows = [(row.get("kl"), row.get(name)) for row in curve]
    known = [
        (float(kl), float(value))
        for kl, value in rows
        if isinstance(kl, int | float) and isinstance(value, int | float) and math.isfinite(kl) and math.isfinite(value)
    ]
    count = min(STRETCHES, len(known))
    edges = [round(len(known) * part / count) for part in range(count + 1)] if known else []
    parts = [known[start:end] for start, end in pairwise(edges)]
    return [(_root(sum(kl for kl, _ in part) / len(part)), sum(y for _, y in part) / len(part)) for part in parts]


def _course(trails: Sequence[tuple[Arm, list[tuple[float, float]]]], name: str) -> Chart:
    held_out = name == "dev/reward"
    return Chart(
        name="course",
        caption=f"{'Held-out' if held_out else 'Training'} reward of each run at the KL it had reached, means over "
        f"at most {STRETCHES} stretches of it. Good: climbs along one curve; where it bends down, more distance buys "
        "less.",
        kind="lines",
        x="sqrt KL to where the run began, nats per answer",
        y="held-out reward" if held_out else "training reward",
        series=tuple(
            Series(arm.name, tuple(x for x, _ in course), tuple(y for _, y in course)) for arm, course in trails
        ),
    )

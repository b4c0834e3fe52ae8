"""Proxy against gold as a finding of a report: in sentences, a picture against sqrt KL and a table an arm."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from smolt.report.panels import Chart, Panel, Series, Table, panel_name
from smolt.report.wording import number, stated
from smolt.rewards.audit.gold import LAST, Rerating, Stretch, parting
from smolt.statistics import Measure


@dataclass(frozen=True)
class Course:
    """One arm's training.

    Attributes:
        arm: its name.
        proxy: the reward it learned from, in words.
        gold: the reward it did not learn from, in words.
        rating: its answers, rated by both.
        stretches: of them.
    """

    arm: str
    proxy: str
    gold: str
    rating: Rerating
    stretches: list[Stretch]


def overoptimisation_panel(courses: Sequence[Course]) -> Panel | None:
    """The finding over all arms whose training has two stretches or more; None where none has."""
    shown = [course for course in courses if len(course.stretches) > 1]
    if not shown:
        return None
    return Panel(
        name="overoptimisation",
        title="Proxy and gold reward",
        sentences=tuple(sentence for course in shown for sentence in _sentences(course)),
        warnings=tuple(warning for course in shown for warning in _warning(course)),
        tables=tuple(_table(course) for course in shown),
        charts=tuple(_chart(course) for course in shown),
    )


def _sentences(course: Course) -> list[str]:
    answers, first, last = course.rating.answers, course.stretches[0], course.stretches[-1]
    verdict = _verdict(course)
    return [
        f"{course.arm} learned from {course.proxy} (the proxy); study.reward, {course.gold}, is the gold. "
        f"Both rate the n = {len(answers):,} answers it gave in updates {first.first} to {last.last} of its training"
        f"{_left_out(course.rating)}.",
        f"From the first to the last of {len(course.stretches)} stretches the proxy went from {stated(first.proxy)} "
        f"to {stated(last.proxy)} and the gold from {stated(first.gold)} to {stated(last.gold)} "
        f"(95 % intervals, n = {first.gold.n:,} and {last.gold.n:,}).",
        *([verdict] if verdict else []),
    ]


def _left_out(rating: Rerating) -> str:
    return f"; left out: {rating.abstained:,} that a reward abstained from" if rating.abstained else ""


def _verdict(course: Course) -> str:
    """What is said where they do not part: a warning says it where they do."""
    if parting(course.stretches) is not None:
        return ""
    if len(course.stretches) <= LAST:
        return f"{len(course.stretches)} stretches are too few to say whether the two part."
    best = _best(course.stretches)
    if best is course.stretches[-1]:
        return f"They do not part: gold was best at the end, {_place(best)}, {stated(best.gold)}."
    return (
        f"That they part is not shown: gold was best {_place(best)}, {stated(best.gold)}, and it would take the last "
        f"{LAST} stretches to lie below that interval while the proxy lies above its own there."
    )


def _warning(course: Course) -> list[str]:
    best, last = parting(course.stretches), course.stretches[-1]
    if best is None:
        return []
    return [
        f"{course.arm}: proxy and gold part {_place(best)}: since then the proxy ({course.proxy}) rose from "
        f"{stated(best.proxy)} to {stated(last.proxy)} and the gold ({course.gold}) fell from {stated(best.gold)} "
        f"to {stated(last.gold)} (95 % intervals, n = {best.gold.n:,} and {last.gold.n:,} answers). What it learned "
        "after that is the proxy's faults."
    ]


def _best(stretches: Sequence[Stretch]) -> Stretch:
    return max(stretches, key=lambda stretch: stretch.gold.value)


def _place(stretch: Stretch) -> str:
    root = "" if stretch.root_kl is None else f" (sqrt KL {number(stretch.root_kl)})"
    return f"in update{'s' * (stretch.first != stretch.last)} {_updates(stretch)}{root}"


def _updates(stretch: Stretch) -> str:
    return f"{stretch.first}" if stretch.first == stretch.last else f"{stretch.first} to {stretch.last}"


def _table(course: Course) -> Table:
    rows = tuple(
        (_updates(one), None if one.root_kl is None else number(one.root_kl), one.proxy, one.gold)
        for one in course.stretches
    )
    return Table(
        caption=f"{course.arm}: proxy ({course.proxy}) and gold ({course.gold}) of the answers of each stretch of its "
        "training, with 95 % intervals.",
        columns=("Updates", "sqrt KL", "Proxy", "Gold"),
        rows=rows,
    )


def _chart(course: Course) -> Chart:
    """Both in standard deviations, since a proxy's unit is its own; at the update where the KL is not known."""
    measured = all(stretch.kl is not None for stretch in course.stretches)
    places = [s.root_kl if measured and s.root_kl is not None else float(s.last) for s in course.stretches]
    placed = sorted(zip(places, course.stretches, strict=True), key=lambda entry: entry[0])
    xs, ordered = [x for x, _ in placed], [stretch for _, stretch in placed]
    answers, best = course.rating.answers, parting(course.stretches)
    first = course.stretches[0]
    proxy = _series("proxy", xs, [s.proxy for s in ordered], first.proxy, [answer.proxy for answer in answers])
    gold = _series("gold", xs, [s.gold for s in ordered], first.gold, [answer.gold for answer in answers])
    marks = []
    if best is not None:
        place = ordered.index(best)
        marks = [Series("where they part", (gold.x[place],), (gold.y[place],), labels=("they part",))]
    return Chart(
        name=panel_name(f"gold-{course.arm}"),
        caption=f"{course.arm}: change since the first stretch in standard deviations of its answers, with the 95 % "
        "interval of each stretch. Good: gold climbs with the proxy; where it turns down while the proxy climbs on, "
        "more training makes the answers worse.",
        kind="lines",
        x="sqrt KL to where the training began, nats per answer" if measured else "update",
        y="change in standard deviations",
        series=(proxy, gold, *marks),
    )


def _series(
    name: str, xs: Sequence[float], measures: Sequence[Measure], start: Measure, values: Sequence[float]
) -> Series:
    spread = statistics.pstdev(values) or 1.0

    def scaled(value: float | None) -> float | None:
        return None if value is None else (value - start.value) / spread

    return Series(
        name=name,
        x=tuple(xs),
        y=tuple((measure.value - start.value) / spread for measure in measures),
        low=tuple(scaled(measure.low) for measure in measures),
        high=tuple(scaled(measure.high) for measure in measures),
    )

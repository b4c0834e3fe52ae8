"""Size, cost, quality: each arm's quality against the time, the memory and the parameters it took, to choose by."""

from collections.abc import Callable
from dataclasses import dataclass

from smolt.report import wording
from smolt.report.analysis import Analysis
from smolt.report.pairing import RATES
from smolt.report.panels import Chart, Panel, Table, measured_series
from smolt.report.record import Arm, StudyRecord
from smolt.statistics import Measure

RATIO = 8.0  # from here on a logarithmic axis tells the arms apart better


@dataclass(frozen=True)
class Priced:
    """An arm with its quality and what it took; None where that was not measured."""

    name: str
    quality: Measure
    seconds: float | None
    memory: float | None
    parameters: float | None


AXES: tuple[tuple[str, str, Callable[[Priced], float | None]], ...] = (
    ("time", "training time, s", lambda arm: arm.seconds),
    ("memory", "peak memory, MiB", lambda arm: None if arm.memory is None else arm.memory / 2**20),
    ("parameters", "parameters, million", lambda arm: None if arm.parameters is None else arm.parameters / 1e6),
)


def panel(record: StudyRecord, analysis: Analysis) -> Panel | None:
    """Quality against cost; None unless two arms differ in size or in cost."""
    metric = analysis.headline
    arms = [priced for arm in record.arms if (priced := _priced(record, analysis, arm)) is not None]
    charts = [chart for name, title, read in AXES if (chart := _chart(arms, metric, name, title, read)) is not None]
    if not charts or metric not in ("accuracy", "reward"):
        return None
    rows = tuple(
        (
            arm.name,
            arm.quality,
            None if arm.seconds is None else wording.duration(arm.seconds),
            None if arm.memory is None else wording.memory(arm.memory),
            None if arm.parameters is None else wording.amount(arm.parameters),
        )
        for arm in arms
    )
    caption = (
        "Time is an arm's own training and that of the arms it began from, of one training run; memory the highest of "
        "these."
    )
    columns = ("Arm", wording.title(metric), "Training time", "Peak memory", "Parameters")
    return Panel(
        name="choice",
        title="Size, cost, quality",
        sentences=tuple(_sentences(arms, metric)),
        tables=(Table(caption, columns, rows, rate=metric in RATES),),
        charts=tuple(charts),
    )


def lineage(record: StudyRecord, arm: Arm) -> list[Arm]:
    """The arm and those it began from, as far as the record has them."""
    arms = {entry.name: entry for entry in record.arms}
    line = [arm]
    while line[-1].parent in arms and arms[line[-1].parent or ""] not in line:
        line.append(arms[line[-1].parent or ""])
    return line


def _priced(record: StudyRecord, analysis: Analysis, arm: Arm) -> Priced | None:
    quality = analysis.measures[arm.name].get(analysis.headline)
    if quality is None or "seconds" not in arm.cost:
        return None
    line = lineage(record, arm)
    peaks = [float(entry.cost["peak_memory"]) for entry in line if "peak_memory" in entry.cost]
    size = arm.facts.get("parameters")
    return Priced(
        name=arm.name,
        quality=quality,
        seconds=sum(float(entry.cost.get("seconds", 0.0)) for entry in line),
        memory=max(peaks) if peaks else None,
        parameters=float(size) if isinstance(size, int | float) and not isinstance(size, bool) else None,
    )


def _chart(
    arms: list[Priced], metric: str, name: str, title: str, read: Callable[[Priced], float | None]
) -> Chart | None:
    """One picture, where two arms differ by a tenth in what it is about."""
    known = [(arm, value) for arm in arms if (value := read(arm)) is not None and value > 0]
    values = [value for _, value in known]
    if len(known) < 2 or max(values) < 1.1 * min(values):
        return None
    scale = 100.0 if metric in RATES else 1.0
    series = tuple(measured_series(arm.name, [arm.quality], [value], scale=scale) for arm, value in known)
    return Chart(
        name=name,
        caption=f"{wording.title(metric)} against {title.partition(',')[0]}, with 95 % intervals. "
        "Good: high and to the left.",
        kind="points",
        x=title,
        y=f"{wording.title(metric).lower()}{', %' if metric in RATES else ''}",
        series=series,
        log=max(values) > RATIO * min(values),
    )


def _sentences(arms: list[Priced], metric: str) -> list[str]:
    """The arms worth choosing among: nobody is at least as good for less."""
    timed = [(arm, arm.seconds) for arm in arms if arm.seconds is not None]
    sized = [(arm, arm.parameters) for arm in arms if arm.parameters is not None]
    sentences = []
    for known, what, words in (
        (timed, "for less time", wording.duration),
        (sized, "with fewer parameters", wording.amount),
    ):
        if len({cost for _, cost in known}) > 1:
            kept = sorted(_worth_it(known), key=lambda entry: entry[1])
            listed = ", ".join(f"{arm.name} ({wording.value_text(arm.quality)}, {words(cost)})" for arm, cost in kept)
            sentences.append(f"No other arm has as much {metric} {what}: {listed}.")
    return [*sentences, "These are the values as measured; which of them differ is for the paired tests to say."]


def _worth_it(known: list[tuple[Priced, float]]) -> list[tuple[Priced, float]]:
    """The arms that no other one matches in quality at a lower price, or exceeds at the same."""
    return [
        (arm, cost)
        for arm, cost in known
        if not any(
            other.quality.value >= arm.quality.value
            and price <= cost
            and (other.quality.value, price) != (arm.quality.value, cost)
            for other, price in known
        )
    ]

"""The headline metric within each kind of question."""

from smolt.report import wording
from smolt.report.analysis import Analysis
from smolt.report.pairing import RATES
from smolt.report.panels import Chart, Panel, Table, measured_series
from smolt.report.record import StudyRecord

MOST_KINDS = 8


def panel(record: StudyRecord, analysis: Analysis) -> Panel | None:
    """A row a kind, a column an arm; None with fewer than two kinds."""
    metric = analysis.headline
    if not analysis.by_kind:
        return None
    arms = [arm.name for arm in record.arms if any(arm.name in cells for cells in analysis.by_kind.values())]
    rows = tuple((kind or "(no kind)", *(cells.get(name) for name in arms)) for kind, cells in analysis.by_kind.items())
    caption = "Means and 95 % intervals within each kind of question; not adjusted for looking at many kinds."
    return Panel(
        name="kinds",
        title="By kind of question",
        tables=(Table(caption, ("Kind", *arms), rows, rate=metric in RATES),),
        charts=(_chart(analysis, arms, metric),),
    )


def _chart(analysis: Analysis, arms: list[str], metric: str) -> Chart:
    scale = 100.0 if metric in RATES else 1.0
    kinds = list(analysis.by_kind.items())[:MOST_KINDS]
    series = []
    for name in arms:
        cells = [(kind or "(no kind)", found[name]) for kind, found in kinds if name in found]
        shown, found_there = [kind for kind, _ in cells], [cell for _, cell in cells]
        series.append(measured_series(name, found_there, labels=shown, scale=scale))
    left_out = len(analysis.by_kind) - len(kinds)
    return Chart(
        name="by-kind",
        caption=f"{wording.title(metric)} within each kind of question, with 95 % intervals."
        + (f" {left_out} smaller kinds are in the table only." if left_out else ""),
        kind="bars",
        x="kind",
        y=f"{wording.title(metric).lower()}{', %' if metric in RATES else ''}",
        series=tuple(series),
    )

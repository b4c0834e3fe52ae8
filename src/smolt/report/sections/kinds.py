"""The headline metric within each kind of question."""

from smolt.report import wording
from smolt.report.analysis import Analysis
from smolt.report.pairing import RATES
from smolt.report.panels import Chart, Panel, Series, Table
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
        series.append(
            Series(
                name,
                tuple(float(place) for place in range(len(cells))),
                tuple(scale * cell.value for _, cell in cells),
                tuple(None if cell.low is None else scale * cell.low for _, cell in cells),
                tuple(None if cell.high is None else scale * cell.high for _, cell in cells),
                tuple(kind for kind, _ in cells),
            )
        )
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

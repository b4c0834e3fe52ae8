"""The findings of a report as panels, in the order they are read: its own, then those the record brings."""

import re
from dataclasses import replace

from smolt.report.analysis import Analysis
from smolt.report.panels import Panel
from smolt.report.record import StudyRecord
from smolt.report.sections import cost, frontier, kinds, length, reward_parts, seeds, win_rates


def findings(record: StudyRecord, analysis: Analysis) -> list[Panel]:
    """Every panel that the record supports, each under a name that is a file name, an anchor, and its own."""
    own = [
        seeds.panel(record, analysis.headline, analysis.runs),
        frontier.panel(record, analysis),
        cost.panel(record, analysis),
        win_rates.panel(record),
        length.panel(record, analysis),
        reward_parts.panel(record, analysis),
        kinds.panel(record, analysis),
    ]
    found = [panel for panel in [*own, *record.panels] if panel is not None and not _empty(panel)]
    taken: set[str] = set()
    return [replace(panel, name=_free(panel.name, taken)) for panel in found]


def _empty(panel: Panel) -> bool:
    return not (panel.sentences or panel.warnings or panel.charts or any(table.rows for table in panel.tables))


def _free(name: str, taken: set[str]) -> str:
    """The name in letters, digits and hyphens, numbered where it is taken."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name[:60]).strip("-") or "panel"
    free = next(
        candidate
        for number in range(1, len(taken) + 2)
        if (candidate := f"{plain}-{number}" if number > 1 else plain) not in taken
    )
    taken.add(free)
    return free

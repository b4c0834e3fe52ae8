"""Writing a report: every file whole or not at all, the page last, so that it never speaks of files not yet there."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smolt.report import findings, markdown, page
from smolt.report.analysis import Analysis, analyse
from smolt.report.pairing import Compared
from smolt.report.panels import Panel
from smolt.report.pictures import plots
from smolt.report.pictures.drawing import Picture
from smolt.report.record import RECORD, StudyRecord, read_record, write_record
from smolt.report.sections import samples
from smolt.runs import atomic_write, inventory, jsontext
from smolt.statistics import Measure

LOG = logging.getLogger(__name__)


def write_report(directory: Path, record: StudyRecord, analysis: Analysis | None = None) -> None:
    """Write record.json, report.json, report.md, report.html and plots/ into a directory, which is made if missing.

    Args:
        directory: of the report.
        record: what it is about.
        analysis: of that record, where it is at hand; else it is made here.

    Raises:
        StorageError: the disk is full or failing; each file is the earlier one or the new one, whole.
    """
    LOG.info("writing the report")
    analysis = analysis or analyse(record)
    panels = findings.findings(record, analysis)
    pictures = plots.draw(record, analysis, panels)
    chosen = samples.choose(record, analysis)
    write_record(directory, record)
    jsontext.write(directory / "report.json", contract(record, analysis, panels))
    _write_pictures(directory / inventory.PLOTS, pictures.all)
    text = markdown.render(record, analysis, panels, pictures, chosen)
    atomic_write(directory / "report.md", text)
    text = page.render(record, analysis, panels, pictures, chosen)
    atomic_write(directory / "report.html", text)


def rewrite_report(directory: Path) -> StudyRecord:
    """Write a report again from the record.json beside it.

    Raises:
        UserError: there is no record there, or it is none.
        StorageError: it is not as it was written, or the disk is full or failing.
    """
    inventory.require_file(directory / RECORD)
    record = read_record(directory)
    plots_of = (directory / inventory.PLOTS).glob
    plotted = {f"{inventory.PLOTS}/{path.name}" for path in plots_of("*")}
    write_report(directory, record)
    plotted |= {f"{inventory.PLOTS}/{path.name}" for path in plots_of("*")}
    inventory.renew(directory, (RECORD, "report.json", "report.md", "report.html", *plotted))
    return record


def contract(record: StudyRecord, analysis: Analysis, panels: Sequence[Panel]) -> dict[str, Any]:
    """report.json, which other programs read; numbers are unrounded, rates and their differences in 0..1."""
    document = {
        "study": record.name,
        "metric": analysis.headline,
        "baseline": record.baseline or None,
        "summary": analysis.summary,
        "verdicts": analysis.verdicts,
        "warnings": [warning for panel in panels for warning in panel.warnings],
        "arms": {name: _measures(found) for name, found in analysis.measures.items()},
        "comparisons": [_comparison(compared) for compared in analysis.comparisons],
        "by_kind": {kind: _measures(cells) for kind, cells in analysis.by_kind.items()},
        "length_reward_correlation": _measures(analysis.length_reward),
        "runs": [asdict(runs) for runs in analysis.runs],
        "panels": [_panel(panel) for panel in panels],
        "caveats": analysis.caveats,
        "cost": {arm.name: arm.cost for arm in record.arms},
        "provenance": record.provenance,
        "events": record.events,
        "notes": record.notes,
    }
    checked: dict[str, Any] = jsontext.plain(document)
    return checked


def _panel(panel: Panel) -> dict[str, Any]:
    """A finding without its charts, whose numbers are in record.json."""
    return {name: value for name, value in asdict(panel).items() if name != "charts"}


def _measures(found: dict[str, Measure]) -> dict[str, dict[str, Any]]:
    return {name: asdict(measure) for name, measure in found.items()}


def _comparison(compared: Compared) -> dict[str, Any]:
    right = compared.both_right
    return asdict(compared.comparison) | {
        "against": compared.against,
        "both_right": right,
        "both_wrong": None if right is None else compared.comparison.ties - right,
    }


def _write_pictures(directory: Path, pictures: list[Picture]) -> None:
    """Write each picture as SVG and PNG, and remove the pictures of an earlier report that this one has not."""
    files = {f"{picture.name}.svg": picture.light for picture in pictures}
    files |= {f"{picture.name}.png": picture.png for picture in pictures}
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        atomic_write(directory / name, content)
    for path in directory.iterdir():
        if path.suffix in {".svg", ".png"} and path.name not in files:
            path.unlink()

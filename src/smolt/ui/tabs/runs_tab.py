"""The tab of runs and studies: their states, the figures of one, its curves while it trains, and its report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio
from markupsafe import Markup

from smolt.errors import UserError
from smolt.report.inert import visible
from smolt.report.pictures.curves import GUIDES, HEADLINES, curves_of
from smolt.report.wording import duration, number
from smolt.runs.listing import FoundRun, RunState, logged_rows, run_at, runs_below
from smolt.ui.environment import Face
from smolt.ui.tabs.line_picture import curve_figure
from smolt.ui.tabs.parts import QUIET, alarm, joined, shown

EVERY = 2.0
"""Seconds between two looks at the disk while the tab is shown."""
SIGNS: dict[RunState, str] = {
    "running": "●",
    "complete": "✓",
    "interrupted": "◐",
    "refused": "✕",
    "damaged": "!",
}
NOTHING = Markup('<p class="soft">No runs in {} yet. What you train appears here.</p>')
SHOWN_STOPS = 5


def runs_tab(face: Face) -> None:
    """Lay the tab out."""
    with gradio.Tab("Runs", id="runs", elem_id="tab-runs") as tab:
        seen, clock = gradio.State(()), gradio.Timer(EVERY)
        with gradio.Row():
            with gradio.Column(scale=2, min_width=280):
                chosen = gradio.Radio([], label="Runs", show_label=False, elem_id="run-list", elem_classes="list")
            with gradio.Column(scale=5, min_width=320):
                details = shown(NOTHING.format(face.runs), elem_id="run")

    def look(name: str | None, before: Any) -> tuple[Any, Any, Any]:
        runs = runs_below(face.runs)
        names = [run.name for run in runs]
        choices = tuple((line_of(run, names), run.name) for run in runs)
        picked = name if name in names else (names[0] if names else None)
        now = (choices, str(details_of(face.runs, picked)))
        if now == before and picked == name:
            return gradio.skip(), gradio.skip(), gradio.skip()
        listed: dict[str, Any] = {"choices": list(choices)} if not before or choices != before[0] else {}
        listed |= {"value": picked} if picked != name else {}  # else the reader's: they may have moved on meanwhile
        return gradio.Radio(**listed) if listed else gradio.skip(), now[1], now

    for trigger in (clock.tick, tab.select, chosen.input):
        trigger(look, [chosen, seen], [chosen, details, seen], trigger_mode="always_last", **QUIET)


def line_of(run: FoundRun, names: Sequence[str]) -> str:
    """A run in the list of all names: its place under its study, what it is, and how it stands."""
    above = sorted(f"{name}/" for name in names if run.name.startswith(f"{name}/"))  # the nearest is the longest
    short = run.name.removeprefix(above[-1]) if above else run.name
    return visible(f"{'· ' * len(above)}{short}  {SIGNS[run.state]} {run.state}  {run.stage}".rstrip())


def details_of(runs: Path, name: str | None) -> Markup:
    """Everything the page says of one run."""
    if name is None:
        return NOTHING.format(runs)
    try:
        run = run_at(runs, name)
    except UserError as error:
        return alarm(str(error))
    rows = logged_rows(run.directory)
    parts = [_head(run, rows), _warnings(run, rows), _figures(run, rows), _arms(run.result), _curves(run, rows)]
    if run.stage == "study":
        parts.append(_sections(runs, run))
    return joined(parts)


def _sections(runs: Path, study: FoundRun) -> Markup:
    """A study's sections, and the curves of the one that trains."""
    found = [run for run in runs_below(runs) if run.name.startswith(f"{study.name}/")]
    rows = {run.name: logged_rows(run.directory) for run in found}
    lines = joined(
        Markup("<tr><th><bdi>{}</bdi></th><td>{} {}</td><td>{}</td></tr>").format(
            visible(run.name.removeprefix(f"{study.name}/")),
            SIGNS[run.state],
            run.state,
            _progress(rows[run.name], None).removeprefix(", "),
        )
        for run in found
    )
    now = [run for run in found if run.state == "running" and rows[run.name]]
    curves = joined(
        Markup("<h3>{} trains</h3>{}{}").format(
            visible(run.name), _figures(run, rows[run.name]), _curves(run, rows[run.name])
        )
        for run in now
    )
    if not found:
        return Markup("")
    return Markup('<h3>Sections</h3><div class="scroll"><table>{}</table></div>{}').format(lines, curves)


def _head(run: FoundRun, rows: list[dict[str, Any]]) -> Markup:
    planned = (run.manifest.get("recipe") or {}).get("budget") or {}
    so_far = _progress(rows, planned.get("updates"))
    report = Markup("")
    if (run.directory / "report.html").is_file():
        report = Markup(
            ' <a class="button" href="/report/{}" target="_blank" rel="noopener">Open the report</a>'
        ).format(run.name)
    return Markup(
        '<h2><bdi>{name}</bdi></h2><p class="state {state}"><b>{sign} {state}</b> <span class="soft">{stage}{so_far}'
        "</span>{report}</p>"
    ).format(
        name=visible(run.name),
        state=run.state,
        sign=SIGNS[run.state],
        stage=visible(run.stage),
        so_far=so_far,
        report=report,
    )


def _progress(rows: list[dict[str, Any]], planned: Any) -> str:
    if not rows:
        return ""
    step = rows[-1].get("step")
    of = f" of {planned:,}" if isinstance(planned, int) else ""
    seconds = sum(row["seconds"] for row in rows if isinstance(row.get("seconds"), int | float))
    return f", update {step:,}{of}, {duration(seconds)}"


def _warnings(run: FoundRun, rows: list[dict[str, Any]]) -> Markup:
    """Why it was refused, stopped or skipped steps."""
    said = [run.reason] if run.reason else []
    if run.state == "interrupted":
        said.append("Nobody works on it: the command it was started with continues it.")
    said += [str(row["stop"]) for row in rows if row.get("stop")]
    events = [str(event) for row in rows for event in _listed(row.get("events"))]
    said += events[-SHOWN_STOPS:]
    if not said:
        return Markup("")
    return Markup('<ul class="alarm">{}</ul>').format(
        joined(Markup("<li>{}</li>").format(visible(line)) for line in said)
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _figures(run: FoundRun, rows: list[dict[str, Any]]) -> Markup:
    """The headline metrics of the last update, each with the first one's."""
    if not rows:
        return Markup("")
    names = [name for name in HEADLINES.get(run.stage, tuple(GUIDES)) if _is_number(rows[-1].get(name))][:6]
    cells = [
        Markup("<div><dt>{}</dt><dd>{}</dd><small>{}</small></div>").format(
            GUIDES[name][0],
            number(rows[-1][name]),
            f"from {number(rows[0][name])}" if len(rows) > 1 and _is_number(rows[0].get(name)) else "",
        )
        for name in names
    ]
    return Markup('<dl class="figures">{}</dl>').format(joined(cells)) if cells else Markup("")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _arms(result: dict[str, Any]) -> Markup:
    """A finished study's verdicts and arms."""
    arms = result.get("arms")
    if not isinstance(arms, dict):
        return Markup("")
    metrics = list(dict.fromkeys(metric for measures in arms.values() for metric in measures))[:5]
    said = joined(Markup("<p>{}</p>").format(visible(str(line))) for line in result.get("verdicts", [])[:6])
    head = joined(Markup("<th>{}</th>").format(visible(metric)) for metric in metrics)
    body = joined(
        Markup("<tr><th><bdi>{}</bdi></th>{}</tr>").format(
            visible(name),
            joined(
                Markup("<td>{}</td>").format(number(measures[metric]) if _is_number(measures.get(metric)) else "")
                for metric in metrics
            ),
        )
        for name, measures in arms.items()
    )
    return Markup(
        '<div class="verdict">{}</div><div class="scroll"><table><thead><tr><th></th>{}</tr></thead>{}</table></div>'
    ).format(said, head, body)


def _curves(run: FoundRun, rows: list[dict[str, Any]]) -> Markup:
    figures = [curve_figure(curve) for curve in curves_of(run.name, run.stage, rows)]
    return Markup('<div class="curves">{}</div>').format(joined(figures)) if figures else Markup("")

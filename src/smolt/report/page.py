"""The page: self-contained, without a script, every text of the record escaped and cut to a readable length."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from smolt.report import tables, wording
from smolt.report.analysis import Analysis
from smolt.report.inert import visible
from smolt.report.pairing import METRICS, PART, seeds
from smolt.report.panels import Panel
from smolt.report.pictures.drawing import DARK, LIGHT, Picture
from smolt.report.pictures.plots import Pictures, arm_places
from smolt.report.record import StudyRecord
from smolt.report.sections import seeds as training_runs
from smolt.report.sections.samples import PER_OUTCOME, Sample, known_of

TEMPLATES = Path(__file__).parent / "templates"
STYLES = ("page.css", "tables.css", "narrow.css")
LONGEST_FACT = 400
EARLY = ("seeds", "frontier", "choice")
"""Panels that stand before the training curves."""


def render(
    record: StudyRecord, analysis: Analysis, panels: Sequence[Panel], pictures: Pictures, samples: Sequence[Sample]
) -> str:
    """The page; sections that the record does not support are absent."""
    shown = _shown(record, analysis, panels, pictures, samples)
    return filled("report.html.j2", {**shown, "contents": _contents(shown)})


def filled(template: str, shown: Mapping[str, Any]) -> str:
    """A template of ours as a page: its text escaped and inert, its styles inside, nothing loaded and nothing run."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    styles = _styles()
    return environment.get_template(template).render(
        styles=Markup(styles),  # ours, from the package
        policy=Markup(_policy(styles)),
        **shown,
    )


def _shown(
    record: StudyRecord, analysis: Analysis, panels: Sequence[Panel], pictures: Pictures, samples: Sequence[Sample]
) -> dict[str, Any]:
    """Everything the templates print."""
    metrics = [metric for metric in METRICS if any(metric in analysis.shown(arm) for arm in analysis.measures)]
    metrics.sort(key=lambda metric: metric != analysis.headline)
    reach = tables.arm_axis(analysis, metrics[0]) if metrics else (0.0, 1.0)
    tested = {entry.comparison.sentence for entry in analysis.comparisons}
    repeated = {training_runs.sentence(entry) for entry in analysis.runs}  # the panel on training runs has them
    facts = {name: value for name, value in record.provenance.items() if name != "recipe"}
    recipe = record.provenance.get("recipe")
    views = [_panel(panel, pictures.panels.get(panel.name, [])) for panel in panels]
    drawn = [(arm.name, [_picture(curve) for curve in pictures.curves if curve.arm == arm.name]) for arm in record.arms]
    return {
        "record": record,
        "analysis": analysis,
        "places": arm_places(record),
        "several_runs": any(len(seeds(arm)) > 1 for arm in record.arms),
        "summary": [sentence.replace("(-", "(\u2212") for sentence in analysis.summary],
        "tests": [claim_and_facts(sentence) for sentence in analysis.verdicts if sentence in tested],
        "remarks": [sentence for sentence in analysis.verdicts if sentence not in tested | repeated],
        "warnings": [(panel.name, panel.title, warning) for panel in panels for warning in panel.warnings],
        "facts": _facts(record, analysis, panels),
        "costs": tables.cost_rows(record),
        "metrics": [(metric, wording.title(metric), wording.UNITS.get(metric, "")) for metric in metrics],
        "axis_title": f"{wording.title(metrics[0])}, {wording.axis_ends(metrics[0], reach)}" if metrics else "",
        "arms": [tables.arm_row(arm, analysis, metrics, reach) for arm in record.arms],
        "few": analysis.few,
        "other_measures": other_measures(analysis),
        "families": tables.families(analysis.comparisons),
        "early": [view for view in views if view["anchor"] in EARLY],
        "late": [view for view in views if view["anchor"] not in EARLY],
        "curves": [(name, found) for name, found in drawn if found],
        "samples": [_sample(sample, analysis.headline) for sample in samples],
        "filters": _filters(samples),
        "per_outcome": PER_OUTCOME,
        "notes": [*analysis.caveats, *record.notes],
        "provenance": flattened(facts if isinstance(recipe, Mapping) else record.provenance),
        "recipe": flattened(recipe) if isinstance(recipe, Mapping) else [],
        "arm_facts": [(arm.name, flattened(arm.facts)) for arm in record.arms if arm.facts],
    }


def claim_and_facts(sentence: str) -> tuple[str, str]:
    """A verdict cut before its last bracket, which holds the numbers behind the claim; they may be empty."""
    claim, bracket, facts = sentence.rpartition(" (")
    if not bracket or not facts.endswith(")."):
        return sentence, ""
    facts = wording.signed(facts.removesuffix(").")).replace("n = ", "n\u00a0=\u00a0")
    return f"{claim}.".replace("only >= ", "only \u2265 "), facts


def other_measures(analysis: Analysis) -> list[tuple[str, str, tables.Cell, str]]:
    """What no answer carries, such as a reward model's held-out accuracy: (arm, measure, cell, source)."""
    return [
        (
            arm,
            metric,
            tables.Cell(wording.value_text(measure), wording.range_text(measure), f"{measure.n:,}"),
            measure.source,
        )
        for arm in analysis.measures
        for metric, measure in analysis.shown(arm).items()
        if metric not in METRICS and not metric.startswith(PART)
    ]


def flattened(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted name, text) rows, long texts cut."""
    rows: list[tuple[str, str]] = []
    for name, value in mapping.items():
        if isinstance(value, Mapping) and value:
            rows += flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(entry, Mapping) for entry in value):
            rows += flattened(
                {_entry_name(place, entry): entry for place, entry in enumerate(value)}, f"{prefix}{name}."
            )
        elif isinstance(value, list | tuple):
            rows.append((f"{prefix}{name}", wording.shortened(", ".join(map(str, value)), LONGEST_FACT)))
        else:
            rows.append((f"{prefix}{name}", wording.shortened(str(value), LONGEST_FACT)))
    return rows


def _entry_name(place: int, entry: Any) -> str:
    """An entry of a list by its own name (a section of a study), else by its place."""
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return f"{place}" if not isinstance(name, str) else name


def _inert(value: Any) -> Any:
    """Every text that the templates print goes through here, then through the escaping."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return visible(wording.shortened(value))


def _styles() -> str:
    """The style sheets, and a class for each arm colour."""
    sheets = [(TEMPLATES / name).read_text(encoding="utf-8") for name in STYLES]
    colours = [
        f".a{place} {{ background: light-dark({light}, {dark}); }}"
        for place, (light, dark) in enumerate(zip(LIGHT.arms, DARK.arms, strict=True))
    ]
    return "\n".join([sheets[0], *colours, *sheets[1:]])


def _policy(styles: str) -> str:
    """Nothing is loaded and nothing runs; of styles only this sheet, by its hash."""
    digest = base64.b64encode(hashlib.sha256(styles.encode("utf-8")).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def _facts(record: StudyRecord, analysis: Analysis, panels: Sequence[Panel]) -> list[tuple[str, str, str]]:
    """The few figures beside the verdict: (name, figure, what it is of)."""
    answers = sum(len(arm.items) for arm in record.arms)
    questions = len({item.key for arm in record.arms for item in arm.items})
    measured = sum(bool(arm.items) for arm in record.arms) or len(record.arms)
    compared = len(analysis.comparisons) + sum(panel.tests for panel in panels)
    cost = tables.total_cost(record)
    found = [
        ("Training time", wording.duration(cost["seconds"]), "all arms") if "seconds" in cost else None,
        ("Tokens", wording.amount(cost["tokens"]), "trained on") if "tokens" in cost else None,
        ("Peak memory", wording.memory(cost["peak_memory"]), "at most") if "peak_memory" in cost else None,
        ("Questions", f"{questions:,}", wording.counted(answers, "answer")) if answers else None,
        ("Arms", f"{measured:,}", wording.counted(compared, "paired comparison")) if record.arms else None,
    ]
    return [entry for entry in found if entry is not None]


def _contents(shown: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sections of this page in their order."""
    panels = {name: [(view["anchor"], view["title"]) for view in shown[name]] for name in ("early", "late")}
    found = [
        ("cost", "Cost") if len(shown["costs"]) > 1 else None,
        ("arms", "Arms") if shown["metrics"] else None,
        ("comparisons", "Paired comparisons") if shown["families"] else None,
        *panels["early"],
        ("training", "Training") if shown["curves"] else None,
        *panels["late"],
        ("samples", "Answers") if shown["samples"] else None,
        ("provenance", "Provenance") if shown["provenance"] or shown["arm_facts"] or shown["recipe"] else None,
    ]
    return [entry for entry in found if entry is not None]


def _panel(panel: Panel, pictures: Sequence[Picture]) -> dict[str, Any]:
    return {
        "anchor": panel.name,
        "title": panel.title,
        "sentences": panel.sentences,
        "warnings": panel.warnings,
        "pictures": [_picture(picture) for picture in pictures],
        "tables": [tables.panel_table(table) for table in panel.tables if table.rows],
    }


def _picture(picture: Picture) -> dict[str, Any]:
    return {
        "title": picture.title,
        "caption": picture.caption,
        "alt": picture.alt,
        "light": Markup(f"data:image/svg+xml;base64,{base64.b64encode(picture.light).decode()}"),
        "dark": Markup(f"data:image/svg+xml;base64,{base64.b64encode(picture.dark).decode()}"),
    }


def _filters(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    """Choices of the filter, where there is something to choose between."""
    counts = {name: sum(sample.outcome == name for sample in samples) for name in ("win", "regression")}
    if not all(counts.values()):
        return []
    return [
        ("all", "Both"),
        ("win", f"Wins ({counts['win']})"),
        ("regression", f"Regressions ({counts['regression']})"),
    ]


def _sample(sample: Sample, metric: str) -> dict[str, Any]:
    question = sample.question
    return {
        "outcome": sample.outcome,
        "kind": question.kind,
        "id": question.question_id,
        "question": question.question,
        "reference": question.reference_solution or "",
        "answers": [
            {
                "arm": arm,
                "text": item.answer,
                "known": " · ".join(known_of(item, metric)),
            }
            for arm, item in sample.answers
        ],
    }

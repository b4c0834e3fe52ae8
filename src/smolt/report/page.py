"""The page: everything the template prints, as finished text; the template decides only where it stands."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from smolt.report import wording
from smolt.report.analysis import METRICS, Analysis, Compared
from smolt.report.plots import DARK, LIGHT, Picture, arm_places
from smolt.report.records import Arm, StudyRecord
from smolt.report.samples import Sample, outcome_text
from smolt.statistics import ALPHA, format_difference

TEMPLATES = Path(__file__).parent / "templates"
LONGEST_FACT = 400


@dataclass(frozen=True)
class Cell:
    """One measure in a table; all of it text."""

    value: str
    interval: str
    n: str


def render(
    record: StudyRecord,
    analysis: Analysis,
    pictures: Sequence[Picture],
    curves: Sequence[Picture],
    samples: Sequence[Sample],
) -> str:
    """The self-contained page: no script, no outside address, all text of the record escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    styles = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    metrics = [metric for metric in METRICS if any(metric in found for found in analysis.measures.values())]
    return environment.get_template("report.html.j2").render(
        styles=Markup(styles),  # ours, from the package
        arm_colours=[(light, dark) for light, dark in zip(LIGHT.arms, DARK.arms, strict=True)],
        record=record,
        analysis=analysis,
        places=arm_places(record),
        verdicts=[claim_and_facts(sentence) for sentence in analysis.verdicts],
        facts_line=facts_line(record, analysis),
        cost_line=cost_line(record),
        metrics=[(metric, wording.title(metric), wording.UNITS.get(metric, "")) for metric in metrics],
        arms=[_arm(arm, analysis, metrics) for arm in record.arms],
        other_measures=_grouped(other_measures(analysis, metrics)),
        families=_families(analysis),
        pictures=[_picture(picture) for picture in pictures],
        curves=[(arm.name, [_picture(curve) for curve in curves if curve.arm == arm.name]) for arm in record.arms],
        samples=[_sample(sample, analysis.headline) for sample in samples],
        provenance=flattened(record.provenance),
        arm_facts=[(arm.name, flattened(arm.facts)) for arm in record.arms if arm.facts],
    )


def claim_and_facts(sentence: str) -> tuple[str, str]:
    """A verdict cut before its last bracket, which holds the numbers behind the claim; they may be empty."""
    claim, bracket, facts = sentence.rpartition(" (")
    if not bracket or not facts.endswith(")."):
        return sentence, ""
    facts = wording.signed(facts.removesuffix(").")).replace("n = ", "n\u00a0=\u00a0")
    return f"{claim}.".replace("only >= ", "only \u2265 "), facts


def facts_line(record: StudyRecord, analysis: Analysis) -> str:
    """How many arms, answers and comparisons the report is about."""
    answers = sum(len(arm.items) for arm in record.arms)
    questions = len({item.key for arm in record.arms for item in arm.items})
    parts = [
        _counted(len(record.arms), "arm"),
        _counted(questions, "question"),
        _counted(answers, "answer"),
        _counted(len(analysis.comparisons), "paired comparison"),
    ]
    return ", ".join(parts)


def cost_line(record: StudyRecord) -> str:
    """The cost of all arms together: seconds and tokens summed, the highest memory; empty where nothing is known."""
    total: dict[str, int | float] = {}
    for arm in record.arms:
        for name in ("seconds", "tokens"):
            if name in arm.cost:
                total[name] = total.get(name, 0.0) + arm.cost[name]
        if "peak_memory" in arm.cost:
            total["peak_memory"] = max(total.get("peak_memory", 0.0), arm.cost["peak_memory"])
    return wording.cost_text(total)


def other_measures(analysis: Analysis, shown: Sequence[str]) -> list[tuple[str, str, Cell, str]]:
    """Measures outside the table of arms, such as the reward's parts: (arm, metric, cell, source)."""
    return [
        (
            arm,
            metric,
            Cell(wording.measured(metric, measure), wording.interval(metric, measure), f"{measure.n:,}"),
            source,
        )
        for arm, found in analysis.measures.items()
        for metric, measure in found.items()
        for source in [measure.source]
        if metric not in shown
    ]


def flattened(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted name, text) rows, long texts cut."""
    rows: list[tuple[str, str]] = []
    for name, value in mapping.items():
        if isinstance(value, Mapping) and value:
            rows += flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            rows.append((f"{prefix}{name}", wording.shortened(", ".join(map(str, value)), LONGEST_FACT)))
        else:
            rows.append((f"{prefix}{name}", wording.shortened(str(value), LONGEST_FACT)))
    return rows


def _inert(value: Any) -> Any:
    """Every text that the template prints goes through here, then through the escaping."""
    return wording.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _arm(arm: Arm, analysis: Analysis, metrics: Sequence[str]) -> dict[str, Any]:
    found = analysis.measures[arm.name]
    cells = {}
    for metric in metrics:
        measure = found.get(metric)
        if measure is not None:
            own_n = f"n {measure.n:,}" if measure.n != len(arm.items) else ""
            cells[metric] = Cell(wording.measured(metric, measure), wording.interval(metric, measure), own_n)
    return {
        "arm": arm,
        "cells": cells,
        "n": f"{len(arm.items):,}" if arm.items else "",
        "cost": wording.cost_text({name: value for name, value in arm.cost.items() if name != "peak_memory"}),
    }


def _grouped(rows: Sequence[tuple[str, str, Cell, str]]) -> list[tuple[str, list[tuple[str, Cell, str]]]]:
    """The rows of each arm together."""
    arms = dict.fromkeys(arm for arm, *_ in rows)
    return [(name, [(metric, cell, source) for arm, metric, cell, source in rows if arm == name]) for name in arms]


def _families(analysis: Analysis) -> list[tuple[str, list[dict[str, Any]]]]:
    """The comparisons' rows under the metric and the test they share."""
    families: dict[str, list[dict[str, Any]]] = {}
    for compared in analysis.comparisons:
        heading = f"{wording.title(compared.comparison.metric)}, {compared.comparison.test}"
        families.setdefault(heading, []).append(_comparison(compared, analysis))
    return list(families.items())


def _comparison(compared: Compared, analysis: Analysis) -> dict[str, Any]:
    """A row of the comparisons' table; `bar` places its interval on the axis that all rows of the metric share."""
    comparison = compared.comparison
    unit = " points" if comparison.rate else ""
    numbers = [
        None if value is None else wording.signed(format_difference(value, comparison))
        for value in (comparison.difference, comparison.low, comparison.high)
    ]
    deciding = comparison.p_value if compared.p_holm is None else compared.p_holm
    return {
        "comparison": comparison,
        "against": compared.against,
        "difference": "none" if numbers[0] is None else numbers[0] + unit,
        "interval": "no interval" if None in numbers else f"{numbers[1]} to {numbers[2]}",
        "bar": _bar(compared, analysis),
        "p_value": wording.p_text(comparison.p_value),
        "p_holm": wording.p_text(compared.p_holm),
        "shown": deciding is not None and deciding < ALPHA,
        "detectable": _detectable(compared),
        "n": f"{comparison.n:,}",
    }


def _detectable(compared: Compared) -> str:
    smallest = compared.comparison.minimum_detectable
    if smallest is None or compared.comparison.p_value is None:
        return "none"
    return f"{100 * smallest:.1f} points" if compared.comparison.rate else wording.number(smallest)


def _bar(compared: Compared, analysis: Analysis) -> dict[str, str] | None:
    """Percent of the axis' width for the ends of the interval and its middle; 0 stands at 50 %."""
    comparison = compared.comparison
    if comparison.low is None or comparison.high is None or comparison.difference is None:
        return None
    same = [entry.comparison for entry in analysis.comparisons if entry.comparison.metric == comparison.metric]
    bounds = [abs(bound) for entry in same for bound in (entry.low, entry.high) if bound is not None]
    reach = max(bounds) or 1.0
    low, middle, high = (50 + 48 * bound / reach for bound in (comparison.low, comparison.difference, comparison.high))
    return {"left": f"{low:.2f}%", "width": f"{high - low:.2f}%", "middle": f"{middle:.2f}%"}


def _picture(picture: Picture) -> dict[str, str]:
    return {
        "title": picture.title,
        "caption": picture.caption,
        "alt": picture.alt,
        "light": f"data:image/svg+xml;base64,{base64.b64encode(picture.light).decode()}",
        "dark": f"data:image/svg+xml;base64,{base64.b64encode(picture.dark).decode()}",
    }


def _sample(sample: Sample, metric: str) -> dict[str, Any]:
    question = sample.question
    return {
        "outcome": sample.outcome,
        "kind": question.kind,
        "id": question.question_id,
        "question": wording.shortened(question.question),
        "reference": wording.shortened(question.reference_solution or ""),
        "answers": [
            {
                "arm": arm,
                "text": wording.shortened(item.answer),
                "correct": item.correct,
                "outcome": outcome_text(item, metric),
                "length": f"{item.tokens:,} tokens" + ("" if item.stopped else ", cut off"),
            }
            for arm, item in sample.answers
        ],
    }

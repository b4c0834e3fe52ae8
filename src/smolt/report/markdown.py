"""report.md: the same report for a terminal or a repository page, model text in indented blocks that render as text."""

import re
from collections.abc import Sequence

from smolt.report import page, wording
from smolt.report.analysis import METRICS, Analysis
from smolt.report.plots import Picture
from smolt.report.records import StudyRecord
from smolt.report.samples import Sample, outcome_text
from smolt.statistics import format_difference


def render(
    record: StudyRecord,
    analysis: Analysis,
    pictures: Sequence[Picture],
    curves: Sequence[Picture],
    samples: Sequence[Sample],
) -> str:
    """The report as Markdown; sections that the record does not support are absent."""
    cost = page.cost_line(record)
    blocks = [
        f"# {text(record.name)}",
        "\n".join(f"- {text(sentence)}" for sentence in analysis.verdicts),
        f"{page.facts_line(record, analysis)}." + (f" Cost: {cost}." if cost else ""),
        _arms(record, analysis),
        _comparisons(analysis),
        _pictures("Pictures", pictures),
        _pictures("Training", curves),
        _samples(samples, analysis.headline),
        _list("What happened", record.events),
        _list("Notes", [*analysis.caveats, *record.notes]),
        _provenance(record),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def text(words: str) -> str:
    """Text of the record inside a line: no line break, and no character that Markdown or HTML would act on."""
    line = re.sub(r"\s+", " ", wording.visible(words)).strip()
    return re.sub(r"([\\`*_\[\]<>|#~&!$])", r"\\\1", line)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _arms(record: StudyRecord, analysis: Analysis) -> str:
    rows = []
    for arm in record.arms:
        found = analysis.measures[arm.name]
        for metric in [*METRICS, *(name for name in found if name not in METRICS)]:
            if metric in found:
                measure = found[metric]
                value, interval = wording.measured(metric, measure), wording.interval(metric, measure)
                rows.append(
                    [text(arm.name), text(wording.title(metric)), value, interval, f"{measure.n:,}", measure.source]
                )
    if not rows:
        return ""
    heads = ["Arm", "Measure", "Value", "95 % interval", "n", "Interval by"]
    return "## Arms\n\n" + _table(heads, [[*row[:-1], text(row[-1])] for row in rows])


def _comparisons(analysis: Analysis) -> str:
    rows = []
    for compared in analysis.comparisons:
        comparison = compared.comparison
        size = [comparison.difference, comparison.low, comparison.high]
        difference, low, high = ("none" if x is None else format_difference(x, comparison) for x in size)
        rows.append(
            [
                f"{text(comparison.b)} against {text(comparison.a)}",
                text(wording.title(comparison.metric)),
                difference,
                f"{low} to {high}",
                f"{comparison.wins:,} / {comparison.regressions:,} / {comparison.ties:,}",
                text(wording.p_text(comparison.p_value)),
                text(wording.p_text(compared.p_holm)),
                f"{comparison.n:,}",
                comparison.test,
            ]
        )
    if not rows:
        return ""
    heads = ["Pair", "Metric", "Difference", "95 % interval", "Wins / regressions / ties", "p", "p (Holm)", "n", "Test"]
    return "## Paired comparisons\n\nRates differ in points.\n\n" + _table(heads, rows)


def _pictures(heading: str, pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    shown = [
        f"![{text(picture.alt)}](plots/{picture.name}.png)\n\n{text(' '.join(filter(None, _words(picture))))}"
        for picture in pictures
    ]
    return f"## {heading}\n\n" + "\n\n".join(shown)


def _words(picture: Picture) -> tuple[str, ...]:
    return (f"{picture.arm}: {picture.title}." if picture.arm else f"{picture.title}.", picture.caption)


def _samples(samples: Sequence[Sample], metric: str) -> str:
    parts = []
    for sample in samples:
        label = {"win": "A win", "regression": "A regression", "": "A question"}[sample.outcome]
        parts += [f"### {label}", _indented(sample.question.question)]
        for arm, item in sample.answers:
            parts += [
                f"{text(arm.name)}: {text(outcome_text(item, metric))}, {item.tokens:,} tokens",
                _indented(item.answer),
            ]
    return "\n\n".join(["## Answers side by side", *parts]) if parts else ""


def _indented(words: str) -> str:
    """A code block by indentation, which no text inside can end."""
    lines = wording.visible(wording.shortened(words)).split("\n")
    return "\n".join(f"    {line}" for line in lines) if words.strip() else "    (empty)"


def _list(heading: str, entries: Sequence[str]) -> str:
    return f"## {heading}\n\n" + "\n".join(f"- {text(entry)}" for entry in entries) if entries else ""


def _provenance(record: StudyRecord) -> str:
    rows = [[text(name), text(value)] for name, value in page.flattened(record.provenance)]
    rows += [
        [text(f"{arm.name}.{name}"), text(value)] for arm in record.arms for name, value in page.flattened(arm.facts)
    ]
    return "## Provenance\n\n" + _table(["Name", "Value"], rows) if rows else ""

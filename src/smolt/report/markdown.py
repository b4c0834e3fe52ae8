"""report.md: the same report for a terminal or a repository page, model text in indented blocks that render as text."""

import re
from collections.abc import Mapping, Sequence

from smolt.report import page, tables, wording
from smolt.report.analysis import Analysis
from smolt.report.inert import visible
from smolt.report.pairing import PART
from smolt.report.panels import Panel
from smolt.report.pictures.drawing import Picture
from smolt.report.pictures.plots import Pictures
from smolt.report.record import StudyRecord
from smolt.report.sections.samples import Sample, known_of


def render(
    record: StudyRecord, analysis: Analysis, panels: Sequence[Panel], pictures: Pictures, samples: Sequence[Sample]
) -> str:
    """The report as Markdown, in the order of the page; sections that the record does not support are absent."""
    early = [panel_section(panel, pictures) for panel in panels if panel.name in page.EARLY]
    late = [panel_section(panel, pictures) for panel in panels if panel.name not in page.EARLY]
    blocks = [
        f"# {text(record.name)}",
        "\n\n".join(f"**{text(sentence)}**" for sentence in analysis.summary),
        "\n".join(f"- {text(sentence)}" for sentence in analysis.verdicts),
        "\n".join(f"- Warning, {text(panel.title)}: {text(entry)}" for panel in panels for entry in panel.warnings),
        _cost(record),
        _arms(record, analysis, pictures.arms),
        _comparisons(analysis),
        *early,
        _pictures("Training", pictures.curves),
        *late,
        _samples(samples, analysis),
        _list("What happened", record.events),
        _list("Notes", [*analysis.caveats, *record.notes]),
        _provenance(record),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def text(words: str) -> str:
    """Text of the record inside a line: no line break, and no character that Markdown or HTML would act on."""
    line = re.sub(r"\s+", " ", visible(wording.shortened(words))).strip()
    return re.sub(r"([\\`*_\[\]<>|#~&!$])", r"\\\1", line)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cost(record: StudyRecord) -> str:
    rows = [
        ["In all" if row["total"] else text(row["name"]), row["seconds"], row["tokens"], row["memory"]]
        for row in tables.cost_rows(record)
    ]
    return "## Cost\n\n" + _table(["Arm", "Time", "Tokens", "Peak memory"], rows) if rows else ""


def _arms(record: StudyRecord, analysis: Analysis, pictures: Sequence[Picture]) -> str:
    rows = []
    for arm in record.arms:
        found = {name: measure for name, measure in analysis.shown(arm.name).items() if not name.startswith(PART)}
        for metric, measure in found.items():
            value, interval = wording.value_text(measure), wording.range_text(measure)
            cells = [arm.name, wording.title(metric), value, interval, f"{measure.n:,}", measure.source]
            rows.append([text(cell) for cell in cells])
    if not rows:
        return ""
    heads = ["Arm", "Measure", "Value", "95 % interval", "n", "Interval by"]
    began = "; ".join(f"{arm.name}: {arm.stage}, from {arm.parent}" for arm in record.arms if arm.parent)
    parts = ["## Arms", text(began), text(analysis.few), _table(heads, rows), *map(_figure, pictures)]
    return "\n\n".join(filter(None, parts))


def _comparisons(analysis: Analysis) -> str:
    rows = []
    for compared in analysis.comparisons:
        comparison, row = compared.comparison, tables.comparison_row(compared, analysis.comparisons)
        names = f"{comparison.b} against {comparison.a}", wording.title(comparison.metric)
        numbers = row["difference"], row["interval"], row["counts"], row["p_value"], row["p_holm"], row["n"]
        rows.append([text(cell) for cell in (*names, *numbers, comparison.test)])
    if not rows:
        return ""
    heads = ["Pair", "Metric", "Difference", "95 % interval", "Question by question", "p", "p (Holm)", "n", "Test"]
    return "## Paired comparisons\n\n" + _table(heads, rows)


def panel_section(panel: Panel, pictures: Pictures) -> str:
    """A finding as a section of its own: heading, warnings and sentences, pictures, tables."""
    found = [*panel.warnings, *panel.sentences]
    parts = [f"## {text(panel.title)}", "\n".join(f"- {text(sentence)}" for sentence in found)]
    parts += [_figure(picture) for picture in pictures.panels.get(panel.name, [])]
    for view in (tables.panel_table(table) for table in panel.tables if table.rows):
        heads = [text(column["title"]) for column in view["columns"]]
        rows = [[text(cell.text) for cell in row] for row in view["rows"]]
        parts += [text(view["caption"]), _table(heads, rows)]
    return "\n\n".join(part for part in parts if part)


def _pictures(heading: str, pictures: Sequence[Picture]) -> str:
    return "\n\n".join([f"## {heading}", *map(_figure, pictures)]) if pictures else ""


def _figure(picture: Picture) -> str:
    heading = f"{picture.arm}: {picture.title}." if picture.arm else f"{picture.title}." if picture.title else ""
    words = " ".join(filter(None, (heading, picture.caption)))
    return f"![{text(picture.alt)}](plots/{picture.name}.png)\n\n{text(words)}"


def _samples(samples: Sequence[Sample], analysis: Analysis) -> str:
    parts, best = [], text(analysis.best or "")
    for sample in samples:
        label = {"win": f"Win for {best}", "regression": f"Regression of {best}", "": "A question"}[sample.outcome]
        parts += [f"### {label}", _indented(sample.question.question)]
        for arm, item in sample.answers:
            parts += [
                f"{text(arm.name)}: {text(', '.join(known_of(item, analysis.headline)))}",
                _indented(item.answer),
            ]
    return "\n\n".join(["## Answers side by side", *parts]) if parts else ""


def _indented(words: str) -> str:
    """A code block by indentation, which no text inside can end."""
    lines = visible(wording.shortened(words)).split("\n")
    return "\n".join(f"    {line}" for line in lines) if words.strip() else "    (empty)"


def _list(heading: str, entries: Sequence[str]) -> str:
    return f"## {heading}\n\n" + "\n".join(f"- {text(entry)}" for entry in entries) if entries else ""


def _provenance(record: StudyRecord) -> str:
    facts: list[tuple[str, Mapping[str, object]]] = [
        ("", record.provenance),
        *((arm.name, arm.facts) for arm in record.arms),
    ]
    rows = [
        [text(f"{owner}.{name}" if owner else name), text(value)]
        for owner, mapping in facts
        for name, value in page.flattened(mapping)
    ]
    return "## Provenance\n\n" + _table(["Name", "Value"], rows) if rows else ""

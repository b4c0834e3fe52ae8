"""The audit's files: audit.json, audit.md, and suspects.jsonl with every ranked pair's line and doubt."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from smolt.data import write_rows
from smolt.preferences.audit.data_audit import Found
from smolt.report.inert import visible
from smolt.report.markdown import panel_section
from smolt.report.panels import Panel
from smolt.report.pictures.plots import Pictures
from smolt.report.wording import shortened
from smolt.runs import jsontext
from smolt.runs.storage import atomic_write


def write_audit(found: Found, panel: Panel, out: Path) -> None:
    """Write the audit's files into a directory, which is made.

    Raises:
        StorageError: the disk is full or failing.
    """
    out.mkdir(parents=True, exist_ok=True)
    jsontext.write(out / "audit.json", audit_facts(found, panel), indent=1)
    atomic_write(out / "audit.md", panel_section(panel, Pictures()) + "\n")
    if found.ranking is not None:
        ranked = zip(found.ranking.places, found.ranking.doubt, strict=True)
        rows = ({"line": found.items[place].line, "doubt": round(doubt, 6)} for place, doubt in ranked)
        write_rows(out / "suspects.jsonl", rows)


def audit_facts(found: Found, panel: Panel) -> dict[str, Any]:
    """The audit as JSON: counts, groups of lines, measures; no text of the data."""
    ranking = found.ranking
    suspects = [] if ranking is None else list(zip(ranking.places, ranking.doubt, strict=True))[:200]
    return {
        "path": found.path,
        "n": len(found.items),
        "skipped": found.skipped,
        "ties": found.ties,
        "same_answers": list(found.same),
        "duplicates": {"exact": found.exact, "near": found.near},
        "contradictions": {"opposite": found.opposite, "circles": found.circles},
        "traits": {one.name: asdict(one) for one in found.traits},
        "leakage": None if found.leakage is None else asdict(found.leakage),
        "expected": None if ranking is None or ranking.accuracy is None else asdict(ranking.accuracy),
        "judged_by": None if ranking is None else ranking.by,
        "suspects": [{"line": found.items[place].line, "doubt": doubt} for place, doubt in suspects],
        "sources": [asdict(part) for part in found.sources],
        "sentences": list(panel.sentences),
        "warnings": list(panel.warnings),
    }


def suspects_text(found: Found, number: int) -> str:
    """The most doubted pairs with their texts, made inert for a terminal."""
    places = () if found.ranking is None else found.ranking.places[:number]
    parts = []
    for place in places:
        item = found.items[place]
        shown = (("question", item.asked), ("preferred", item.better), ("other", item.worse))
        texts = "\n".join(f"  {name}: {visible(shortened(text, 600))}" for name, text in shown)
        parts.append(f"line {item.line}\n{texts}")
    return "\n\n".join(parts)

"""Findings for a reader: on a terminal, and as comparison.json, items.jsonl and a self-contained comparison.html.

The page and the files hold everything; a terminal has the verdicts, the tables and some of the items, made inert.
"""

import hashlib
import io
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from smolt.errors import UserError
from smolt.evaluation.comparing.paired import ArmPair, Findings
from smolt.report import page, tables, terminal, wording
from smolt.report.pictures.drawing import LIGHT
from smolt.runs import atomic_write, jsontext

NAMES = ("comparison.json", "items.jsonl", "comparison.html")
PER_LIST = 10
LONGEST = 100
LISTS = (("win", "Wins", "won by"), ("regression", "Regressions", "lost by"))
"""The outcomes whose items are listed: with their names on a terminal and on the page."""


def as_words(findings: Findings, show: int) -> str:
    """The verdicts, a table of the arms, one of the pairs, and `show` wins and regressions of each pair."""
    buffer = io.StringIO()
    width = max(80, shutil.get_terminal_size().columns)
    console = Console(file=buffer, width=width, force_terminal=False, highlight=False, markup=False)
    for sentence in findings.sentences():
        console.print(Text(terminal.inert(sentence)), soft_wrap=True)
    for warning in findings.warnings:
        console.print(Text(f"warning: {terminal.inert(warning)}."), style="bold", soft_wrap=True)
    console.print()
    for table in (terminal.measure_grid("arm", findings.metric, findings.arms), _pairs(findings), _counts(findings)):
        console.print(table)
    for pair in findings.pairs:
        for outcome, title, _ in LISTS:
            items = [item for item in pair.items if item.outcome == outcome][:show]
            if items:
                listed = f"the first {len(items)}" if len(items) > 1 else "the first"
                console.print(Text(f"{title} of {terminal.inert(pair.comparison.b)} ({listed})"))
            for item in items:
                parts = dict.fromkeys(terminal.inert(part) for part in (item.key, item.question) if part)
                console.print(Text(wording.shortened("  " + ": ".join(parts), LONGEST)), soft_wrap=True)
    for remark in findings.remarks:
        console.print(Text(f"note: {terminal.inert(remark)}"), style="dim", soft_wrap=True)
    return buffer.getvalue().rstrip("\n")


def _pairs(findings: Findings) -> Table:
    """One row an arm against the baseline."""
    compared = findings.compared()
    several = ["p, Holm"] if len(compared) > 1 else []
    against = f"against {next(iter(findings.arms))}{' (points)' if findings.rate else ''}"
    table = terminal.grid(against, "b - a", "95 % interval", "p", *several, "detectable")
    for entry in compared:
        row = tables.comparison_row(entry, compared)
        shown = ("difference", "interval", "p_value", *(["p_holm"] if several else []), "detectable")
        terminal.add_row(table, [entry.comparison.b, *(row[name].removesuffix(" points") for name in shown)])
    return table


def _counts(findings: Findings) -> Table:
    """The counts of the four-way chart."""
    compared = findings.compared()
    split = compared[0].both_right is not None
    table = terminal.grid("items", *(("both right", "won", "lost", "both wrong") if split else ("won", "tied", "lost")))
    for entry in compared:
        test, right = entry.comparison, entry.both_right
        ways = [test.wins, test.ties, test.regressions]
        if right is not None:
            ways = [right, test.wins, test.regressions, test.ties - right]
        terminal.add_row(table, [test.b, *(f"{count:,}" for count in ways)])
    return table


def write_comparison(directory: Path, findings: Findings) -> Path:
    """Write all three files and return the page's path.

    Raises:
        UserError: one of them is there already: nothing is written over.
        StorageError: the disk is full or failing.
    """
    there = next((name for name in NAMES if (directory / name).exists()), None)
    if there is not None:
        raise UserError(f"{directory / there}: is there already and is not written over; name another --out")
    directory.mkdir(parents=True, exist_ok=True)
    jsontext.write(directory / "comparison.json", jsontext.plain(findings.facts()))
    rows = [
        {"arm_a": pair.comparison.a, "arm_b": pair.comparison.b, **asdict(item)}
        for pair in findings.pairs
        for item in pair.items
    ]
    lines = "".join(jsontext.encode(jsontext.plain(row), "items.jsonl") + "\n" for row in rows)
    atomic_write(directory / "items.jsonl", lines)
    target = directory / "comparison.html"
    atomic_write(target, render(findings))
    return target


def render(findings: Findings) -> str:
    """The page: verdicts, arms, the four-way chart of each pair, and items that came out differently."""
    names = list(findings.arms)
    others = len(LIGHT.arms) - 1
    shown = {
        "title": f"{', '.join(pair.comparison.b for pair in findings.pairs)} against {names[0]}",
        "verdicts": [page.claim_and_facts(sentence) for sentence in findings.sentences()],
        "metric": wording.title(findings.metric),
        "arms": [
            {
                "name": name,
                "value": wording.value_text(measure),
                "interval": wording.range_text(measure),
                "n": f"{measure.n:,}",
                "source": measure.source,
                "path": findings.files[name]["path"],
            }
            for name, measure in findings.arms.items()
        ],
        "families": tables.families(findings.compared()),
        "places": {name: 0 if place == 0 else 1 + (place - 1) % others for place, name in enumerate(names)},
        "lists": [entry for pair in findings.pairs for entry in _lists(pair)],
        "remarks": [*findings.warnings, *findings.remarks],
    }
    return page.filled("comparison.html.j2", shown)


def _lists(pair: ArmPair) -> list[dict[str, Any]]:
    """Some of the wins and some of the regressions of a pair, drawn by the hash of their keys."""
    a, b = pair.comparison.a, pair.comparison.b
    found = []
    for outcome, _, said in LISTS:
        items = [item for item in pair.items if item.outcome == outcome]
        drawn = sorted(items, key=lambda item: hashlib.sha256(item.key.encode("utf-8", "replace")).digest())[:PER_LIST]
        chosen = [
            {
                "key": wording.shortened(item.key, 200),
                "question": item.question,
                "answers": [(a, f"{item.a:g}", item.answer_a), (b, f"{item.b:g}", item.answer_b)],
            }
            for item in drawn
        ]
        title = f"Items {said} {b}"
        found.append({"title": title, "shown": f"{len(drawn):,}", "count": f"{len(items):,}", "chosen": chosen})
    return [entry for entry in found if entry["chosen"]]

"""Findings as files: comparison.json, items.jsonl with every item, and comparison.html, self-contained."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smolt.errors import UserError
from smolt.evaluation.comparing.paired import ArmPair, ComparedItem, Findings
from smolt.report import page, tables, wording
from smolt.report.pictures.drawing import LIGHT
from smolt.runs import atomic_write, jsontext

NAMES = ("comparison.json", "items.jsonl", "comparison.html")
PER_LIST = 10
LISTS = (("win", "won by"), ("regression", "lost by"))


def write_comparison(directory: Path, findings: Findings) -> Path:
    """Write all three and return the page's path.

    Raises:
        UserError: one of them is there already: nothing is written over.
        StorageError: the disk is full or failing.
    """
    there = next((name for name in NAMES if (directory / name).exists()), None)
    if there is not None:
        raise UserError(f"{directory / there}: is there already and is not written over; name another --out")
    directory.mkdir(parents=True, exist_ok=True)
    jsontext.write(directory / "comparison.json", jsontext.plain(findings.facts()))
    atomic_write(
        directory / "items.jsonl", "".join(_line(pair, item) for pair in findings.pairs for item in pair.items)
    )
    target = directory / "comparison.html"
    atomic_write(target, render(findings))
    return target


def render(findings: Findings) -> str:
    """The page: verdicts, arms, the four-way chart of each pair, and items that came out differently."""
    names = list(findings.arms)
    compared = [pair.comparison.b for pair in findings.pairs]
    others = len(LIGHT.arms) - 1
    shown = {
        "title": f"{', '.join(compared)} against {names[0]}",
        "verdicts": [page.claim_and_facts(sentence) for sentence in findings.sentences()],
        "metric": wording.title(findings.metric),
        "arms": [_arm(findings, name) for name in names],
        "families": tables.families(findings.compared()),
        "places": {name: 0 if place == 0 else 1 + (place - 1) % others for place, name in enumerate(names)},
        "lists": [entry for pair in findings.pairs for entry in _lists(pair)],
        "remarks": [*findings.warnings, *findings.remarks],
    }
    return page.filled("comparison.html.j2", shown)


def _line(pair: ArmPair, item: ComparedItem) -> str:
    row = {"arm_a": pair.comparison.a, "arm_b": pair.comparison.b, **asdict(item)}
    return jsontext.encode(jsontext.plain(row), "items.jsonl") + "\n"


def _arm(findings: Findings, name: str) -> dict[str, str]:
    measure = findings.arms[name]
    path = findings.files[name]["path"]
    return {
        "name": name,
        "value": wording.value_text(measure),
        "interval": wording.range_text(measure),
        "n": f"{measure.n:,}",
        "source": measure.source,
        "path": path,
    }


def _lists(pair: ArmPair) -> list[dict[str, Any]]:
    """Some of the wins and some of the regressions of a pair."""
    found = []
    for outcome, said in LISTS:
        items = [item for item in pair.items if item.outcome == outcome]
        if items:
            chosen = sorted(items, key=lambda item: hashlib.sha256(item.key.encode("utf-8", "replace")).digest())
            found.append(_list(pair, said, items, chosen[:PER_LIST]))
    return found


def _list(pair: ArmPair, said: str, items: Sequence[ComparedItem], chosen: Sequence[ComparedItem]) -> dict[str, Any]:
    a, b = pair.comparison.a, pair.comparison.b
    return {
        "title": f"Items {said} {b}",
        "shown": f"{len(chosen):,}",
        "count": f"{len(items):,}",
        "chosen": [
            {
                "key": wording.shortened(item.key, 200),
                "question": item.question,
                "answers": [(a, f"{item.a:g}", item.answer_a), (b, f"{item.b:g}", item.answer_b)],
            }
            for item in chosen
        ],
    }

"""What a run left on the disk, without what a clock decides."""

import json
import re
from pathlib import Path
from typing import Any

from smolt.runs import checkpoints

TIMES = ("seconds", "tokens_per_second", "shares", "peak_memory", "memory")  # the last: the estimate, of this process
SEALS = ("checkpoint.json", "checkpoint.sha256", "files.sha256")  # sums of files that hold times
MEASURED = re.compile(r"\d[\d.,]*(?=[ \u202f](?:s|min|ms|h|MiB|GiB)\b)|(?<=width=\")[\d.]+(?=%)|data:image/[^\"]*")
"""Durations, sizes of memory, bars of shares of time, and pictures in pages (they are compared as files)."""


def traces(out: Path) -> dict[str, Any]:
    """All that must be equal: the model's files, the last checkpoint's bytes and state, every row, the result."""
    last, damage = checkpoints.newest(out / "checkpoints")
    assert last is not None
    assert damage == []
    return {
        "model": {path.name: path.read_bytes() for path in sorted((out / "model").rglob("*")) if path.is_file()},
        "checkpoint": (last.step, last.digests, timeless(last.state)),
        "result": timeless(json.loads((out / "result.json").read_text())),
        **{name: rows(out / name) for name in ("metrics.jsonl", "samples.jsonl")},
    }


def directory(out: Path) -> dict[str, Any]:
    """Every file of a run, a study or a measurement, by its path: bytes, but without what a clock decides."""
    return {
        path.relative_to(out).as_posix(): _content(path)
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix not in (".lock", ".sqlite") and path.name not in SEALS
        if not path.stem.startswith("choice-time")
    }


def _content(path: Path) -> Any:
    if path.suffix == ".jsonl":
        return rows(path)
    if path.suffix in (".html", ".md", ".json"):
        text = MEASURED.sub("?", path.read_text(encoding="utf-8"))
        return timeless(json.loads(text)) if path.suffix == ".json" else text
    return path.read_bytes()


def rows(path: Path) -> list[Any]:
    """The rows of a file that may be missing, without times."""
    return [timeless(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def timeless(value: Any) -> Any:
    """The same without what a clock or the memory's state decides."""
    if isinstance(value, list):
        return [timeless(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if key not in (*TIMES, "seal") and not key.endswith("_seconds")}
    return {key: timeless(item) for key, item in kept.items()}

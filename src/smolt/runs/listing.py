"""The runs below a directory and their states, read from outside: nothing is opened, locked for long or written."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from smolt.errors import UserError
from smolt.runs import identity, jsontext
from smolt.runs.directory import METRICS, REFUSED
from smolt.runs.identity import MANIFEST
from smolt.runs.inventory import CHECKPOINTS, MODEL, PLOTS, RESULT
from smolt.runs.locks import LOCK, is_locked

RunState = Literal["running", "complete", "interrupted", "refused", "damaged"]
DEEPEST = 5
"""Folders below the directory that are looked into: a study's section of a seed lies three deep."""
MOST = 500
MODEL_FILES = ("config.json", "adapter_config.json")
_PASSED_OVER = frozenset({CHECKPOINTS, MODEL, PLOTS})


@dataclass(frozen=True)
class FoundRun:
    """A run as it lies on the disk.

    Attributes:
        name: its path from the directory that was looked through, with "/" between folders.
        directory: where it lies, absolute.
        stage: sft, grpo, study ...; empty where nothing is trained (problems, pairs) or the manifest is damaged.
        state: running while a process holds its lock; complete with a result; refused where nothing could be learned,
            or by a reward model's gate; interrupted otherwise: the same command continues it; damaged where its
            manifest cannot be read.
        manifest: of it, empty where it is damaged.
        result: what it ended with, empty before.
        reason: why it was refused or is damaged, else empty.
        model: whether it holds a model that answers (a reward model does not).
    """

    name: str
    directory: Path
    stage: str
    state: RunState
    manifest: dict[str, Any]
    result: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    model: bool = False


def runs_below(directory: Path) -> list[FoundRun]:
    """Every run below a directory, a study before its sections, the latest begun first; at most MOST.

    Symbolic links are not followed, so that what is found lies in the directory.
    """
    directory = directory.resolve()
    found = []
    for folder in _folders(directory, DEEPEST):
        found.append(run_at(directory, folder.relative_to(directory).as_posix()))
        if len(found) == MOST:
            break
    begun: dict[str, float] = {}
    for run in found:
        top = run.name.split("/")[0]
        begun[top] = max(begun.get(top, 0.0), _changed(run.directory / MANIFEST))
    order = {run.name: place for place, run in enumerate(found)}
    return sorted(found, key=lambda run: (-begun[run.name.split("/")[0]], run.name.split("/")[0], order[run.name]))


def run_at(directory: Path, name: str) -> FoundRun:
    """One run by its name below a directory.

    Raises:
        UserError: there is none of this name, or the name leads out of the directory.
    """
    root = directory.resolve()
    folder = (root / name).resolve() if "\0" not in name else root
    inside = folder.is_relative_to(root) and folder.relative_to(root).as_posix() == name
    if not inside or not (folder / MANIFEST).is_file():
        raise UserError(f"{name!a}: no run of this name in {directory}")
    held = is_held(folder)
    try:
        manifest = identity.read_manifest(folder)
    except UserError as error:
        return FoundRun(name, folder, "", "running" if held else "damaged", {}, reason=str(error))
    stage, result = str(manifest.get("stage", "")), _result(folder)
    reason = str(manifest.get(REFUSED) or result.get(REFUSED) or "")
    state: RunState = "interrupted"
    if held:
        state = "running"
    elif reason:
        state = "refused"
    elif result:
        state = "complete"
    answers = stage != "reward" and any((folder / MODEL / file).is_file() for file in MODEL_FILES)
    return FoundRun(name, folder, stage, state, manifest, result, reason, answers)


def is_held(directory: Path) -> bool:
    """Whether a process works in a run directory; tried with a shared lock that is given back at once."""
    try:
        return is_locked(directory / LOCK)
    except OSError:
        return False


def logged_rows(directory: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, also while it is written; a torn or unreadable line is left out."""
    try:
        lines = (directory / METRICS).read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    return [row for row in map(_row, lines) if row]


def _result(folder: Path) -> dict[str, Any]:
    try:
        return jsontext.read_object(folder / RESULT)
    except (OSError, ValueError):
        return {}


def _row(line: bytes) -> dict[str, Any]:
    try:
        return jsontext.decode_object(line, METRICS)
    except ValueError:
        return {}


def _folders(directory: Path, depth: int) -> Iterator[Path]:
    """The run directories, each before what lies in it, in the order in which they were begun."""
    try:
        entries = [entry for entry in directory.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return
    entries.sort(key=lambda entry: (_changed(entry / MANIFEST), entry.name))
    for entry in entries:
        if entry.name in _PASSED_OVER or entry.is_symlink() or not entry.is_dir():
            continue
        if identity.is_run(entry) or all((entry / name).is_file() for name in (MANIFEST, LOCK)):
            yield entry
        if depth > 1:
            yield from _folders(entry, depth - 1)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0

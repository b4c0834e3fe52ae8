"""Checkpoints: DIR/checkpoints/step-00000012, and snapshots of the best model: DIR/checkpoints/step-00000012-best.

Each holds plain files, their SHA-256 and a state:

    adapter.safetensors ...   the blobs, by the names their writer gave them
    checkpoint.json           step, size and SHA-256 of every blob, and the state
    checkpoint.sha256         the SHA-256 of checkpoint.json, in the format of `sha256sum -c`

A directory gets its name only after every byte in it was synced and read back; so a name means a whole checkpoint,
and what the checksums find later is damage. The best are a series of their own: a run never continues from one (it may
hold weights only), and with every checkpoint the best up to it is kept.
"""

import contextlib
import errno
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from smolt.runs import inventory, jsontext, storage

Content = bytes | Sequence[bytes | memoryview]
"""Of one file: whole, or its parts in order (so that what lies in memory anyway is not copied)."""

INDEX = "checkpoint.json"
SEAL = "checkpoint.sha256"
_BLOB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_DIRECTORY_NAME = re.compile(r"step-(\d+)(?:\.(\d+))?(-best)?")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; blobs are read when asked for.

    `beside` is what its run noted of itself: the row files up to this step, damage that was found.
    """

    directory: Path
    step: int
    best: bool
    state: dict[str, Any]
    digests: dict[str, str]
    beside: dict[str, Any]

    def read(self, name: str) -> bytes:
        """The bytes of one blob, checked once more.

        Raises:
            KeyError: no blob of that name.
            StorageError: the bytes changed since they were verified, or cannot be read.
        """
        expected = self.digests[name]
        path = self.directory / name
        with storage.storage_errors("reading", path):
            content = path.read_bytes()
            if (found := hashlib.sha256(content).hexdigest()) != expected:
                raise OSError(errno.EIO, f"expected sha256 {expected}, found {found}")
        return content


@dataclass(frozen=True, order=True)
class _Entry:
    """A directory that bears a checkpoint's name; `again` counts repeated saves of one step."""

    step: int
    again: int
    best: bool
    directory: Path


def save(
    folder: Path,
    step: int,
    blobs: Mapping[str, Content],
    state: dict[str, Any],
    keep: int = 2,
    best: bool = False,
    beside: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write and verify a checkpoint, then remove those it makes superfluous.

    A checkpoint leaves the `keep` newest steps up to its own; later steps go: they belong to a continuation that was
    given up (a damaged checkpoint skipped on resume). A best one leaves all checkpoints. Both leave the newest best
    one, and the newest best one up to each checkpoint that stays, so that whichever is loaded finds its own.

    Args:
        folder: DIR/checkpoints, created where it is missing.
        step: updates done, >= 0.
        blobs: file name to content; names of letters, digits, '.', '_' and '-'.
        state: JSON values that come back exactly: no tuples, no NaN, text keys.
        keep: >= 1.
        best: a snapshot of the best model so far, not a checkpoint to continue from.
        beside: JSON values of the run itself.

    Returns:
        The directory of the new checkpoint.

    Raises:
        StorageError: the disk is full or failing, or gave back other bytes; all earlier checkpoints are intact.
        ValueError, TypeError, SelfCheckError: the arguments cannot be saved; nothing was written.
    """
    index = _index(step, blobs, state, keep, beside)
    storage.make_directory(folder)
    same = [entry for entry in _entries(folder) if (entry.step, entry.best) == (step, best)]
    again = max((entry.again + 1 for entry in same), default=0)
    target = folder / f"step-{step:08d}{f'.{again}' if again else ''}{'-best' if best else ''}"
    temporary = storage.temporary_name(target)
    try:
        _write(temporary, blobs, index)
        if faults := verify(temporary)[1]:
            raise storage.StorageError(
                errno.EIO, f"the disk gave back other bytes than were written: {faults[0]}", str(target)
            )
        storage.rename(temporary, target)
    finally:
        _discard(temporary)
    for entry in _superfluous(_entries(folder), _Entry(step, again, best, target), keep):
        storage.remove_directory(entry.directory)
    return target


def newest(folder: Path, best: bool = False) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint (or best snapshot, if asked) whose every byte is as it was written.

    Returns:
        The checkpoint, or None where there is none; and one line (file, expected, found) per fault passed over.
    """
    warnings: list[str] = []
    for entry in sorted(_entries(folder), reverse=True):
        if entry.best != best:
            continue
        index, faults = verify(entry.directory)
        if not faults:
            digests = {name: blob["sha256"] for name, blob in index["blobs"].items()}
            beside = index.get("beside", {})
            return Checkpoint(entry.directory, index["step"], entry.best, index["state"], digests, beside), warnings
        warnings += faults
    return None, warnings


def exist(folder: Path) -> bool:
    """Whether there is a checkpoint to continue from, sound or damaged."""
    return any(not entry.best for entry in _entries(folder))


def last_step(folder: Path) -> int:
    """The step of the newest checkpoint, sound or damaged; 0 where there is none."""
    return max((entry.step for entry in _entries(folder) if not entry.best), default=0)


def drop_best_after(folder: Path, step: int) -> None:
    """Remove the best snapshots after `step`: what continues from there will find its own."""
    for entry in sorted(_entries(folder)):
        if entry.best and entry.step > step:
            storage.remove_directory(entry.directory)


def verify(directory: Path) -> tuple[dict[str, Any], list[str]]:
    """Compare every byte of a checkpoint with its checksums.

    Returns:
        Its index, and one line per fault (`file: expected ..., found ...`); the index is empty when itself damaged.
    """
    path = directory / INDEX
    try:
        seal, content = (directory / SEAL).read_bytes(), path.read_bytes()
    except OSError as error:
        return {}, [f"{error.filename}: expected a file, found none that can be read ({error.strerror})"]
    expected = _seal(content)
    if seal != expected:
        return {}, [f"{path}: expected {seal[:64]!r} as its sha256 (by {SEAL}), found {expected[:64]!r}"]
    index = jsontext.decode_object(content, str(path))
    faults = (_fault(directory, name, blob["bytes"], blob["sha256"]) for name, blob in index["blobs"].items())
    return index, [fault for fault in faults if fault]


def _fault(directory: Path, name: str, size: int, digest: str) -> str | None:
    if not _BLOB_NAME.fullmatch(name):
        return f"{directory / INDEX}: {name!r} is not the name of a file in a checkpoint"
    return inventory.fault(directory / name, digest, size)


def _index(
    step: int, blobs: Mapping[str, Content], state: dict[str, Any], keep: int, beside: Mapping[str, Any]
) -> bytes:
    """The text of checkpoint.json, after all checks of the arguments."""
    if type(step) is not int or step < 0 or keep < 1:
        raise ValueError(f"a checkpoint needs step >= 0 and keep >= 1, found step {step!r}, keep {keep!r}")
    for name in blobs:
        if not _BLOB_NAME.fullmatch(name) or name in (INDEX, SEAL):
            raise ValueError(f"{name!r} cannot be the name of a file in a checkpoint")
    sums = {name: _sums(_parts(blob)) for name, blob in blobs.items()}
    index = {"format": 1, "step": step, "blobs": sums, "state": state, "beside": dict(beside)}
    return jsontext.encode_exact(index, f"checkpoint of step {step}", indent=1).encode()


def _parts(content: Content) -> Sequence[bytes | memoryview]:
    return [content] if isinstance(content, bytes) else content


def _sums(parts: Iterable[bytes | memoryview]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    for part in parts:
        digest.update(part)
        size += len(part)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _seal(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {INDEX}\n".encode()


def _write(directory: Path, blobs: Mapping[str, Content], index: bytes) -> None:
    storage.make_directory(directory)
    for name, blob in blobs.items():
        storage.write_durably(directory / name, _parts(blob))
    storage.write_durably(directory / INDEX, [index])
    storage.write_durably(directory / SEAL, [_seal(index)])
    storage.sync(directory)


def _discard(temporary: Path) -> None:
    """What cannot be removed now is swept at the next start."""
    if temporary.exists():
        with contextlib.suppress(storage.StorageError):
            storage.remove_directory(temporary)


def _entries(folder: Path) -> list[_Entry]:
    if not folder.is_dir():
        return []
    found = []
    for directory in folder.iterdir():
        if (match := _DIRECTORY_NAME.fullmatch(directory.name)) and directory.is_dir():
            found.append(_Entry(int(match[1]), int(match[2] or 0), bool(match[3]), directory))
    return found


def _superfluous(entries: Iterable[_Entry], new: _Entry, keep: int) -> list[_Entry]:
    """What goes now that `new` is on the disk; see `save`."""
    newest_first = sorted(entries, reverse=True)
    checkpoints = [entry for entry in newest_first if not entry.best]
    best = [entry for entry in newest_first if entry.best and entry.step <= new.step]
    if not new.best:
        newest_of_step: dict[int, _Entry] = {}
        for entry in checkpoints:
            newest_of_step.setdefault(entry.step, entry)
        checkpoints = [entry for step, entry in newest_of_step.items() if step <= new.step][:keep]
    last_steps = [new.step, *[entry.step for entry in checkpoints]]
    bests = {entry for last in last_steps for entry in [each for each in best if each.step <= last][:1]}
    return sorted({*newest_first} - {*checkpoints, *bests})

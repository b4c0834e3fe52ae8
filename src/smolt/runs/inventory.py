"""What a finished run has written, with its checksums: DIR/files.sha256, which `sha256sum -c` reads too.

It lists every file that others stand on: manifest, result, rows, reports, plots and the model, and the lists and seals
of the runs inside it (a study's sections, its arms' answers). Before a run is opened, continued, compared or chatted
with, what is damaged, missing or other than it was is named.
"""

import errno
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from smolt.runs import storage

LOG = logging.getLogger(__name__)
INVENTORY = "files.sha256"
RESULT = "result.json"
MODEL, PLOTS, CHECKPOINTS = "model", "plots", "checkpoints"
SUMS = ".sha256"
KEPT = re.compile(r"[^.].*\.(json|jsonl|txt|html|md|svg|png)")
"""Files beside the model that are listed; locks, databases and checkpoints look after themselves."""

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def fault(path: Path, digest: str, size: int | None = None) -> str | None:
    """How a file differs from what it was (`file: expected ..., found ...`), None where it does not."""
    try:
        found_size, found = path.stat().st_size, storage.sha256_of(path)
    except OSError as error:
        what = "a file" if size is None else f"{size} bytes"
        return f"{path}: expected {what}, found none that can be read ({error.strerror})"
    if size is not None and found_size != size:
        return f"{path}: expected {size} bytes, found {found_size}"
    return None if found == digest else f"{path}: expected sha256 {digest}, found {found}"


def write(directory: Path, result: bytes) -> None:
    """List the files of a run that is about to be complete, with its result, which is written after this."""
    files = {path.relative_to(directory).as_posix(): storage.sha256_of(path) for path in _files(directory)}
    files[RESULT] = sha256(result).hexdigest()
    _write(directory / INVENTORY, files)


def _write(path: Path, files: Mapping[str, str]) -> None:
    storage.atomic_write(path, "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items())))


def damage(directory: Path, below: str = "") -> list[str]:
    """One line for each file of a finished run, or for those whose names begin so, that is not as it was written.

    A run that is not finished has no inventory to compare with.
    """
    path = directory / INVENTORY
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    faults: list[str | None] = []
    if (directory / RESULT).is_file() and not any(line.endswith(f"  {RESULT}") for line in lines):
        faults.append(f"{path}: expected the checksums of a finished run, found none of {RESULT}")
    for number, line in enumerate(lines, 1):
        entry = _LINE.fullmatch(line)
        if entry is None:
            faults.append(f"{path}:{number}: expected a checksum and a name, found {line[:60]!r}")
        elif entry[2].startswith(below):
            faults.append(_fault_once(directory / entry[2], entry[1]))
            faults += _damage_inside(directory / entry[2])
    return [line for line in faults if line]


def _damage_inside(path: Path) -> list[str]:
    """What a run inside another says of its own files, by its list, or by the seal of one file."""
    if path.name == INVENTORY:
        return damage(path.parent)
    sealed_file = path.with_suffix("")
    digest = _read_seal(sealed_file) if path.suffix == SUMS else None
    damaged = digest and _fault_once(sealed_file, digest)
    return [damaged] if damaged else []


def require(directory: Path, below: str = "", advice: str = "") -> None:
    """Refuse a run with damaged files.

    Args:
        directory: of a run.
        below: look at files whose names begin so.
        advice: what to do, instead of the usual.

    Raises:
        StorageError: names every damaged file.
    """
    found = damage(directory, below)
    if found:
        lines = "".join(f"\n  {line}" for line in found)
        advice = advice or (
            f"put them back; or remove {directory / RESULT} and run the run's own command again, which makes "
            "them from its last checkpoint; or start over with --fresh"
        )
        raise storage.StorageError(
            errno.EIO, f"files of this finished run are not as {INVENTORY} has them; {advice}:{lines}", str(directory)
        )


def require_file(path: Path) -> None:
    """Refuse a damaged file, where it lies in a finished run that lists it, or its seal beside it.

    Raises:
        StorageError: names it.
    """
    path = path.absolute()
    require(path.parent, path.name, "put it back, or have it made again")
    sealed_as = _read_seal(path)
    damaged = sealed_as and fault(path, sealed_as)
    if damaged:
        raise storage.StorageError(errno.EIO, f"{damaged}: put it back, or have it made again", str(path))


def renew(directory: Path, names: Collection[str]) -> None:
    """List files of a finished run as they are now, made again or no more; a run around it lists the list anew."""
    path = directory.absolute() / INVENTORY
    if not path.is_file():
        return
    entries = (_LINE.fullmatch(line) for line in path.read_text(encoding="utf-8").splitlines())
    files = {entry[2]: entry[1] for entry in entries if entry is not None}
    listed = [name for name in names if name in files]
    if not listed:
        return
    kept = [name for name in listed if (path.parent / name).is_file()]
    rest = {name: digest for name, digest in files.items() if name not in listed}
    _write(path, rest | {name: storage.sha256_of(path.parent / name) for name in kept})
    for above in path.parents[1:3]:  # a study lies one level up, or two with several seeds
        renew(above, [path.relative_to(above).as_posix()])


def _fault_once(path: Path, digest: str) -> str | None:
    """A large file is read once a process, unless it changed meanwhile."""
    try:
        status = path.stat()
    except OSError:
        return fault(path, digest)
    return _remembered(path, digest, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=1024)
def _remembered(path: Path, digest: str, *status: int) -> str | None:
    return fault(path, digest)


def _files(directory: Path) -> Iterator[Path]:
    yield from (path for path in directory.iterdir() if path.is_file() and KEPT.fullmatch(path.name))
    for folder in (MODEL, PLOTS):
        yield from (path for path in (directory / folder).rglob("*") if path.is_file())
    inside = (path for path in directory.rglob(f"*{SUMS}") if path.parent != directory)
    yield from (path for path in inside if CHECKPOINTS not in path.relative_to(directory).parts)


def seal(path: Path) -> None:
    """Write a whole file's checksum beside it."""
    storage.atomic_write(_seal_of(path), f"{storage.sha256_of(path)}  {path.name}\n")


def unseal(path: Path) -> None:
    """Take a file's seal away: it is to be made again."""
    with storage.storage_errors("removing", path):
        _seal_of(path).unlink(missing_ok=True)


def sealed(path: Path) -> bool:
    """Whether a file is there as it was sealed. One that is not is named and to be made again."""
    digest = _read_seal(path)
    if not path.exists() or digest is None:  # it was being written when the process ended, or is not ours
        return False
    damaged = fault(path, digest)
    if damaged:
        LOG.warning("%s: it is made again", damaged)
    return damaged is None


def _read_seal(path: Path) -> str | None:
    beside = _seal_of(path)
    found = _LINE.fullmatch(beside.read_text(encoding="utf-8", errors="replace").rstrip()) if beside.is_file() else None
    return None if found is None else found[1]


def _seal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{SUMS}")

"""A run directory: created or continued by one process at a time, and never written over.

Of several processes that share their work the first one holds the lock and writes. The others read, and learn from it
what lies on the disk, so that all find the same; each method is called by all of them or by none.
"""

import contextlib
import errno
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from smolt import processes
from smolt.errors import UserError
from smolt.runs import checkpoints, identity, inventory, jsontext, storage
from smolt.runs.checkpoints import Checkpoint, Content
from smolt.runs.identity import FORMAT, MANIFEST
from smolt.runs.inventory import CHECKPOINTS, RESULT
from smolt.runs.locks import LOCK, DirectoryLock, acquire, require_writable
from smolt.runs.rows import RowFile

LOG = logging.getLogger(__name__)
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
PROCESSES = "processes"  # in the manifest: how many shared the work when the run began, where there were several
REFUSED = "refused"  # in the manifest: why nothing could be learned

Status = Literal["new", "resumable", "complete"]


class Run:
    """An open run directory. Use `Run.open`, and `with` or `close()`.

    Attributes:
        directory: where it lies, absolute.
        manifest: as on disk: for a continued run what its first start measured (precision, threads), to be used again.
        warnings: lines for the user: damaged checkpoints, unreadable rows, other versions, all worked around. What is
            found after the opening is logged too.
    """

    def __init__(
        self,
        directory: Path,
        lock: DirectoryLock | None,
        manifest: dict[str, Any],
        warnings: list[str],
        loaded: bool,
        samples: str = SAMPLES,
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.warnings = warnings
        self._lock = lock
        self._loaded = loaded
        self._damage: list[str] = []
        self._metrics = RowFile(directory / METRICS)
        self._samples = RowFile(directory / samples)

    @classmethod
    def open(cls, directory: Path, *, manifest: dict[str, Any], fresh: bool = False, samples: str = SAMPLES) -> "Run":
        """Create a run directory, or continue the run in it.

        Args:
            directory: created with its parents where it is missing.
            manifest: JSON values; `recipe`, `data`, `model`, `renderer` are its identity, the rest (versions, seeds,
                precision, threads, ...) is recorded. Written before this returns.
            fresh: set a run that is there aside, as DIR.old-1, DIR.old-2, ..., and start a new one; a run
                that was refused is set aside in any case.
            samples: the file of the rows that `sample` takes.

        Raises:
            UserError: the run there was started with something else and has something to lose (a row, a checkpoint,
                a result), or what the directory holds is not a run.
            DirectoryInUse: another process is working in it.
            StorageError: the disk is full or failing, or files of a complete run are not as they were written.
        """
        opened = list["Run"]()

        def by_one() -> tuple[Path, dict[str, Any], list[str], bool]:
            run = cls._open(directory.resolve(), manifest, fresh, samples)
            opened.append(run)
            return run.directory, run.manifest, run.warnings, run._loaded

        place, stored, warnings, loaded = processes.by_first(by_one)
        if opened:
            return opened[0]
        _require_seen(place, stored)
        return cls(place, None, stored, warnings, loaded, samples)

    @classmethod
    def _open(cls, directory: Path, manifest: dict[str, Any], fresh: bool, samples: str) -> "Run":
        """Of the process that writes."""
        current = identity.normal(manifest)
        _refuse_foreign(directory)
        with contextlib.ExitStack() as failing:
            lock = _lock(directory, fresh or _refused(directory))
            failing.callback(lock.release)
            storage.sweep(directory)
            if (directory / CHECKPOINTS).is_dir():
                storage.sweep(directory / CHECKPOINTS)
            if not (directory / MANIFEST).exists():
                identity.write_manifest(directory, current)
                run = cls(directory, lock, current, [], True, samples)
            else:
                stored = identity.read_manifest(directory)
                if not _began(directory, samples) and identity.differences_of(stored, current):
                    identity.write_manifest(directory, current)  # it failed before its first update: nothing is lost
                    stored = current
                identity.refuse_other(directory, stored, current)
                if (directory / RESULT).is_file():
                    inventory.require(directory)
                changed = identity.differences(stored.get("versions"), current.get("versions"), "versions")
                changed += identity.differences(stored.get(PROCESSES, 1), current.get(PROCESSES, 1), PROCESSES)
                warnings = [f"{line}: the numbers may differ in their last digits" for line in changed]
                run = cls(directory, lock, stored, warnings, False, samples)
            failing.pop_all()
        return run

    @staticmethod
    def finished(directory: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
        """The result of a complete run of this very recipe, without opening it; None where `open` must decide.

        Args:
            directory: where the run would be.
            recipe: as in its manifest.

        Raises:
            StorageError: its files are not as they were written.
        """
        return processes.by_first(lambda: Run._finished(directory, recipe))

    @staticmethod
    def _finished(directory: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
        if not (directory / MANIFEST).is_file() or not (directory / RESULT).is_file():
            return None
        try:
            result = jsontext.read_object(directory / RESULT)
            stored = identity.read_manifest(directory)
        except ValueError:  # damaged
            return None
        if identity.differences(stored.get("recipe"), recipe, "recipe"):
            return None
        inventory.require(directory)
        return result

    @property
    def status(self) -> Status:
        """`complete` once the result is written, `resumable` with a checkpoint, else `new`."""
        if self.result is not None:
            return "complete"
        resumable = processes.by_first(lambda: checkpoints.exist(self.directory / CHECKPOINTS))
        return "resumable" if resumable else "new"

    @property
    def result(self) -> dict[str, Any] | None:
        """What `complete` wrote, None before, or when it cannot be read (the end is then done once more)."""
        return processes.by_first(self._read_result)

    def _read_result(self) -> dict[str, Any] | None:
        try:
            return jsontext.read_object(self.directory / RESULT)
        except (FileNotFoundError, ValueError):
            return None

    def measured(self, values: dict[str, Any]) -> None:
        """Add what was measured (precision, threads, speed, a reward's forecast) to the manifest.

        Raises:
            ValueError: a value would change the run's identity, or one that a checkpoint was made with.
        """
        if self.status != "new" and set(values) & set(self.manifest):
            raise ValueError("what a run with a checkpoint has measured stays as it is")
        if set(values) & {*identity.IDENTITY, "format"}:
            raise ValueError("a run takes measurements, and none of them may be part of its identity")
        self.manifest = identity.normal({**self.manifest, **values})
        identity.write_manifest(self.directory, self.manifest)

    def log(self, row: dict[str, Any]) -> None:
        """Append a row to metrics.jsonl at once. Rows of step k come before the checkpoint of step k.

        Args:
            row: JSON values with `step`, the number of updates done; None means not measured.

        Raises:
            SelfCheckError: a value that is not finite, named; it is not written.
            ValueError: no `step`, or a continued run whose checkpoint was not loaded.
        """
        self._require_loaded()
        if self._lock is not None:
            self._metrics.add(row)
            self._metrics.flush()

    def sample(self, row: dict[str, Any]) -> None:
        """Add a row to samples.jsonl; it is written by `flush`, once per update. Arguments and errors as of `log`."""
        self._require_loaded()
        if self._lock is not None:
            self._samples.add(row)

    def samples(self) -> list[dict[str, Any]]:
        """All rows that `sample` took, of earlier processes too."""
        self._require_loaded()
        self._samples.flush()
        return processes.by_first(self._samples.rows)

    def flush(self) -> None:
        """Write the rows that wait: from here on a kill does not lose them."""
        self._metrics.flush()
        self._samples.flush()

    def save_checkpoint(
        self, step: int, blobs: Mapping[str, Content], state: dict[str, Any], keep: int = 2, best: bool = False
    ) -> Path:
        """Put the rows, then a checkpoint, on the disk; see `smolt.runs.checkpoints.save`. Returns its directory.

        Of several processes the first one's arguments are what is saved.
        """
        self._require_loaded()
        return processes.by_first(lambda: self._save(step, blobs, state, keep, best))

    def _save(self, step: int, blobs: Mapping[str, Content], state: dict[str, Any], keep: int, best: bool) -> Path:
        self._sync_rows()
        beside: dict[str, Any] = {"rows": {file.path.name: file.sums() for file in (self._metrics, self._samples)}}
        if self._damage:
            beside["damage"] = self._damage
        return checkpoints.save(self.directory / CHECKPOINTS, step, blobs, state, keep, best, beside)

    def load_checkpoint(self) -> Checkpoint | None:
        """The newest sound checkpoint, None where there is none; rows and best snapshots after it go.

        Damaged ones are passed over and named in `warnings`, and so are row files that lost or changed rows up to it.

        Raises:
            StorageError: there are checkpoints and all are damaged; nothing was dropped.
        """
        checkpoint = processes.by_first(self._load_checkpoint)
        self._loaded = True
        return checkpoint

    def _load_checkpoint(self) -> Checkpoint | None:
        folder = self.directory / CHECKPOINTS
        checkpoint, damage = checkpoints.newest(folder)
        if checkpoint is None and damage:
            lines = "".join(f"\n  {line}" for line in damage)
            raise storage.StorageError(
                errno.EIO, f"every checkpoint is damaged; --fresh starts over:{lines}", str(folder)
            )
        self._warn(damage)
        step = -1 if checkpoint is None else checkpoint.step
        for rows in (self._metrics, self._samples):
            self._warn(rows.keep_until(step))
            self._compare(rows, {} if checkpoint is None else checkpoint.beside)
        if checkpoint is not None:
            self._damage = [*checkpoint.beside.get("damage", []), *self._damage]
        checkpoints.drop_best_after(folder, step)
        return checkpoint

    def best_checkpoint(self) -> Checkpoint | None:
        """The newest sound best snapshot, None where there is none; damaged ones are named in `warnings`."""
        return processes.by_first(self._best_checkpoint)

    def _best_checkpoint(self) -> Checkpoint | None:
        checkpoint, damage = checkpoints.newest(self.directory / CHECKPOINTS, best=True)
        self._warn(damage)
        self._damage += damage
        return checkpoint

    def complete(self, result: dict[str, Any]) -> None:
        """Write result.json, last of all: from here on the run is complete, and its files are to stay as they are."""
        processes.by_first(lambda: self._complete(result))

    def _complete(self, result: dict[str, Any]) -> None:
        self._sync_rows()
        if self._damage:
            result = {**result, "damage": self._damage}
        content = jsontext.encode(result, RESULT, indent=2) + "\n"
        inventory.write(self.directory, content.encode())
        storage.atomic_write(self.directory / RESULT, content)

    def close(self) -> None:
        """Write the rows that wait and give the directory free; a second call does nothing."""
        try:
            self.flush()
        finally:
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _sync_rows(self) -> None:
        self._metrics.sync()
        self._samples.sync()

    def _compare(self, rows: RowFile, beside: Mapping[str, Any]) -> None:
        """Name a row file that is not what the checkpoint saw."""
        expected = beside.get("rows", {}).get(rows.path.name)
        found = rows.sums()
        if expected is not None and found != expected:
            others = " others" if found["bytes"] == expected["bytes"] else ""
            line = (
                f"{rows.path}: expected {expected['bytes']} bytes up to its checkpoint, not {found['bytes']}{others}; "
                "rows are lost or changed, figures made of them incomplete"
            )
            self._warn([line])
            self._damage.append(line)

    def _warn(self, lines: list[str]) -> None:
        self.warnings += lines
        for line in lines:
            LOG.warning(line)

    def _require_loaded(self) -> None:
        if not self._loaded:
            raise ValueError(
                f"{self.directory}: a continued run begins with load_checkpoint(), which drops the rows after it"
            )


def _lock(directory: Path, fresh: bool) -> DirectoryLock:
    """The lock of the directory the run will live in: after `fresh` that is a new one under the old name."""
    lock = acquire(directory)
    if not (fresh and (directory / MANIFEST).exists()):
        return lock
    try:
        storage.set_aside(directory)
        return acquire(directory)
    finally:
        lock.release()


def refuse_unwritable(directory: Path) -> None:
    """See that a run can be begun or continued in a directory, before what takes long is begun; nothing is written.

    Raises:
        UserError: it is a file, holds something else than a run, or nothing can be made there.
        OSError: it, or the directory it would be made in, is read-only or full.
    """
    directory = directory.resolve()
    place = next(path for path in (directory, *directory.parents) if path.exists())
    if place != directory and not place.is_dir():
        raise UserError(f"{directory}: {place} is a file, not a directory; choose another --out")
    _refuse_foreign(directory)
    require_writable(place)


def _require_seen(directory: Path, manifest: dict[str, Any]) -> None:
    """A process that does not write sees the same directory as the one that does.

    Raises:
        UserError: it does not.
    """
    if not (directory / MANIFEST).is_file() or identity.read_manifest(directory) != manifest:
        raise UserError(
            f"{directory}: this process does not see the run that the first process opened there; processes on several "
            "machines need --out, model and data on a file system that all of them share, under the same names"
        )


def _refuse_foreign(directory: Path) -> None:
    """Raise UserError for a directory that is neither a run nor empty nor the trace of a start that was killed."""
    try:
        names = {entry.name for entry in directory.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise UserError(f"{directory}: is a file, not a directory; choose another --out") from error
    foreign = {name for name in names if name != LOCK and not name.startswith(f".{MANIFEST}.")}
    if foreign and not (MANIFEST in names and (LOCK in names or _is_ours(directory))):
        raise UserError(
            f"{directory}: holds {min(foreign)!r} and no {MANIFEST} of smolt's, so it is no run; nothing was "
            "written: choose another --out"
        )


def _refused(directory: Path) -> bool:
    """Whether a run is there in which nothing could be learned: the next start sets it aside."""
    return (directory / MANIFEST).is_file() and REFUSED in identity.read_manifest(directory)


def _began(directory: Path, samples: str) -> bool:
    """Whether the run has anything to lose: a row, a checkpoint or a result."""
    rows = [directory / name for name in (METRICS, samples)]
    return (
        (directory / RESULT).exists()
        or checkpoints.exist(directory / CHECKPOINTS)
        or any(path.exists() and path.stat().st_size > 0 for path in rows)
    )


def _is_ours(directory: Path) -> bool:
    """A run that was copied without its lock file."""
    return FORMAT.encode() in (directory / MANIFEST).read_bytes()

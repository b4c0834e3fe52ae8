"""Who works on which job of a study that several processes share, on one machine or on several with one file system.

A claim is a file, claims/JOB.N. Only one process can create it (O_EXCL, which NFS keeps too), N is one more than that
of the job's last claim, and that one must have been given back or its holder be dead. Nothing is removed before the
study is complete, so no number comes twice: there is no moment in which two processes find themselves the holder.

A holder keeps an flock on its file and writes into it every BEAT seconds. It is dead

- at once, where the lock is free and it worked on this machine: the lock goes with the process, however it ends;
- after LEASE seconds without a change of its file, by the clock of the process that watches, where it worked on another
  machine: not every file system carries locks from one machine to another. No two clocks are compared.

A holder that could not write for GIVEN_UP seconds, or finds its job claimed anew, has lost it and stops.
"""

import contextlib
import fcntl
import logging
import os
import platform
import shutil
import threading
import time
from pathlib import Path
from typing import Any, Literal, Self

from smolt.errors import DirectoryInUse
from smolt.runs import jsontext, storage
from smolt.runs.locks import DirectoryLock, is_locked

LOG = logging.getLogger(__name__)
CLAIMS = "claims"
BEAT = 10.0  # seconds between two signs of life
LEASE = 120.0  # of silence, after which a holder on another machine is dead
POLL = 0.5  # seconds between two looks
SAY = 5.0  # seconds between two words of a process that waits
GIVEN_UP = 90.0  # of silence, after which a holder itself stops: before anybody else may begin
BOOT = Path("/proc/sys/kernel/random/boot_id")
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine sleeps


def now() -> float:
    """Seconds on a clock that nobody sets."""
    return time.clock_gettime(CLOCK)


State = Literal["over", "alive", "watched"]
"""Of a claim: given back or of a dead holder; of a living one; or of one on another machine that is being watched."""


class Claims:
    """The claims of a study, as one process sees them.

    Args:
        out: the study's directory.
        who: this process, for the others' messages.
    """

    def __init__(self, out: Path, who: str) -> None:
        self.folder = out / CLAIMS
        self._who = who
        self._seen: dict[Path, tuple[bytes, float]] = {}

    def take(self, job: str) -> "Claim | None":
        """Claim a job; None where another process holds it.

        Raises:
            StorageError: the directory cannot be written.
        """
        if not self.is_free(job):
            return None
        number, _ = self._last(job)
        path = self.folder / f"{job}.{number + 1}"
        with storage.storage_errors("claiming", path):
            self.folder.mkdir(exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # only somebody who looks can hold it, for a moment
                return Claim(path, descriptor, self.folder.parent, self._who)
            except OSError:
                os.close(descriptor)
                raise

    def is_free(self, job: str) -> bool:
        """Whether nobody holds a job."""
        _, last = self._last(job)
        return last is None or self._state(last) == "over"

    def holder(self, job: str) -> str | None:
        """Who holds a job, in words, and for how long it has been silent where that is long; None: nobody."""
        _, last = self._last(job)
        found = {} if last is None else _facts(_content(last))
        if last is None or found.get("free"):
            return None
        told = f"{found.get('who', 'a process')} on {found.get('host', 'a machine')} (process {found.get('pid', '?')})"
        silent = now() - self._seen[last][1] if last in self._seen else 0.0
        return told + (f", silent for {silent:.0f} s of {LEASE:.0f}" if silent > 3 * BEAT else "")

    def living(self) -> tuple[str, bool] | None:
        """Who holds a job, in words, and whether that one certainly lives; None where nobody holds any.

        A holder on another machine may live until it has been watched for LEASE seconds.
        """
        states = {path: self._state(path) for path in self._latest()}
        held = sorted((state != "alive", path) for path, state in states.items() if state != "over")
        if not held:
            return None
        uncertain, path = held[0]
        return self.holder(path.name.rpartition(".")[0]) or "", not uncertain

    def _state(self, path: Path) -> State:
        content = _content(path)
        found = _facts(content)
        if found.get("free"):
            return "over"
        if is_locked(path):
            self._seen.pop(path, None)
            return "alive"
        if found.get("machine") == _machine(self.folder):
            return "over"
        before, since = self._seen.setdefault(path, (content, now()))
        if before != content:
            self._seen[path] = content, now()
            return "alive"
        return "over" if now() - since > LEASE else "watched"

    def _latest(self) -> list[Path]:
        """The last claim of each job."""
        found = [self._last(job)[1] for job in sorted({path.name.rpartition(".")[0] for path in self._files()})]
        return [path for path in found if path is not None]

    def _last(self, job: str) -> tuple[int, Path | None]:
        numbered = [(int(path.name.rpartition(".")[2]), path) for path in self._files(job)]
        return max(numbered, default=(0, None))

    def _files(self, job: str | None = None) -> list[Path]:
        try:
            paths = list(self.folder.iterdir())
        except FileNotFoundError:
            return []
        named = [(path, *path.name.rpartition(".")[::2]) for path in paths]
        return [path for path, name, number in named if number.isdecimal() and job in (None, name)]


class Claim:
    """A job that this process holds, for as long as it is entered."""

    def __init__(self, path: Path, descriptor: int, out: Path, who: str) -> None:
        self._path = path
        self._descriptor = descriptor
        self._lock = DirectoryLock(descriptor)  # which no forked worker keeps
        self._facts = {"who": who, "host": platform.node(), "pid": os.getpid(), "machine": _machine(path.parent)}
        self._out = out
        self._beats = 0
        self._written = now()
        self._over = threading.Event()
        self._beat()
        self._thread = threading.Thread(target=self._live, daemon=True, name="claim")
        self._thread.start()

    def require(self) -> None:
        """See that the job is still this process's.

        Raises:
            DirectoryInUse: it was silent for too long, so that another may have begun it.
        """
        job, _, number = self._path.name.rpartition(".")
        silent = now() - self._written > GIVEN_UP
        if silent or self._path.with_name(f"{job}.{int(number) + 1}").exists() or not self._path.exists():
            raise DirectoryInUse(
                f"{self._out}: {job}: this process showed no sign of life for too long, and another may have begun its "
                "job; the same command takes part again"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """Give the job back."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._write({"free": True})
        self._lock.abandon()

    def _live(self) -> None:
        while not self._over.wait(BEAT):
            self._beat()

    def _beat(self) -> None:
        """A sign of life; a disk that fails for a moment is tried again."""
        self._beats += 1
        with contextlib.suppress(OSError):
            self._write({**self._facts, "beat": f"{self._beats:012d}"})  # always as long, so that nothing is left over
            self._written = now()

    def _write(self, facts: dict[str, Any]) -> None:
        line = jsontext.encode(facts, self._path.name).encode() + b"\n"
        os.pwrite(self._descriptor, line, 0)
        os.ftruncate(self._descriptor, len(line))
        os.fsync(self._descriptor)


def refuse_parts(out: Path) -> None:
    """See that no parts work on a study which one process is about to run alone.

    Where one may have died with its machine, this takes as long as its lease.

    Raises:
        DirectoryInUse: one works.
    """
    claims, said = Claims(out, ""), -SAY
    while (found := claims.living()) is not None:
        holder, certain = found
        if certain:
            raise DirectoryInUse(
                f"{out}: {holder} works on a part of this study: wait for it, stop it, or join it with --part"
            )
        if now() - said >= SAY:
            said = now()
            LOG.info("waiting to see whether %s still works on a part of this study", holder)
        time.sleep(POLL)


def remove_claims(out: Path) -> None:
    """The study is complete: nobody will claim anything any more."""
    shutil.rmtree(out / CLAIMS, ignore_errors=True)


def _machine(folder: Path) -> str:
    """What two processes share that see each other's locks: a kernel since its start, and a mounted file system."""
    try:
        started = BOOT.read_text(encoding="ascii").strip()
    except OSError:
        started = platform.node()
    return f"{started} {folder.stat().st_dev}"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _facts(content: bytes) -> dict[str, Any]:
    """What a claim says; nothing where it is just being written."""
    try:
        return jsontext.decode_object(content, CLAIMS)
    except ValueError:
        return {}

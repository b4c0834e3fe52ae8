"""One process in a run directory at a time; the lock dies with the process that holds it, however it dies."""

import contextlib
import errno
import fcntl
import os
import tempfile
import time
import weakref
from pathlib import Path

from smolt.errors import DirectoryInUse, UserError
from smolt.runs.storage import storage_errors

LOCK = "run.lock"
ATTEMPTS = 50
PAUSE_SECONDS = 0.02


class DirectoryLock:
    """An flock on DIR/run.lock, whose text is the owner's process id."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        _held.add(self)

    def release(self) -> None:
        """Give the directory free; a second call does nothing."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)  # nobody shall read this process id as the next owner's
            self.abandon()

    def abandon(self) -> None:
        """Close the file; in a forked child this leaves the parent's lock as it is."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_held: "weakref.WeakSet[DirectoryLock]" = weakref.WeakSet()


def _release_in_child() -> None:
    """Close the copy a forked worker gets: it may outlive its parent and must not keep the parent's lock."""
    for lock in list(_held):
        lock.abandon()


os.register_at_fork(after_in_child=_release_in_child)


def require_writable(directory: Path) -> None:
    """See that files can be made in a directory that is there; none is left behind.

    Raises:
        UserError: the system refuses what the modes allow, as in a directory of its own (/proc).
        OSError: it is read-only, full, or of another user.
    """
    if not os.access(directory, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(directory).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), str(directory))
    try:
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        raise UserError(f"{directory}: cannot be written ({error.strerror}); choose another --out") from error


def acquire(directory: Path) -> DirectoryLock:
    """Lock `directory`, creating it with its parents where it is missing.

    Raises:
        DirectoryInUse: another process, or another Run of this one, holds it; the message names its process id.
        StorageError: the directory or its lock file cannot be created.
    """
    path = directory / LOCK
    owner: int | None = None
    unopened: OSError | None = None
    for _ in range(ATTEMPTS):
        with storage_errors("locking", directory):
            try:
                directory.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except (FileNotFoundError, FileExistsError) as error:
                if directory.is_file():
                    raise
                unopened = error
                continue  # set aside by its owner between two calls, or nothing can be made here
            unopened = None
            lock = DirectoryLock(descriptor)
            try:
                if _sign(descriptor, path):
                    return lock
                owner = _read_owner(descriptor)
            except OSError:
                lock.abandon()
                raise
            lock.abandon()
        if owner is not None and _alive(owner):
            break
        time.sleep(PAUSE_SECONDS)  # the owner has the lock but has not signed it yet, or is just leaving
    if unopened is not None:  # nobody holds what cannot be opened
        with storage_errors("locking", directory):
            raise unopened
    raise DirectoryInUse(
        f"{directory}: another process (pid {owner or 'unknown'}) works here: wait for it, stop it or change --out"
    )


def _sign(descriptor: int, path: Path) -> bool:
    """Take the lock and sign it; False when somebody else has it, or when the file has lost its name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return True
    return False


def _read_owner(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdecimal() else None


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def is_locked(path: Path) -> bool:
    """Whether a process that this one can see keeps the lock of a file; tried with a shared one, given back at once."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

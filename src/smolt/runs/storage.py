"""Writing that survives a crash, a power cut and a full disk.

Every change that `smolt.runs` makes to a disk goes through this module, and here through `os`, so that a test can make
any operation fail or be the last one. The order is always: write under a temporary name, fsync it, rename, fsync the
directory. On macOS fsync hands the data to the drive, which may still hold it in its cache when the power goes.

Of several processes that share their work the first one writes; in the others these functions change nothing.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from smolt import processes

TEMPORARY = ".tmp"
READ_SIZE = 1 << 20


class StorageError(OSError):
    """The disk is full, failing or read-only; what was complete is intact, and the same command continues later."""

    exit_code = 74


@contextlib.contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError of the body into a StorageError that says what smolt was doing and where.

    Args:
        action: a verb in its -ing form, for the message.
        path: the file or directory concerned.

    Raises:
        StorageError: with the errno of the OSError.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        told = error.strerror or str(error)  # numpy says how many bytes it wrote, and not why no more
        reason = f"{action} failed ({told}); earlier files are intact: put it right and run the same command again"
        raise StorageError(error.errno, reason, str(path)) from error


def user_directory(variable: str, below_home: str) -> Path | None:
    """A directory of the user's by the XDG specification: the variable's where that is absolute, else one below home.

    None for a user without a home directory.
    """
    named = Path(os.environ.get(variable, ""))
    if named.is_absolute():
        return named
    try:
        return Path.home() / below_home
    except RuntimeError:
        return None


def atomic_write(path: Path, content: str | bytes) -> None:
    """Replace the file `path` by `content` (text as UTF-8): after any crash it holds all of the old or all of the new.

    Raises:
        StorageError: the disk is full or failing; the old file is intact and nothing else is left behind.
    """
    atomic_stream(path, [content.encode() if isinstance(content, str) else content])


def atomic_stream(path: Path, chunks: Iterable[bytes]) -> None:
    """Like `atomic_write`, for content that is better not held in memory at once."""
    if not processes.first():
        return
    temporary = temporary_name(path)
    try:
        write_durably(temporary, chunks)
        rename(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def temporary_name(path: Path) -> Path:
    """A name next to `path` that no other writer uses and that `sweep` recognises."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")


def write_durably(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file and fsync it; its directory entry is durable only after `sync` of the directory."""
    if not processes.first():
        return
    with storage_errors("writing", path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            for chunk in chunks:
                _write_all(descriptor, chunk)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append(path: Path, content: bytes) -> None:
    """Add `content` at the end of a file, whole or, when the disk fails, not at all; durable only after `sync`."""
    if not processes.first():
        return
    with storage_errors("appending", path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, content)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


def sync(path: Path) -> None:
    """Fsync a file, or a directory (its entries: creations, renames, removals)."""
    if not processes.first():
        return
    with storage_errors("syncing", path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_directory(path: Path) -> None:
    """Create a directory durably; one that exists already is fine. The parent must exist."""
    if not processes.first():
        return
    with storage_errors("creating", path):
        try:
            os.mkdir(path)
        except FileExistsError:
            return
    sync(path.parent)


def rename(source: Path, target: Path) -> None:
    """Rename within one directory, durably."""
    if not processes.first():
        return
    with storage_errors("renaming", source):
        os.rename(source, target)
    sync(target.parent)


@contextlib.contextmanager
def whole_directory(out: Path, keep: bool = True) -> Iterator[Path]:
    """A directory to fill, which takes the place of `out` once the body is through: `out` is whole or as it was.

    Args:
        out: its place.
        keep: what lies there is set aside; without it, it goes.

    Raises:
        StorageError: the disk is full or failing; nothing is left behind.
    """
    staging = temporary_name(out)
    try:
        with storage_errors("writing", out), _foreign_errors(out):
            staging.mkdir(parents=True)
            yield staging
            mode = staging.stat().st_mode & 0o666
            for entry in staging.rglob("*"):
                if entry.is_file():
                    entry.chmod(mode)  # safetensors writes for the owner alone; a model is there to be handed on
                sync(entry)
            sync(staging)
            if out.exists() and any(out.iterdir()):  # an empty directory is simply replaced
                set_aside(out) if keep else remove_directory(out)
            rename(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def whole_file(out: Path, keep: bool = True) -> Iterator[Path]:
    """A name to write a file under, which takes the place of `out` once the body is through: for libraries that write.

    Args:
        out: its place.
        keep: a file that lies there is set aside; without it, it goes.

    Raises:
        StorageError: the disk is full or failing; nothing is left behind.
    """
    staging = temporary_name(out)
    try:
        with storage_errors("writing", out):
            yield staging
            sync(staging)
            if keep and out.exists():
                set_aside(out)
            rename(staging, out)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(staging)


@contextlib.contextmanager
def _foreign_errors(path: Path) -> Iterator[None]:
    """The errors of libraries written in Rust (safetensors, tokenizers) as the OSError they tell of in words."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        told = re.search(r"\(os error (\d+)\)", str(error))
        if told is not None:
            raise OSError(int(told[1]), os.strerror(int(told[1])), str(path)) from error
        raise


def set_aside(directory: Path) -> None:
    """Rename a directory or file, durably, to the first free one of NAME.old-1, NAME.old-2, ..."""
    number = 1
    while (aside := directory.with_name(f"{directory.name}.old-{number}")).exists():
        number += 1
    rename(directory, aside)


def remove_directory(directory: Path) -> None:
    """Remove a directory of plain files. It loses its name first: a crash on the way leaves no half checkpoint."""
    if not processes.first():
        return
    doomed = directory
    if not directory.name.endswith(TEMPORARY):
        doomed = temporary_name(directory)
        rename(directory, doomed)
    with storage_errors("removing", doomed):
        for entry in sorted(doomed.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else os.unlink(entry)
        os.rmdir(doomed)


def sweep(directory: Path) -> None:
    """Remove what a killed writer left in `directory` under temporary names. Only for the holder of its lock."""
    for entry in sorted(directory.glob(f".*{TEMPORARY}")):
        if entry.is_dir():
            remove_directory(entry)
        else:
            with storage_errors("removing", entry):
                os.unlink(entry)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_SIZE):
            digest.update(chunk)
    return digest.hexdigest()


def _write_all(descriptor: int, content: bytes | memoryview) -> None:
    """One os.write may take only a part: Linux stops at 2 GiB, a nearly full disk earlier."""
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]

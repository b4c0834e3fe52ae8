"""SQLite files that lose nothing: one way to open them, and one way to say what went wrong.

What a transaction wrote is on the disk when it ends (write-ahead log, synchronous = FULL). Several processes may work
in one file at the same time.
"""

import contextlib
import errno
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from smolt.errors import DirectoryInUse, UserError
from smolt.runs.storage import StorageError

PATIENCE = 30.0  # seconds to wait for another process's transaction
DISK = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}
LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Database:
    """An open SQLite file; use it as a context manager.

    Args:
        path: the file, made where it is missing; its directory must exist.
        what: it is, in errors: "a label store".
        schema: statements that make its tables, each ended by ";" and a line break.
        application: a number in the file's header that tells it from other programs' databases; 0 for none.
        version: of the schema; the statements are run where the file's version is 0.

    Raises:
        UserError: it is another program's, damaged, no database at all, or of a newer version.
        DirectoryInUse: another process has been writing for longer than PATIENCE.
        StorageError: the disk is full or failing.
    """

    def __init__(self, path: Path, what: str, schema: str, application: int = 0, version: int = 0) -> None:
        self.path, self._what = path, what
        with self._explained():
            self._connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            try:
                self._open(schema, application, version)
            except BaseException:
                self._connection.close()
                raise

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query, each a tuple. Errors as of opening."""
        with self._explained():
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the body or nothing, on the disk when it ends. Errors as of opening."""
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def pragma(self, name: str) -> int:
        """A setting of this connection, by SQLite's name for it."""
        return int(self.rows(f"PRAGMA {name}")[0][0])

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _open(self, schema: str, application: int, version: int) -> None:
        """Refuse another program's file untouched; then the settings of this connection, and a new file's tables."""
        if self.pragma("application_id") != application and self.rows("SELECT 1 FROM sqlite_schema"):
            raise UserError(f"{self.path}: is another program's database, not {self._what}")
        found = self.pragma("user_version")
        if found > version:
            raise UserError(f"{self.path}: was written by a newer smolt (version {found} of {self._what})")
        for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {setting}")
        with self.transaction() as connection:
            if self.pragma("user_version") == 0:
                for statement in schema.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {application}")
                connection.execute(f"PRAGMA user_version = {version}")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """SQLite's errors as the user's mistake, another process's work, or the disk's failure."""
        try:
            yield
        except sqlite3.Error as error:
            kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if kind in DISK:
                reason = f"{error}; everything that was acknowledged is in the file"
                raise StorageError(DISK[kind], reason, str(self.path)) from error
            if kind in LOCKED:
                raise DirectoryInUse(
                    f"{self.path}: another process has been writing in it for {PATIENCE:g} seconds ({error}); "
                    "run the same command again when it is done"
                ) from error
            reason = f"cannot be used as {self._what} ({error}); name another file, or move it away"
            raise UserError(f"{self.path}: {reason}") from error

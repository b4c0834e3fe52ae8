"""Verdicts in SQLite, by what they are of: a judge is never asked the same thing twice, and a kill loses none.

A row is durable when `write` returns (write-ahead log, synchronous=FULL).
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from smolt.errors import UserError
from smolt.judges.verdicts import Judge, Opinion, Showing
from smolt.runs.files import storage_errors

TABLE = "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, opinion TEXT NOT NULL) WITHOUT ROWID"
PATIENCE = 30.0  # seconds to wait for another process that writes into a shared cache
AT_ONCE = 500  # keys of one query


class Cache:
    """The verdicts of one file. Several processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._store = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        try:
            self._store.execute("PRAGMA journal_mode=WAL")
            self._store.execute("PRAGMA synchronous=FULL")
            self._store.execute(TABLE)
        except sqlite3.DatabaseError as error:
            self._store.close()
            raise UserError(f"{path}: is not a store of verdicts ({error}); name another one or move it away") from None

    def read(self, keys: Sequence[str]) -> dict[str, Opinion]:
        """Those of the opinions that are there."""
        found: dict[str, Opinion] = {}
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self._store.execute(f"SELECT key, opinion FROM verdicts WHERE key IN ({marks})", some)
            found |= {key: Opinion.from_row(json.loads(text)) for key, text in rows}
        return found

    def write(self, opinions: Mapping[str, Opinion]) -> None:
        """Keep opinions, all of them or, when the disk fails, none; one that is there stays as it is.

        Raises:
            StorageError: the disk is full or failing.
        """
        rows = [(key, json.dumps(opinion.as_row())) for key, opinion in opinions.items()]
        with storage_errors("keeping verdicts", self._path), _as_os_error():
            self._store.execute("BEGIN IMMEDIATE")
            try:
                self._store.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", rows)
                self._store.execute("COMMIT")
            except sqlite3.Error:
                with contextlib.suppress(sqlite3.Error):
                    self._store.execute("ROLLBACK")
                raise

    def __len__(self) -> int:
        count: int = self._store.execute("SELECT COUNT(*) FROM verdicts").fetchone()[0]
        return count

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def _as_os_error() -> Any:
    """SQLite's errors of a full or failing disk as what they are."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(5, str(error)) from error


def key_of(judge: Judge, showing: Showing) -> str:
    """SHA-256 of judge, question, answers and their order."""
    turns = [[turn.role, turn.content] for turn in showing.question.context]
    content: list[Any] = [judge.identity, turns, showing.question.solution, showing.first, showing.second]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

"""Labels in one SQLite file that loses nothing.

A label is committed (write-ahead log, synchronous = FULL) before the call that stores it returns. Nothing is deleted:
an undone label stays with the time it was undone. Several processes may work in one file at the same time.
"""

import contextlib
import errno
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from smolt.data import Turn
from smolt.errors import UserError
from smolt.preferences.people.nouns import BlindPair, Label
from smolt.runs import StorageError

APPLICATION = 0x736D6C74  # "smlt" in the file's header: tells a label store from other programs' databases
VERSION = 1
PATIENCE = 30.0  # seconds to wait for another process's transaction
SCHEMA = """
CREATE TABLE pairs (
    id TEXT PRIMARY KEY, context TEXT NOT NULL, first TEXT NOT NULL, second TEXT NOT NULL,
    known TEXT CHECK (known IN ('first', 'second'))
) STRICT;
CREATE TABLE labels (
    number INTEGER PRIMARY KEY AUTOINCREMENT, pair TEXT NOT NULL REFERENCES pairs (id), annotator TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('first', 'second', 'tie', 'both_bad', 'skip')),
    left TEXT CHECK (left IN ('first', 'second')), seconds REAL, at TEXT NOT NULL, undone TEXT
) STRICT;
CREATE UNIQUE INDEX one_label_each ON labels (pair, annotator) WHERE undone IS NULL;
"""
FULL = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO}
_INSERT = (
    "INSERT INTO labels (pair, annotator, choice, left, seconds, at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)


class LabelStore:
    """The pairs and labels of one file; use it as a context manager.

    Args:
        path: the file; its directory must exist.
        create: make the file where it is missing.

    Raises:
        UserError: it is missing, no label store, or of a newer version.
        StorageError: the disk is full or failing.
    """

    def __init__(self, path: Path, create: bool = True) -> None:
        self.path = path
        if not create and not path.exists():
            raise UserError(f"{path}: no such file; `smolt label PAIRS --store {path}` makes it")
        if not path.parent.is_dir():
            raise UserError(f"{path}: the directory {path.parent} does not exist")
        with self._explained():
            self._database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._database.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add_pairs(self, pairs: Iterable[BlindPair]) -> None:
        """Keep pairs; one that is there stays, and becomes a gold question where it is one now."""
        rows = [(pair.id, _turns(pair), pair.first, pair.second, pair.known) for pair in pairs]
        with self._transaction() as database:
            database.executemany(
                "INSERT INTO pairs VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET known = excluded.known WHERE excluded.known IS NOT NULL",
                rows,
            )

    def record(self, label: Label) -> bool:
        """Commit a label; False, and nothing changed, where this annotator has a label for the pair already."""
        return self.record_all([label]) == 1

    def record_all(self, labels: Iterable[Label]) -> int:
        """Commit all labels or none; the number that is new (an annotator's earlier label for a pair stays)."""
        new = 0
        with self._transaction() as database:
            for one in labels:
                row = (one.pair, one.annotator, one.choice, one.left, one.seconds, one.at or now())
                new += database.execute(_INSERT, row).rowcount
        return new

    def undo(self, annotator: str, among: Collection[str]) -> str | None:
        """Take back the annotator's latest label of these pairs; the pair's id, None where there is no label."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT number, pair FROM labels WHERE annotator = ? AND undone IS NULL ORDER BY number DESC",
                (annotator,),
            )
            for number, pair in rows:
                if pair in among:
                    database.execute("UPDATE labels SET undone = ? WHERE number = ?", (now(), number))
                    return str(pair)
        return None

    def forget_skips(self, annotator: str) -> int:
        """Take back the annotator's skips, so that the pairs come again; how many."""
        with self._transaction() as database:
            return database.execute(
                "UPDATE labels SET undone = ? WHERE annotator = ? AND choice = 'skip' AND undone IS NULL",
                (now(), annotator),
            ).rowcount

    def labels(self, annotator: str | None = None) -> list[Label]:
        """The labels that stand, in the order they were stored."""
        query = "SELECT pair, annotator, choice, left, seconds, at FROM labels WHERE undone IS NULL"
        wanted = () if annotator is None else (annotator,)
        with self._explained():
            rows = self._database.execute(
                f"{query}{'' if annotator is None else ' AND annotator = ?'} ORDER BY number", wanted
            )
            return [Label(*row) for row in rows]

    def undone(self) -> dict[str, int]:
        """How many labels each annotator took back."""
        with self._explained():
            return dict(
                self._database.execute(
                    "SELECT annotator, count(*) FROM labels WHERE undone IS NOT NULL GROUP BY annotator"
                )
            )

    def pairs(self) -> dict[str, BlindPair]:
        """Every pair by its id, in the order they were first given."""
        with self._explained():
            rows = self._database.execute("SELECT id, context, first, second, known FROM pairs ORDER BY rowid")
            return {row[0]: _pair(*row) for row in rows}

    def pragma(self, name: str) -> int:
        """A setting of this connection, by SQLite's name for it."""
        with self._explained():
            return int(self._database.execute(f"PRAGMA {name}").fetchone()[0])

    def _open(self) -> None:
        """Settings of this connection, and the tables of a new file."""
        database = self._database
        made = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        application, version = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in HEADER)
        if made and application != APPLICATION:
            raise UserError(f"{self.path}: is another program's database, not a label store")
        if version > VERSION:
            raise UserError(f"{self.path}: was written by a newer smolt (version {version} of the store)")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
        with self._transaction():
            if database.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in SCHEMA.split(";\n"):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {APPLICATION}")
                database.execute(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the body or nothing, on the disk when it ends."""
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """SQLite's errors as the user's mistake or the disk's."""
        try:
            yield
        except sqlite3.Error as error:
            kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if kind in FULL:
                reason = f"{error}; every label that was acknowledged is in the file"
                raise StorageError(FULL[kind], reason, str(self.path)) from error
            raise UserError(f"{self.path}: cannot be used as a label store: {error}") from error


HEADER = ("application_id", "user_version")


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _turns(pair: BlindPair) -> str:
    return json.dumps([[turn.role, turn.content] for turn in pair.context])


def _pair(name: str, context: str, first: str, second: str, known: Any) -> BlindPair:
    return BlindPair(name, tuple(Turn(role, content) for role, content in json.loads(context)), first, second, known)

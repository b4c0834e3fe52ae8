"""Verdicts in SQLite, by what they are of: a judge is never asked the same thing twice, and a kill loses none.

A row is durable when `write` returns (write-ahead log, synchronous=FULL).
"""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from smolt.errors import UserError
from smolt.rewards.llm_judge.nouns import Status
from smolt.runs.storage import storage_errors

TABLE = "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, opinion TEXT NOT NULL) WITHOUT ROWID"
VERDICTS = "verdicts.sqlite"
"""The file of a directory's own verdicts."""

PATIENCE = 30.0  # seconds to wait for another process that writes into a shared cache
AT_ONCE = 500  # keys of one query

Row = dict[str, Any]  # a verdict as JSON


class Kept(Protocol):
    """What can be kept: an opinion of two answers, a reply about one."""

    @property
    def status(self) -> Status:
        """Whether anything was said."""

    def as_row(self) -> Row:
        """For JSON."""


Item = TypeVar("Item")
Said = TypeVar("Said", bound=Kept)


class VerdictCache:
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

    def read(self, keys: Sequence[str]) -> dict[str, Row]:
        """Those of the verdicts that are there."""
        found: dict[str, Row] = {}
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self._store.execute(f"SELECT key, opinion FROM verdicts WHERE key IN ({marks})", some)
            found |= {key: json.loads(text) for key, text in rows}
        return found

    def write(self, verdicts: Mapping[str, Row]) -> None:
        """Keep verdicts, all of them or, when the disk fails, none; one that is there stays as it is.

        Raises:
            StorageError: the disk is full or failing.
        """
        rows = [(key, json.dumps(row)) for key, row in verdicts.items()]
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


def asked_once(
    cache: VerdictCache,
    keys: Sequence[str],
    items: Sequence[Item],
    ask: Callable[[list[Item]], Iterator[list[tuple[int, Said]]]],
    from_row: Callable[[Row], Said],
) -> Iterator[dict[str, Said]]:
    """What is known, then what is asked for, by key, as it comes and once it is kept; no reply at all is not kept.

    Args:
        cache: what is known.
        keys: of the items; equal keys are one question.
        items: what may be asked.
        ask: says something of each item, as a judge's Compare does.
        from_row: back from JSON.
    """
    known = {key: from_row(row) for key, row in cache.read(sorted(set(keys))).items()}
    yield known
    missing = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
    names = list(missing)
    for part in ask(list(missing.values())) if missing else ():
        fresh = {names[place]: said for place, said in part}
        cache.write({key: said.as_row() for key, said in fresh.items() if said.status != "unreached"})
        yield fresh

"""Verdicts in SQLite, by what they are of: a judge is never asked the same thing twice, and a kill loses none.

A row is durable when `write` returns.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

from pydantic import TypeAdapter

from smolt import processes
from smolt.rewards.llm_judge.nouns import Status
from smolt.runs.database import Database

LOG = logging.getLogger(__name__)
TABLE = "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, opinion TEXT NOT NULL) WITHOUT ROWID"
VERDICTS = "verdicts.sqlite"
"""The file of a directory's own verdicts."""

AT_ONCE = 500  # keys of one query

Row = dict[str, Any]  # a verdict as JSON


class Kept(Protocol):
    """What can be kept, a dataclass: an opinion of two answers, a reply about one."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def status(self) -> Status:
        """Whether anything was said."""


Item = TypeVar("Item")
Said = TypeVar("Said", bound=Kept)


class VerdictCache:
    """The verdicts of one file, its directory made where it is missing. Errors as of `smolt.runs.database`.

    Of several processes the first one has the file, and tells the others what is in it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: Database | None = None
        processes.by_first(self._begin)

    def _begin(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._open = Database(self._path, "a store of verdicts", TABLE)

    @property
    def _store(self) -> Database:
        if self._open is None:
            raise RuntimeError("the store of verdicts is another process's")
        return self._open

    def read(self, keys: Sequence[str]) -> dict[str, Row]:
        """Those of the verdicts that are there."""
        return processes.by_first(lambda: self._read(keys))

    def _read(self, keys: Sequence[str]) -> dict[str, Row]:
        found: dict[str, Row] = {}
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self._store.rows(f"SELECT key, opinion FROM verdicts WHERE key IN ({marks})", some)
            for key, text in rows:
                sum_of, _, row = text.partition(" ")
                if sum_of == _sum(key, row):
                    found[key] = json.loads(row)
                else:
                    LOG.warning("%s: a verdict is not as it was stored; it is asked for again", self._store.path)
        return found

    def write(self, verdicts: Mapping[str, Row]) -> None:
        """Keep verdicts, all of them or, when the disk fails, none; one that is there stays as it is."""
        processes.by_first(lambda: self._write(verdicts))

    def _write(self, verdicts: Mapping[str, Row]) -> None:
        texts = {key: json.dumps(row) for key, row in verdicts.items()}
        rows = [(key, f"{_sum(key, text)} {text}") for key, text in texts.items()]
        damaged = [(key,) for key in texts.keys() - self._read(list(texts)).keys()]
        with self._store.transaction() as connection:
            connection.executemany("DELETE FROM verdicts WHERE key = ?", damaged)
            connection.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", rows)

    def __len__(self) -> int:
        return processes.by_first(lambda: int(self._store.rows("SELECT COUNT(*) FROM verdicts")[0][0]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._open is not None:
            self._open.close()


def _sum(key: str, text: str) -> str:
    return sha256(f"{key} {text}".encode()).hexdigest()[:16]


def asked_once(
    cache: VerdictCache,
    keys: Sequence[str],
    items: Sequence[Item],
    ask: Callable[[list[Item]], Iterator[list[tuple[int, Said]]]],
    kind: type[Said],
) -> Iterator[dict[str, Said]]:
    """What is known, then what is asked for, by key, as it comes and once it is kept; no reply at all is not kept.

    Args:
        cache: what is known.
        keys: of the items; equal keys are one question.
        items: what may be asked.
        ask: says something of each item, as a judge's Compare does.
        kind: what a verdict is.
    """
    from_row = TypeAdapter(kind).validate_python
    known = {key: from_row(row) for key, row in cache.read(sorted(set(keys))).items()}
    yield known
    missing = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
    names = list(missing)
    for part in ask(list(missing.values())) if missing else ():
        fresh = {names[place]: said for place, said in part}
        cache.write({key: asdict(said) for key, said in fresh.items() if said.status != "unreached"})
        yield fresh

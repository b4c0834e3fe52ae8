"""Labels in one SQLite file that loses nothing.

A label is committed before the call that stores it returns. Nothing is deleted: an undone label stays with the time it
was undone. Several processes may work in one file at the same time. Every error is one of `smolt.runs.database`. A pair
is named by its content and a label carries a checksum, so that a damaged one is refused rather than exported.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from smolt.data import Turn
from smolt.errors import UserError
from smolt.preferences.people.nouns import BlindPair, Label, Vote, digest
from smolt.runs.database import Database

APPLICATION = 0x736D6C74  # "smlt" in the file's header: tells a label store from other programs' databases
VERSION = 2
SCHEMA = """
CREATE TABLE pairs (
    id TEXT PRIMARY KEY, context TEXT NOT NULL, first TEXT NOT NULL, second TEXT NOT NULL,
    known TEXT CHECK (known IN ('first', 'second'))
) STRICT;
CREATE TABLE labels (
    number INTEGER PRIMARY KEY AUTOINCREMENT, pair TEXT NOT NULL REFERENCES pairs (id), annotator TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('first', 'second', 'tie', 'both_bad', 'skip')),
    left TEXT CHECK (left IN ('first', 'second')), seconds REAL, at TEXT NOT NULL, undone TEXT, sum TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_label_each ON labels (pair, annotator) WHERE undone IS NULL;
"""
_INSERT = (
    "INSERT INTO labels (pair, annotator, choice, left, seconds, at, sum) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)


AUTHORS = """
CREATE TABLE IF NOT EXISTS authors (
    label INTEGER PRIMARY KEY REFERENCES labels (number), first TEXT NOT NULL, second TEXT NOT NULL, sum TEXT NOT NULL
) STRICT
"""
"""Who wrote the two answers of a vote; only stores with votes have it, and whoever does not know it passes by."""


class LabelStore:
    """The pairs and labels of one file; use it as a context manager.

    Args:
        path: the file; its directory must exist.
        create: make the file where it is missing.

    Raises:
        UserError: it is missing, no label store, damaged, or of a newer version.
    """

    def __init__(self, path: Path, create: bool = True) -> None:
        self.path = path
        if not create and not path.exists():
            raise UserError(f"{path}: no such file; `smolt label PAIRS --store {path}` makes it")
        if not path.parent.is_dir():
            raise UserError(f"{path}: the directory {path.parent} does not exist")
        self._database = Database(path, "a label store", SCHEMA, APPLICATION, VERSION)
        try:
            self._check()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._database.close()

    def add_pairs(self, pairs: Iterable[BlindPair]) -> None:
        """Keep pairs; one that is there stays, and becomes a gold question where it is one now."""
        rows = [(pair.id, _turns(pair), pair.first, pair.second, pair.known) for pair in pairs]
        with self._database.transaction() as database:
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
        with self._database.transaction() as database:
            for one in labels:
                row = (one.pair, one.annotator, one.choice, one.left, _real(one.seconds), one.at or now())
                new += database.execute(_INSERT, (*row, _sum(row))).rowcount
        return new

    def record_vote(self, pair: BlindPair, vote: Vote) -> bool:
        """Commit a vote and its pair; False where the annotator has judged that pair already: the first label stays."""
        self.add_pairs([pair])
        label = vote.label
        row = (label.pair, label.annotator, label.choice, label.left, _real(label.seconds), label.at or now())
        with self._database.transaction() as database:
            database.execute(AUTHORS)
            inserted = database.execute(_INSERT, (*row, _sum(row)))
            if inserted.rowcount != 1:
                return False
            names = (inserted.lastrowid, vote.first, vote.second)
            database.execute("INSERT INTO authors VALUES (?, ?, ?, ?)", (*names, _sum(names)))
        return True

    def votes(self) -> list[Vote]:
        """The votes that stand, in the order they were stored."""
        if not self._database.rows("SELECT 1 FROM sqlite_schema WHERE name = 'authors'"):
            return []
        rows = self._database.rows(
            "SELECT pair, annotator, choice, left, seconds, at, first, second FROM labels "
            "JOIN authors ON label = number WHERE undone IS NULL ORDER BY number"
        )
        return [Vote(Label(*row[:6]), *row[6:]) for row in rows]

    def undo(self, annotator: str, among: Collection[str]) -> str | None:
        """Take back the annotator's latest label of these pairs; the pair's id, None where there is no label."""
        with self._database.transaction() as database:
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
        with self._database.transaction() as database:
            return database.execute(
                "UPDATE labels SET undone = ? WHERE annotator = ? AND choice = 'skip' AND undone IS NULL",
                (now(), annotator),
            ).rowcount

    def labels(self, annotator: str | None = None) -> list[Label]:
        """The labels that stand, in the order they were stored."""
        rows = self._database.rows(
            "SELECT pair, annotator, choice, left, seconds, at FROM labels "
            "WHERE undone IS NULL AND (?1 IS NULL OR annotator = ?1) ORDER BY number",
            (annotator,),
        )
        return [Label(*row) for row in rows]

    def undone(self) -> dict[str, int]:
        """How many labels each annotator took back."""
        query = "SELECT annotator, count(*) FROM labels WHERE undone IS NOT NULL GROUP BY annotator"
        return dict(self._database.rows(query))

    def pairs(self) -> dict[str, BlindPair]:
        """Every pair by its id, in the order they were first given."""
        rows = self._database.rows("SELECT id, context, first, second, known FROM pairs ORDER BY rowid")
        return {row[0]: _pair(self.path, *row) for row in rows}

    def _check(self) -> None:
        """Every pair is what its name says, and every label what was stored; that none is missing the index tells.

        Raises:
            UserError: names what is damaged.
        """
        found = self._database.rows("PRAGMA integrity_check")
        if found != [("ok",)]:
            raise UserError(f"{self.path}: is damaged ({found[0][0]}); put a copy back")
        for name, pair in self.pairs().items():
            turns = [[turn.role, turn.content] for turn in pair.context]
            if name != digest([turns, pair.first, pair.second])[:16]:
                raise UserError(f"{self.path}: pair {name}: holds other texts than were stored; put a copy back")
        rows = self._database.rows("SELECT number, pair, annotator, choice, left, seconds, at, sum FROM labels")
        for number, *row, stored in rows:
            if _sum(row) != stored:
                raise UserError(f"{self.path}: label {number}: is not as it was stored; put a copy back")
        if self._database.rows("SELECT 1 FROM sqlite_schema WHERE name = 'authors'"):
            for *row, stored in self._database.rows("SELECT label, first, second, sum FROM authors"):
                if _sum(row) != stored:
                    raise UserError(f"{self.path}: vote {row[0]}: is not as it was stored; put a copy back")

    def pragma(self, name: str) -> int:
        """A setting of this connection, by SQLite's name for it."""
        return self._database.pragma(name)


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _real(seconds: float | None) -> float | None:
    """As SQLite gives it back."""
    return None if seconds is None else float(seconds)


def _sum(row: Sequence[Any]) -> str:
    return digest(list(row))[:16]


def _turns(pair: BlindPair) -> str:
    return json.dumps([[turn.role, turn.content] for turn in pair.context])


def _pair(store: Path, name: str, context: str, first: str, second: str, known: Any) -> BlindPair:
    try:
        turns = tuple(Turn(role, content) for role, content in json.loads(context))
    except (ValueError, TypeError) as error:
        raise UserError(f"{store}: pair {name}: its context cannot be read ({error}); put a copy back") from None
    return BlindPair(name, turns, first, second, known)

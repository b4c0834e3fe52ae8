"""SQLite files: what is refused, what is waited for, and what a failing disk leaves."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from smolt.errors import DirectoryInUse, UserError
from smolt.runs import StorageError, database
from smolt.runs.database import Database

SCHEMA = "CREATE TABLE IF NOT EXISTS notes (text TEXT)"


def opened(path: Path) -> Database:
    return Database(path, "a store of notes", SCHEMA, application=7, version=1)


def test_what_was_written_is_there_and_durable(tmp_path: Path) -> None:
    with opened(tmp_path / "a.sqlite") as store:
        with store.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES ('one')")
        assert (store.pragma("synchronous"), store.pragma("user_version"), store.pragma("application_id")) == (2, 1, 7)
        assert store.rows("PRAGMA journal_mode") == [("wal",)]
    with opened(tmp_path / "a.sqlite") as store:
        assert store.rows("SELECT text FROM notes") == [("one",)]


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "a.sqlite") as store:
        with pytest.raises(KeyError), store.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES ('one')")
            raise KeyError
        assert store.rows("SELECT text FROM notes") == []


def test_a_lock_that_stays_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.01)
    words = r"a\.sqlite: another process has been writing"
    first, second = opened(tmp_path / "a.sqlite"), opened(tmp_path / "a.sqlite")
    with first, second, first.transaction(), pytest.raises(DirectoryInUse, match=words), second.transaction():
        pass


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Pages in the middle are lost; the header is whole, so that only reading finds it."""
    path = tmp_path / "a.sqlite"
    with opened(path) as store, store.transaction() as connection:
        connection.executemany("INSERT INTO notes VALUES (?)", [("x" * 5000,)] * 20)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with opened(path) as store, pytest.raises(UserError, match=r"cannot be used as a store of notes \(.*malformed"):
        store.rows("SELECT text FROM notes")


def test_other_files_are_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    before = path.read_bytes()
    with pytest.raises(UserError, match="is another program's database, not a store of notes"):
        opened(path)
    assert path.read_bytes() == before
    path.write_bytes(b"not a database at all" * 50)
    with pytest.raises(UserError, match=r"a\.sqlite: cannot be used as a store of notes \(file is not a database\)"):
        opened(path)


def test_a_full_disk_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    with opened(tmp_path / "a.sqlite") as store:
        with store.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES ('one')")
        store.pragma(f"max_page_count = {store.pragma('page_count')}")
        with pytest.raises(StorageError) as caught, store.transaction() as connection:
            connection.executemany("INSERT INTO notes VALUES (?)", [("x" * 5000,)] * 20)
        assert caught.value.exit_code == 74
        assert store.rows("SELECT text FROM notes") == [("one",)]

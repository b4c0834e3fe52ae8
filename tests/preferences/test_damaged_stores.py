"""A damaged label store is refused, or exports the same: never other labels, never a traceback."""

import contextlib
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from smolt.errors import DirectoryInUse, UserError
from smolt.preferences.people.nouns import Label
from smolt.preferences.people.store import LabelStore
from smolt.rewards.llm_judge.cache import VerdictCache
from smolt.runs import StorageError
from tests.disk import flipped
from tests.preferences.test_people import pairs

FLIPS = 80


def flip_label_store(folder: Path, times: int) -> int:
    """Flip one bit of a label store so many times; how often it was refused, which names it."""
    path, draw = folder / "labels.db", random.Random(3)
    with LabelStore(path) as store:
        some = pairs(12)
        store.add_pairs(some)
        store.record_all(Label(pair.id, "ann", "first", "second", 1.5, "2026-01-01") for pair in some)
        whole = store.labels(), store.pairs()
    content = path.read_bytes()
    refused = 0
    for _ in range(times):
        for beside in folder.iterdir():
            beside.unlink()
        path.write_bytes(flipped(content, draw))
        try:
            with LabelStore(path) as store:
                assert (store.labels(), store.pairs()) == whole
        except (UserError, StorageError, DirectoryInUse) as refusal:
            assert str(path) in f"{refusal} {getattr(refusal, 'filename', '')}"
            refused += 1
    return refused


def flip_verdicts(folder: Path, times: int) -> int:
    """The same of a judge's verdicts; one that is not as it was stored is none."""
    path, draw, refused = folder / "verdicts.sqlite", random.Random(4), 0
    said = {f"key {number}": {"margin": number / 7, "text": "the first"} for number in range(20)}
    with VerdictCache(path) as cache:
        cache.write(said)
    content = path.read_bytes()
    for _ in range(times):
        for beside in folder.iterdir():
            beside.unlink()
        path.write_bytes(flipped(content, draw))
        try:
            with VerdictCache(path) as cache:
                found = cache.read(list(said))
        except (UserError, StorageError, DirectoryInUse):
            refused += 1
            continue
        assert all(said[key] == row for key, row in found.items())
    return refused


@pytest.mark.parametrize("flip", [flip_label_store, flip_verdicts])
def test_one_bit_anywhere(flip: Callable[[Path, int], int], tmp_path: Path) -> None:
    assert flip(tmp_path, FLIPS)  # most bits of a small file are free space


def test_a_context_that_is_no_json_is_named_with_its_store(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with LabelStore(path) as store:
        store.add_pairs(pairs(1))
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE pairs SET context = '[[\x02'")
    with pytest.raises(UserError, match=r"labels.db: pair \w+: its context cannot be read .* put a copy back"):
        LabelStore(path)

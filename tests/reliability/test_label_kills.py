"""SIGKILL at any moment of a labelling: every label that was acknowledged is in the store, and no pair twice."""

import contextlib
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.soak import amount, tell

QUICK_KILLS = 6
SLOW_KILLS = amount(60, 200)
PAIRS = 1500
MOST_LABELS = 8  # that are waited for before a kill
ANNOTATOR = """
import sys
from pathlib import Path
from smolt.preferences.people import LabelStore, Session, pair_of
from smolt.data import Preference

pairs = [pair_of(Preference((), f"one {n}", f"two {n}")) for n in range(int(sys.argv[2]))]
with LabelStore(Path(sys.argv[1])) as store:
    session = Session(store, sys.argv[3], pairs, seed=0)
    print("open", flush=True)
    made = 0
    while session.current is not None:
        made += 1
        name = session.current.id
        session.choose("tie" if made % 5 else "left")
        print(name, flush=True)
        if made % 7 == 0:
            session.undo()
"""


def killed_after(store: Path, name: str, acknowledged: int) -> list[str]:
    """Label in a process and kill it at a moment after so many acknowledgements; the pairs acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-c", ANNOTATOR, str(store), str(PAIRS), name], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    seen = [process.stdout.readline().strip() for _ in range(acknowledged)]
    process.kill()
    rest = process.stdout.read().split("\n")  # a line without its end was not acknowledged
    process.stdout.close()
    process.wait()
    return [name for name in [*seen, *rest[:-1]] if name]


def rows_of(store: Path, name: str) -> tuple[Counter[str], int]:
    """How many rows each pair has of an annotator, those taken back included, and the most that stand for one pair."""
    with contextlib.closing(sqlite3.connect(store)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = database.execute("SELECT pair, undone IS NULL FROM labels WHERE annotator = ?", (name,)).fetchall()
    return Counter(pair for pair, _ in rows), max(Counter(pair for pair, stands in rows if stands).values(), default=0)


def trial(folder: Path, kills: int) -> int:
    """Kill after kill on one store and two annotators; how many acknowledged labels were looked for."""
    store = folder / "labels.sqlite"
    draw = random.Random(kills)
    acknowledged: dict[str, Counter[str]] = {"ann": Counter(), "bob": Counter()}
    for number in range(kills):
        name = ("ann", "bob")[number % 2]
        acknowledged[name].update(killed_after(store, name, draw.randint(0, MOST_LABELS)))
        rows, standing = rows_of(store, name)
        assert acknowledged[name] - rows == Counter()
        assert (rows - acknowledged[name]).total() <= number // 2 + 1  # stored, and killed before it could be said
        assert standing <= 1
    return sum(counter.total() for counter in acknowledged.values())


def test_no_acknowledged_label_is_lost(tmp_path: Path) -> None:
    assert trial(tmp_path, QUICK_KILLS) >= QUICK_KILLS


@pytest.mark.slow
def test_no_acknowledged_label_is_lost_in_many_kills(tmp_path: Path) -> None:
    acknowledged = trial(tmp_path, SLOW_KILLS)
    assert acknowledged >= SLOW_KILLS
    tell("a label that was acknowledged is kept", "label", kills=SLOW_KILLS, acknowledged=acknowledged, lost=0)

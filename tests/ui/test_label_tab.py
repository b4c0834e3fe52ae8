"""Labels in the browser: the store, order and sides of `smolt label`, by key."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra ui is not installed")

from smolt.data import Preference, Turn, preference_row, write_rows
from smolt.errors import UserError
from smolt.preferences.people import Label, LabelStore, left_side, make_queue, pair_of
from smolt.ui.tabs.label_desk import LabelDesk
from smolt.ui.tabs.label_tab import acted, chooser
from tests.ui.conftest import Opener, tab

PREFERENCES = [
    Preference((Turn("user", f"Question {number}?"),), f"good <b>{number}</b>", f"bad {number}") for number in range(3)
]
PAIRS = [pair_of(preference) for preference in PREFERENCES]


def pairs_file(folder: Path) -> str:
    write_rows(folder / "pairs.jsonl", map(preference_row, PREFERENCES))
    return str(folder / "pairs.jsonl")


def labels(store: Path) -> list[Label]:
    with LabelStore(store) as opened:
        return opened.labels()


def test_the_same_queue_and_sides_as_in_the_terminal(tmp_path: Path) -> None:
    """Three clicks on `left`: the labels are of make_queue's order and of the side left_side draws, with their time."""
    now = [10.0]
    desk = LabelDesk(tmp_path / "runs" / "labels.sqlite", pairs_file(tmp_path), clock=lambda: now[0])
    seen = acted(desk, "ann", None)[2]
    for _ in PAIRS:
        now[0] += 2.5
        seen = acted(desk, "ann", seen, "left")[2]
    assert seen is None
    queue, _ = make_queue(PAIRS, [], 0.1, 0, "ann")
    found = labels(desk.store)
    assert [label.pair for label in found] == [pair.id for pair in queue]
    assert [label.choice for label in found] == [left_side(pair, 0, "ann") for pair in queue]
    assert [label.seconds for label in found] == [2.5] * 3


def test_a_page_that_is_behind_labels_nothing(tmp_path: Path) -> None:
    """Two windows show the same pair; the second click is not taken for the next pair."""
    desk = LabelDesk(tmp_path / "labels.sqlite", pairs_file(tmp_path))
    seen = acted(desk, "ann", None)[2]
    acted(desk, "ann", seen, "left")
    said = acted(desk, "ann", seen, "right")[1]
    assert "behind" in said
    assert len(labels(desk.store)) == 1


def test_undo_brings_the_pair_back(tmp_path: Path) -> None:
    desk = LabelDesk(tmp_path / "labels.sqlite", pairs_file(tmp_path))
    first = acted(desk, "ann", None)[2]
    acted(desk, "ann", first, "tie")
    back = acted(desk, "ann", None, undo=True)
    assert back[2][0] == first[0]
    assert labels(desk.store) == []
    assert "nothing to take back" in acted(desk, "ann", None, undo=True)[1]


def test_without_pairs_or_a_name_it_says_what_to_do(tmp_path: Path) -> None:
    assert "--pairs" in acted(LabelDesk(tmp_path / "labels.sqlite"), "ann", None)[1]
    assert "your name" in acted(LabelDesk(tmp_path / "labels.sqlite", pairs_file(tmp_path)), " ", None)[1]
    with pytest.raises(UserError, match=r"nowhere\.jsonl"):
        LabelDesk(tmp_path / "labels.sqlite", str(tmp_path / "nowhere.jsonl"))


def test_pairs_of_the_store_are_labelled_where_none_are_given(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "labels.sqlite") as store:
        store.add_pairs(PAIRS)
    page, _, seen, *_ = acted(LabelDesk(tmp_path / "labels.sqlite"), "ann", None)
    assert seen[0] in {pair.id for pair in PAIRS}
    assert "0 of 3" in page
    assert "&lt;b&gt;" in page
    assert "<b>0" not in page


def test_labels_by_keyboard(opened: Opener, page: Any, tmp_path: Path) -> None:
    """1, 0, u, 2, b: a label for the left answer, a tie taken back, the right answer, both bad; then the figures."""
    store = tmp_path / "runs" / "labels.sqlite"
    tab(page, opened(pairs=pairs_file(tmp_path)), "Label")
    page.fill("#name input", "bob")
    page.keyboard.press("Tab")
    for key, done in (("1", "1 of 3"), ("0", "2 of 3"), ("u", "1 of 3"), ("2", "2 of 3"), ("b", "3 of 3")):
        page.wait_for_timeout(200)
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press(key)
        page.get_by_text(done, exact=True).wait_for()
    page.get_by_text("1 annotator gave 3 labels on 3 of 3 pairs.").wait_for()
    queue, _ = make_queue(PAIRS, [], 0.1, 0, "bob")
    sides = [left_side(pair, 0, "bob") for pair in queue]
    right = "second" if sides[1] == "first" else "first"
    assert [(label.annotator, label.choice) for label in labels(store)] == [
        ("bob", sides[0]),
        ("bob", right),
        ("bob", "both_bad"),
    ]


def test_a_key_before_the_next_pair_is_seen_labels_nothing(tmp_path: Path) -> None:
    """The server is at the second pair, the page still at the first: the key was about that one."""
    desk = LabelDesk(tmp_path / "labels.sqlite", pairs_file(tmp_path))
    first = acted(desk, "ann", None)[2]
    second = acted(desk, "ann", first, "left")[2]
    choose = chooser(desk, "right")
    assert "behind" in choose("ann", second, first[0])[1]
    assert len(labels(desk.store)) == 1
    assert "Saved" in choose("ann", second, second[0])[1]
    assert len(labels(desk.store)) == 2

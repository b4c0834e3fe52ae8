"""What an annotator sees: it fits any terminal, ends with the keys, and content cannot steer it."""

from pathlib import Path

import pytest
from rich.console import Console

from smolt.cli.label import progress
from smolt.data import Preference, Turn
from smolt.preferences.people import LabelStore, Session, pair_of
from smolt.preferences.people.annotators import figures_of
from smolt.preferences.people.labeller import _act
from smolt.preferences.people.screen import draw


def session_of(folder: Path, annotator: str, record: Preference) -> Session:
    """A session that has read all it needs from its store."""
    with LabelStore(folder / "labels.sqlite") as store:
        return Session(store, annotator, [pair_of(record)], seed=0)


def shown(session: Session, width: int, height: int, start: int = 0) -> list[str]:
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as drawn:
        console.print(draw(session, console, start, "").content, end="", crop=False)
    return drawn.get().split("\n")


@pytest.mark.parametrize(("width", "height"), [(40, 12), (80, 24), (99, 24), (100, 24), (200, 60), (30, 12)])
def test_the_screen_fits_and_ends_with_the_keys(width: int, height: int, tmp_path: Path) -> None:
    """As many lines as the terminal has, none wider; answers side by side from 100 columns on."""
    answers = ("word " * 300, "Wort " * 300)
    session = session_of(tmp_path, "ann", Preference((Turn("user", "Why?"),), *answers))
    lines = shown(session, width, height)
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    assert "back up" in lines[-1]
    assert any("LEFT" in line and "RIGHT" in line for line in lines) == (width >= 100)
    assert any("RIGHT" in line for start in range(0, 600, 5) for line in shown(session, width, height, start))


def test_no_verdict_before_both_answers_began(tmp_path: Path) -> None:
    """80 x 24, question of 60 lines: each verdict is refused, naming the key, until both are seen; a skip never is."""
    record = Preference((Turn("user", "Why?\n" * 60),), "yes\n" * 20, "no\n" * 20)
    console = Console(width=80, height=24, force_terminal=True, color_system=None)
    with LabelStore(tmp_path / "labels.sqlite") as store:
        session = Session(store, "ann", [pair_of(record)], seed=0)
        start, seen, refused = 0, frozenset[str](), []
        while len(seen) < 2:
            page = draw(session, console, start, "")
            seen |= page.begun
            if len(seen) < 2:
                for key in ("l", "2", "t", "b"):
                    start, said, fresh = _act(session, key, page, seen)
                    assert (start, fresh, session.done) == (page.start, False, 0)
                refused.append(said)
            start, _, _ = _act(session, " ", page, seen)
        assert refused[0] == "not taken: you have not seen LEFT and RIGHT; space scrolls down"
        assert refused[-1] == "not taken: you have not seen RIGHT; space scrolls down"
        assert _act(session, "l", page, seen)[1].startswith("saved: left")
        session.undo()
        assert _act(session, "s", draw(session, console, 0, ""), frozenset())[1].startswith("saved: skipped")


def test_answers_side_by_side_begin_together(tmp_path: Path) -> None:
    """From 100 columns on a short question leaves room for both; a row less than it takes shows neither."""
    session = session_of(tmp_path, "ann", Preference((Turn("user", "Why?"),), "yes", "no"))
    pages = [draw(session, Console(width=120, height=height, force_terminal=True), 0, "") for height in (24, 6)]
    assert [sorted(page.begun) for page in pages] == [["LEFT", "RIGHT"], []]


def test_the_end_says_what_was_skipped(tmp_path: Path) -> None:
    """One label of one pair: all are labelled. One skip: none is, and --again is named."""
    record = Preference((Turn("user", "Why?"),), "a", "b")
    for pick, said in (("left", "Every pair of the queue is labelled, 1 in all."), ("skip", "0 of 1 pairs have a")):
        with LabelStore(tmp_path / "labels.sqlite") as store:
            session = Session(store, pick, [pair_of(record)], seed=0)
            session.choose("left" if pick == "left" else "skip")
        text = " ".join(shown(session, 120, 24))
        assert said in text
        assert ("--again" in text) == (pick == "skip")


def test_a_skip_is_no_label(tmp_path: Path) -> None:
    """2 labels and 2 skips, one taken back: session, last words and figures say 1 skipped, and what asks it again."""
    four = [pair_of(Preference((Turn("user", f"Why {n}?"),), "a", "b")) for n in range(4)]
    with LabelStore(tmp_path / "labels.sqlite") as store:
        session = Session(store, "ann", four, seed=0)
        for pick in ("left", "skip", "tie", "skip"):
            session.choose(pick)
        assert (session.labelled, session.skipped, session.done) == (2, 2, 4)
        words = "labels this time: 2; labelled: 2 of 4 pairs, skipped: 2 (--again asks them again)"
        assert progress(session, 0) == words
        assert session.undo()
        assert (session.labelled, session.skipped, session.done) == (2, 1, 3)
        again = Session(store, "ann", four, seed=0)
        assert (again.skipped, again.done) == (1, 3)
        session.choose("both_bad")
        assert (
            progress(session, 0) == "labels this time: 3; labelled: 3 of 4 pairs, skipped: 1 (--again asks them again)"
        )
        habits = figures_of(store).habits[0]
        assert (habits.labels, habits.skips) == (3, 1)


def test_content_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Escape sequences, bells, carriage returns and direction marks are shown as escapes; markup as it is."""
    evil = "\x1b[2J\x1b]0;title\x07\r[bold]b[/bold]\u202eright to left"
    session = session_of(tmp_path, "a\x1bnn", Preference((Turn("user", evil),), evil, "fine"))
    text = "\n".join(shown(session, 120, 30))
    assert not set(text) & {"\x07", "\r", "\u202e", "\x9b"}
    assert all(sequence.startswith(("[1m", "[0m", "[1;7m", "[3m")) for sequence in text.split("\x1b")[1:])
    assert r"\x1b[2J\x1b]0;title\x07\x0d[bold]b[/bold]" in text

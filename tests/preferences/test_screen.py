"""What an annotator sees: it fits any terminal, ends with the keys, and content cannot steer it."""

from pathlib import Path

import pytest
from rich.console import Console

from smolt.data import Preference, Turn
from smolt.preferences.people import LabelStore, Session, pair_of
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


def test_content_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Escape sequences, bells, carriage returns and direction marks are shown as escapes; markup as it is."""
    evil = "\x1b[2J\x1b]0;title\x07\r[bold]b[/bold]\u202eright to left"
    session = session_of(tmp_path, "a\x1bnn", Preference((Turn("user", evil),), evil, "fine"))
    text = "\n".join(shown(session, 120, 30))
    assert not set(text) & {"\x07", "\r", "\u202e", "\x9b"}
    assert all(sequence.startswith(("[1m", "[0m", "[1;7m", "[3m")) for sequence in text.split("\x1b")[1:])
    assert r"\x1b[2J\x1b]0;title\x07\x0d[bold]b[/bold]" in text

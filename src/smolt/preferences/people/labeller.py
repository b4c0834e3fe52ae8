"""The labeller in a terminal: one key per choice, each acknowledged on the screen only after it is on the disk."""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator

from rich.console import Console, ConsoleDimensions

from smolt.errors import UserError
from smolt.preferences.people.screen import SIDES, Page, draw
from smolt.preferences.people.session import Pick, Session

PICKS: dict[str, Pick] = {
    **dict.fromkeys(("l", "1", "\x1b[D", "\x1bOD"), "left"),
    **dict.fromkeys(("r", "2", "\x1b[C", "\x1bOC"), "right"),
    "t": "tie",
    "b": "both_bad",
    "s": "skip",
}
UNDO = {"u"}
QUIT = {"q", "\x04"}
DOWN = {" ", "\x1b[6~", "\x1b[B", "\x1bOB"}
UP = {"-", "\x1b[5~", "\x1b[A", "\x1bOA"}
SAID = {"left": "left", "right": "right", "tie": "a tie", "both_bad": "both bad", "skip": "skipped"}
LOOK = 0.25  # seconds between looks at the size of the terminal
SEQUENCE = 0.05  # seconds within which the rest of an arrow key's bytes arrive


def need_terminal() -> None:
    """Refuse to start where nobody could press a key.

    Raises:
        UserError: standard input or output is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(
            "smolt label asks a person and needs a terminal; labels from elsewhere come in with `smolt label import`"
        )


def label_in_terminal(session: Session) -> None:
    """Show pair after pair until the annotator quits.

    Raises:
        UserError: standard input or output is no terminal.
        StorageError: the disk is full or failing; what was acknowledged is in the store.
    """
    need_terminal()
    with _raw_keys(sys.stdin.fileno()) as descriptor, _full_screen() as console:
        start, remark, fresh, seen = 0, "", True, frozenset[str]()
        while True:
            console.size = _size(console)
            page = draw(session, console, start, remark)
            _show(console, page)
            seen = page.begun if fresh else seen | page.begun
            if fresh:  # keys pressed before the pair could be seen are about another one
                termios.tcflush(descriptor, termios.TCIFLUSH)
            key = _key(descriptor, console)
            if key in QUIT:
                return
            start, remark, fresh = _act(session, key, page, seen)


def _act(session: Session, key: str, page: Page, seen: frozenset[str]) -> tuple[int, str, bool]:
    """What a key does: the first line to show then, what to say, and whether another pair is shown.

    Args:
        session: where the annotator is.
        key: which was pressed.
        page: what is on the screen.
        seen: the answers of this pair whose beginning has been on it; a verdict needs both.
    """
    if key in UNDO:
        undone = session.undo()
        return 0, "taken back" if undone else "nothing to take back", undone
    if key in DOWN or key in UP:
        step = max(1, page.rows - 2)
        return page.start + (step if key in DOWN else -step), "", False
    if key not in PICKS:
        return page.start, "" if key == "" else "no such key", False
    if session.current is None:
        return 0, "nothing is left to label", False
    pick = PICKS[key]
    unseen = [name for name in SIDES if name not in seen]
    if unseen and pick != "skip":
        return page.start, f"not taken: you have not seen {' and '.join(unseen)}; space scrolls down", False
    seconds = session.choose(pick)
    if seconds is None:
        return 0, "you labelled that pair in another window; the first label stays", True
    return 0, f"saved: {SAID[pick]}, {seconds:.1f} s", True


def _show(console: Console, page: Page) -> None:
    with console.capture() as drawn:
        console.print(page.content, end="", crop=False)
    console.file.write("\x1b[H" + drawn.get().replace("\n", "\r\n") + "\x1b[J")
    console.file.flush()


def _key(descriptor: int, console: Console) -> str:
    """The next key, "" when the terminal has changed its size, Ctrl-D when it is gone."""
    while not select.select([descriptor], [], [], LOOK)[0]:
        if _size(console) != console.size:
            return ""
    key = os.read(descriptor, 1)
    while key[:1] == b"\x1b" and len(key) < 8 and select.select([descriptor], [], [], SEQUENCE)[0]:
        key += os.read(descriptor, 1)
        if (key[-1:].isalpha() and key != b"\x1bO") or key.endswith(b"~"):
            break
    return key.decode(errors="replace") if key else "\x04"


def _size(console: Console) -> ConsoleDimensions:
    """The terminal's size now, whatever COLUMNS and LINES were when the shell exported them."""
    size = os.get_terminal_size(console.file.fileno())
    return ConsoleDimensions(size.columns or 80, size.lines or 25)


@contextlib.contextmanager
def _raw_keys(descriptor: int) -> Iterator[int]:
    """Keys one by one and unseen; Ctrl-C still interrupts."""
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


@contextlib.contextmanager
def _full_screen() -> Iterator[Console]:
    """A screen of our own; what was there comes back at the end."""
    console = Console(highlight=False, legacy_windows=False)
    console.set_alt_screen(True)
    console.show_cursor(False)
    try:
        yield console
    finally:
        console.show_cursor(True)
        console.set_alt_screen(False)

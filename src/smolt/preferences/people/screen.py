"""What an annotator sees: the question, two answers, and at the bottom where they are and which keys there are."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from smolt.preferences.people.nouns import BlindPair
from smolt.preferences.people.session import Session
from smolt.report.inert import visible

SIDES = ("LEFT", "RIGHT")
WIDE = 100  # columns from which the answers stand side by side
KEYS = (
    ("l", "left"),
    ("r", "right"),
    ("t", "tie"),
    ("b", "both bad"),
    ("s", "skip"),
    ("u", "undo"),
    ("q", "quit"),
    ("space", "further down"),
    ("-", "back up"),
)


@dataclass(frozen=True)
class Page:
    """A screen.

    Attributes:
        content: its lines.
        start: which line of the content is its first.
        lines: how many lines the content has.
        rows: how many of them the screen has room for.
        begun: the answers, LEFT and RIGHT, whose first line of text is on it.
    """

    content: Segments
    start: int
    lines: int
    rows: int
    begun: frozenset[str]


def draw(session: Session, console: Console, start: int, remark: str) -> Page:
    """The screen for a console of this size, its content beginning with line `start` where that many are hidden."""
    parts = [_lines(console, part) for part in _body(session, console.width)]
    body = [line for part in parts for line in part]
    foot = _lines(console, _foot(session, remark, ""))
    rows = max(1, console.height - len(foot))
    if len(body) > rows:
        start = max(0, min(start, len(body) - rows))
        seen = f"lines {start + 1} to {start + rows} of {len(body)}"
        foot = _lines(console, _foot(session, remark, seen))
        rows = max(1, console.height - len(foot))
        start = min(start, max(0, len(body) - rows))
    else:
        start = 0
    blank = [[Segment(" " * console.width)]] * max(0, rows - len(body))
    shown = [*body[start : start + rows], *blank, *foot][: console.height]
    flat = [segment for line in shown for segment in [*line, Segment.line()]]
    return Page(Segments(flat[:-1]), start, len(body), rows, _begun(parts, range(start, start + rows)))


def _begun(parts: Sequence[Sequence[object]], lines: range) -> frozenset[str]:
    """The answers whose first line of text, below the upper edge of its box, is among these lines of the content."""
    first = [sum(map(len, parts[:place])) + 1 for place in range(1, len(parts))]
    if len(first) == 1:
        first *= 2  # side by side
    return frozenset(name for name, line in zip(SIDES, first, strict=False) if line in lines)


def _body(session: Session, width: int) -> list[RenderableType]:
    """The question and the answers: two below one another, or one of both side by side."""
    if session.current is None:
        return [Text(f"\n{_end(session)} Thank you.\n")]
    left, right = (_answer(name, text) for name, text in zip(SIDES, session.sides(), strict=True))
    if width < WIDE:
        return [_question(session.current), left, right]
    side_by_side = Table.grid(expand=True)
    side_by_side.add_column(ratio=1)
    side_by_side.add_column(ratio=1)
    side_by_side.add_row(left, right)
    return [_question(session.current), side_by_side]


def _end(session: Session) -> str:
    """What there is to say at the end of the queue."""
    if not session.skipped:
        return f"Every pair of the queue is labelled, {len(session.queue):,} in all."
    return (
        f"The queue is through: {session.done - session.skipped:,} of {len(session.queue):,} pairs have a label, "
        f"{session.skipped:,} you skipped; the same command with --again asks those again."
    )


def _question(pair: BlindPair) -> RenderableType:
    turns = [Text(f"{turn.role}: {visible(turn.content)}", overflow="fold") for turn in pair.context]
    return Panel(Group(*(turns or [Text("(no question: two texts)")])), title="QUESTION", box=box.SQUARE, expand=True)


def _answer(name: str, text: str) -> Panel:
    shown = Text(visible(text), overflow="fold") if text.strip() else Text("(empty)", style="italic")
    return Panel(shown, title=name, box=box.SQUARE, expand=True)


def _foot(session: Session, remark: str, seen: str) -> RenderableType:
    facts = [visible(session.annotator), f"{session.done:,} of {len(session.queue):,} done", seen, remark]
    keys = Text("  ").join(Text.assemble((key, "bold reverse"), f" {name}") for key, name in KEYS)
    return Group(Text(" | ".join(fact for fact in facts if fact), style="bold"), keys)


def _lines(console: Console, content: RenderableType) -> list[list[Segment]]:
    options = console.options.update(width=console.width, height=None)
    return console.render_lines(content, options, pad=True)

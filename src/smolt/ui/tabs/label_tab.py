"""The tab for labels: pair after pair, blind, by key; the same store and the same order as `smolt label`."""

from typing import Any

import gradio
from markupsafe import Markup

from smolt.errors import DirectoryInUse, UserError
from smolt.preferences.people import LabelStore, Session
from smolt.preferences.people.annotators import figures_of, label_panel
from smolt.preferences.people.session import Pick
from smolt.report.inert import visible
from smolt.runs import StorageError
from smolt.ui.tabs.label_desk import LabelDesk
from smolt.ui.tabs.parts import QUIET, alarm, joined, note, panel_of, shown, text

PICKS: dict[str, tuple[Pick, str]] = {
    "Left [1]": ("left", "key-left"),
    "Right [2]": ("right", "key-right"),
    "Tie [0]": ("tie", "key-tie"),
    "Both bad [b]": ("both_bad", "key-bad"),
    "Skip [s]": ("skip", "key-skip"),
}
SAID: dict[Pick, str] = {"left": "left", "right": "right", "tie": "a tie", "both_bad": "both bad", "skip": "skipped"}
ANSWERS = Markup(
    '<div class="pair"><article><header><b>Left</b></header>{}</article>'
    "<article><header><b>Right</b></header>{}</article></div>"
)
BAR = Markup(
    '<div class="bar" role="progressbar" aria-valuenow="{}" aria-valuemax="{}"><i style="width: {:.1f}%"></i></div>'
)
Shown = tuple[str, float] | None
"""The pair a visitor looks at, and since when."""


def label_tab(desk: LabelDesk, name: Any) -> None:
    """Lay the tab out; `name` is the field that says who labels."""
    with gradio.Tab("Label", id="label", elem_id="tab-label") as tab:
        seen = gradio.State(None)
        here = gradio.Textbox("", visible=False)  # which pair the page shows: of a key that comes before the next one
        remark = shown(elem_id="label-remark")
        page = shown(elem_id="pair")
        with gradio.Row(elem_classes="picks"):
            buttons = [
                gradio.Button(words, elem_classes=css, elem_id=f"label-{pick}") for words, (pick, css) in PICKS.items()
            ]
            undo = gradio.Button("Undo [u]", elem_classes="key-undo", elem_id="label-undo")
        figures = shown(elem_id="label-figures")

    outputs = [page, remark, seen, figures, here]

    def show(name: str) -> list[Any]:
        return acted(desk, name, None)

    def take_back(name: str) -> list[Any]:
        return acted(desk, name, None, undo=True)

    for trigger in (tab.select, name.change):
        trigger(show, name, outputs, **QUIET)
    for button, (pick, _) in zip(buttons, PICKS.values(), strict=True):
        button.click(chooser(desk, pick), [name, seen, here], outputs, **QUIET)
    undo.click(take_back, name, outputs, **QUIET)


def chooser(desk: LabelDesk, pick: Pick) -> Any:
    """What a button does; a key that was pressed before the next pair could be seen is about another one."""

    def choose(name: str, seen: Shown, here: str) -> list[Any]:
        return acted(desk, name, seen if seen and seen[0] == here else ("", desk.clock()), pick)

    return choose


def acted(desk: LabelDesk, name: str, seen: Shown, pick: Pick | None = None, undo: bool = False) -> list[Any]:
    """The page after a click: the pair, what was done, what the visitor looks at now, and at the end the figures.

    Args:
        desk: the pairs and the store.
        name: who labels.
        seen: the pair the visitor looked at; a label for another one, from a page that is behind, is not given.
        pick: what was chosen.
        undo: whether the last label is taken back.
    """
    try:
        with desk.session(name, seen[1] if seen else None) as session:
            said = _done(session, seen, pick, undo)
            current = session.current
            content = _pair(session) if current is not None else note(_end(session))
            done = Markup('<p class="soft">{:,} of {:,}</p>').format(session.done, len(session.queue))
            share = 100 * session.done / max(1, len(session.queue))
            page = joined([BAR.format(session.done, len(session.queue), share), done, content])
        figures = "" if current is not None else _figures(desk)
        now = (current.id, desk.clock()) if current is not None else None
        return [page, said, now, figures, current.id if current is not None else ""]
    except (UserError, StorageError, DirectoryInUse) as error:
        return [gradio.skip() if seen else "", alarm(str(error)), gradio.skip(), gradio.skip(), gradio.skip()]


def _done(session: Session, seen: Shown, pick: Pick | None, undo: bool) -> Markup:
    """Do it, and say it."""
    if undo:
        return note("Taken back." if session.undo() else "There is nothing to take back.")
    if pick is None or session.current is None:
        return Markup("")
    if seen is None or seen[0] != session.current.id:
        return note("This page was behind; here is the pair that is open.")
    seconds = session.choose(pick)
    if seconds is None:
        return note("You labelled that pair in another window; the first label stays.")
    return note(f"Saved: {SAID[pick]}, {seconds:.1f} s.")


def _end(session: Session) -> str:
    """What is said where no pair is open."""
    if not session.skipped:
        return "Every pair has a label of yours."
    return f"Every pair has a label of yours, or was skipped: {session.skipped:,}."


def _pair(session: Session) -> Markup:
    """The question and both answers."""
    pair = session.current
    assert pair is not None
    turns = joined(
        Markup('<div class="turn {}"><b class="soft small">{}</b>{}</div>').format(
            "user" if turn.role == "user" else "assistant", visible(turn.role), text(turn.content)
        )
        for turn in pair.context
    )
    left, right = session.sides()
    return turns + ANSWERS.format(text(left), text(right))


def _figures(desk: LabelDesk) -> Markup:
    """What the labels are worth, agreement between annotators included."""
    with LabelStore(desk.store) as store:
        return Markup("<h3>Labels so far</h3>") + panel_of(label_panel(figures_of(store)))

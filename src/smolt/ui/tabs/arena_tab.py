"""The arena: one question to two models, sides and names hidden until the vote; the ratings of all votes."""

import functools
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio
from markupsafe import Markup

from smolt.config import ChatSampling, make_block
from smolt.errors import DirectoryInUse, UserError
from smolt.preferences.people import LabelStore
from smolt.preferences.people.arena import vote_panel
from smolt.preferences.people.session import Pick
from smolt.report.inert import visible
from smolt.runs import StorageError
from smolt.ui.environment import Face
from smolt.ui.tabs.matches import Match, drawn, vote_of
from smolt.ui.tabs.parts import QUIET, alarm, halting, note, panel_of, shown, text
from smolt.ui.talks import Said, Speakers

PICKS: dict[str, tuple[Pick, str, str]] = {
    "A is better": ("left", "key-left", "1"),
    "B is better": ("right", "key-right", "2"),
    "Tie": ("tie", "key-tie", "0"),
    "Both bad": ("both_bad", "key-bad", "b"),
}
LOOK = 0.25
WAITING = "Both are answering ... (their answers appear together, so that their speed says nothing)"


@dataclass(frozen=True)
class Round:
    """A visitor's round, kept by the server alone.

    Attributes:
        match: who answers what.
        answers: left and right, None while they are written.
        since: when they were shown, in seconds.
        over: whether it was voted on.
    """

    match: Match
    answers: tuple[str, str] | None = None
    since: float = 0.0
    over: bool = False


def arena_tab(face: Face, speakers: Speakers, name: Any) -> None:
    """Lay the tab out.

    Args:
        face: whose store takes the votes.
        speakers: the models.
        name: the field that says who votes.
    """
    with gradio.Tab("Arena", id="arena", elem_id="tab-arena") as tab:
        state = gradio.State(None)
        names = speakers.names()
        arms = gradio.CheckboxGroup(names, value=names, label="Models", elem_id="arena-models")
        question = gradio.Textbox(
            "", label="Question", placeholder="Ask both the same. Enter asks.", elem_id="arena-question", max_lines=8
        )
        with gradio.Accordion("How they answer", open=False):
            system = gradio.Textbox("", label="System message", elem_id="arena-system")
            temperature = gradio.Slider(0, 2, 0.7, step=0.05, label="Temperature (0 = always the likeliest token)")
            longest = gradio.Slider(16, 1024, 200, step=8, label="Longest answer, tokens")
        with gradio.Row():
            ask = gradio.Button("Ask", variant="primary", elem_id="arena-ask")
            stop = gradio.Button("Stop", elem_classes="key-stop", elem_id="arena-stop")
        remark = shown(elem_id="arena-remark")
        with gradio.Row():
            sides = [shown(side_of(letter), elem_id=f"arena-{letter}", elem_classes="side") for letter in "AB"]
        with gradio.Row(elem_classes="picks"):
            buttons = [
                gradio.Button(f"{words} [{key}]", elem_classes=css, interactive=False, elem_id=f"vote-{pick}")
                for words, (pick, css, key) in PICKS.items()
            ]
        ratings = shown(elem_id="ratings")

    said = [state, *sides, *buttons, remark]
    asked = [arms, question, system]
    for trigger in (ask.click, question.submit):
        trigger(_begun, asked, said, **QUIET).then(
            _player(speakers),
            [state, temperature, longest],
            said,
            show_progress="hidden",
            api_visibility="private",
            concurrency_limit=4,
        )
    stop.click(halting(speakers), None, None, **QUIET)
    for button, (pick, _, _) in zip(buttons, PICKS.values(), strict=True):
        button.click(functools.partial(_voted, face.store, pick), [state, name], [*said, ratings], **QUIET)

    def look_again() -> list[Any]:
        return [ratings_of(face.store), gradio.CheckboxGroup(choices=speakers.names())]

    tab.select(look_again, None, [ratings, arms], **QUIET)


def side_of(letter: str, content: str = "", name: str = "", cut: bool = False) -> str:
    """One answer on the page; its model is named after the vote."""
    who = Markup("<b>{}</b> {}").format(letter, visible(name))
    end = Markup('<p class="soft small">cut: it reached the longest answer</p>') if cut else ""
    return str(Markup("<article><header>{}</header>{}{}</article>").format(who, text(content), end))


def blank(content: str = "") -> list[str]:
    """Both sides without an answer."""
    return [side_of("A", content), side_of("B", content)]


def locked(open_: bool = False) -> list[Any]:
    """The four buttons, which take a vote or do not."""
    return [gradio.Button(interactive=open_)] * len(PICKS)


def ratings_of(store: Path) -> Markup:
    """The ratings of all votes in the store."""
    if not store.exists():
        return panel_of(vote_panel([]))
    try:
        with LabelStore(store) as opened:
            return panel_of(vote_panel(opened.votes()))
    except (UserError, StorageError, DirectoryInUse) as error:
        return alarm(str(error))


def _begun(arms: list[str], question: str, system: str) -> list[Any]:
    """A round of two of the arms, whose names stay here."""
    try:
        match = drawn(question, system, arms, random.SystemRandom())
    except UserError as error:
        return [None, *blank(), *locked(), alarm(str(error))]
    return [Round(match), *blank("…"), *locked(), note(WAITING)]


def _player(speakers: Speakers) -> Any:
    """What lets both answer."""

    def play(round_: Round | None, temperature: float, longest: float, request: gradio.Request) -> Iterator[list[Any]]:
        if round_ is None:
            yield [gradio.skip()] * (len(PICKS) + 4)
            return
        sampling = make_block(ChatSampling, temperature=temperature, max_tokens=int(longest), seed=round_.match.seed)
        yield from _played(speakers, round_, sampling, request.session_hash)

    return play


def _played(speakers: Speakers, round_: Round, sampling: ChatSampling, visitor: str | None) -> Iterator[list[Any]]:
    """Both answers, written at the same time and shown together."""
    ends: dict[str, Said | UserError] = {}

    def speak(side: str, model: str) -> None:
        try:
            for said in speakers.answer(visitor, model, round_.match.turns, sampling, round_.match.system):
                ends[side] = said
        except UserError as error:
            ends[side] = error

    models = {"A": round_.match.left, "B": round_.match.right}
    threads = [threading.Thread(target=speak, args=one, daemon=True) for one in models.items()]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    while any(thread.is_alive() for thread in threads):
        time.sleep(LOOK)
        yield [gradio.skip(), *blank("…"), *locked(), note(f"{WAITING} {time.monotonic() - began:.0f} s")]
    yield _shown_together(round_, ends)


def _shown_together(round_: Round, ends: dict[str, Said | UserError]) -> list[Any]:
    """The page when both have ended: to be voted on, unless one failed, was stopped, or both are the same."""
    failed = [end for end in ends.values() if isinstance(end, UserError)]
    if failed:
        return [None, *blank(), *locked(), alarm(str(failed[0]))]
    said = [end for side in "AB" if isinstance(end := ends.get(side), Said)]
    if len(said) < 2 or any(one.reason == "cancelled" for one in said):
        return [None, *blank(), *locked(), note("Stopped. Nothing was counted.")]
    answers = (said[0].text, said[1].text)
    names = round_.match.left, round_.match.right
    if answers[0] == answers[1]:
        both = [side_of(side, one.text, who) for side, one, who in zip("AB", said, names, strict=True)]
        return [None, *both, *locked(), note("Both answered the same, word for word; there is nothing to choose.")]
    sides = [side_of(side, one.text, cut=one.reason == "length") for side, one in zip("AB", said, strict=True)]
    keys = "Which is better? 1 or ← for A, 2 or → for B, 0 tie, b both bad."
    return [replace(round_, answers=answers, since=time.monotonic()), *sides, *locked(True), note(keys)]


def _voted(store: Path, pick: Pick, round_: Round | None, name: str) -> list[Any]:
    """Store the vote, then name the models; what could not be stored can be tried again."""
    if round_ is None or round_.answers is None or round_.over:
        return [gradio.skip()] * (len(PICKS) + 5)
    match, answers = round_.match, round_.answers
    try:
        if not name.strip():
            raise UserError("say who votes: fill in your name at the top")
        store.parent.mkdir(parents=True, exist_ok=True)
        pair, vote = vote_of(match, answers, pick, name.strip(), time.monotonic() - round_.since)
        with LabelStore(store) as opened:
            new = opened.record_vote(pair, vote)
            ratings = panel_of(vote_panel(opened.votes()))
    except (UserError, StorageError, DirectoryInUse, OSError) as error:
        return [gradio.skip(), gradio.skip(), gradio.skip(), *locked(True), alarm(str(error)), gradio.skip()]
    sides = [side_of(*one) for one in zip("AB", answers, (match.left, match.right), strict=True)]
    said = "Saved." if new else "You voted on these two answers before; the first vote stays."
    return [
        replace(round_, over=True),
        *sides,
        *locked(),
        note(f"{said} A was {match.left}, B was {match.right}."),
        ratings,
    ]

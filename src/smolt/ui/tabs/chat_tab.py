"""The chat: one model, or two side by side, streamed; each visitor's conversation is their own."""

from collections.abc import Iterator, Sequence
from typing import Any

import gradio
from markupsafe import Markup

from smolt.config import ChatSampling, make_block
from smolt.data import Turn
from smolt.errors import UserError
from smolt.report.inert import visible
from smolt.ui.tabs.parts import QUIET, alarm, halting, joined, shown, text
from smolt.ui.talks import Said, Speakers

NOBODY = "(one model)"
EMPTY = Markup('<p class="soft">Ask something. Enter sends, Shift-Enter breaks the line, Escape stops an answer.</p>')
NO_MODEL = "Name a model when you start it: smolt ui MODEL; models of the runs directory are found too."
Turns = tuple[Turn, ...]


def chat_tab(speakers: Speakers) -> None:
    """Lay the tab out."""
    names = speakers.names()
    with gradio.Tab("Chat", id="chat", elem_id="tab-chat") as tab:
        with gradio.Row():
            models = [
                gradio.Dropdown(names, value=names[0] if names else None, label="Model", elem_id="model-0"),
                gradio.Dropdown([NOBODY, *names], value=NOBODY, label="Beside it", elem_id="model-1"),
            ]
        talks = [gradio.State(()), gradio.State(())]
        again = gradio.State(0)
        with gradio.Row():
            pages = [
                shown(str(EMPTY) if names else str(alarm(NO_MODEL)), elem_id="talk-0", elem_classes="talk"),
                shown(elem_id="talk-1", elem_classes="talk", visible=False),
            ]
        question = gradio.Textbox(
            "", show_label=False, label="Question", placeholder="Your question", elem_id="question", max_lines=10
        )
        with gradio.Row(elem_classes="picks"):
            send = gradio.Button("Send", variant="primary", elem_id="send")
            stop = gradio.Button("Stop", elem_classes="key-stop", elem_id="stop")
            more = gradio.Button("Answer again", elem_id="again")
            new = gradio.Button("New conversation", elem_id="new")
        with gradio.Accordion("How it answers", open=False, elem_id="sampling"):
            system = gradio.Textbox("", label="System message", elem_id="system", max_lines=6)
            with gradio.Row():
                sampling = [
                    gradio.Slider(0, 2, 0.7, step=0.05, label="Temperature (0 = always the likeliest token)"),
                    gradio.Slider(0.05, 1, 1, step=0.05, label="Top-p"),
                    gradio.Slider(1, 2048, 256, step=1, label="Longest answer, tokens", elem_id="longest"),
                    gradio.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed"),
                ]

    def begin(question: str, first: Turns, second: Turns) -> list[Any]:
        if not question.strip():
            return [gradio.skip()] * 6
        turns = [(*talk, Turn("user", question)) for talk in (first, second)]
        return ["", 0, *turns, *(page_of(talk, "…") for talk in turns)]

    def repeat(first: Turns, second: Turns, again: int) -> list[Any]:
        turns = [talk[:-1] if talk and talk[-1].role == "assistant" else talk for talk in (first, second)]
        return [gradio.skip(), again + 1, *turns, *(page_of(talk, "…") if talk else str(EMPTY) for talk in turns)]

    halt = halting(speakers)

    def look_again(first: str | None) -> list[Any]:
        now = speakers.names()
        chosen = first if first in now else (now[0] if now else None)
        return [gradio.Dropdown(choices=now, value=chosen), gradio.Dropdown(choices=[NOBODY, *now])]

    tab.select(look_again, models[0], models, **QUIET)
    outputs = [question, again, *talks, *pages]
    begun = [
        send.click(begin, [question, *talks], outputs, **QUIET),
        question.submit(begin, [question, *talks], outputs, **QUIET),
        more.click(repeat, [*talks, again], outputs, **QUIET),
    ]
    for started in begun:
        for model, talk, page in zip(models, talks, pages, strict=True):
            started.then(
                _speaker(speakers),
                [model, talk, again, system, *sampling],
                [page, talk],
                show_progress="hidden",
                api_visibility="private",
                concurrency_limit=8,
            )
    stop.click(halt, None, None, **QUIET)
    new.click(halt, None, None, **QUIET).then(lambda: ["", 0, (), (), str(EMPTY), str(EMPTY)], None, outputs, **QUIET)
    models[1].input(lambda name: gradio.HTML(visible=name != NOBODY), models[1], pages[1], **QUIET)


def _speaker(speakers: Speakers) -> Any:
    """What answers on one side."""

    def speak(
        model: str | None,
        talk: Turns,
        again: int,
        system: str,
        temperature: float,
        top_p: float,
        longest: float,
        seed: float,
        request: gradio.Request,
    ) -> Iterator[list[Any]]:
        if model is None or model == NOBODY or not talk or talk[-1].role != "user":
            yield [gradio.skip(), gradio.skip()]
            return
        if speakers.loads(model):
            yield [page_of(talk, "…", remark=f"{model} is being read"), gradio.skip()]
        try:
            sampling = make_block(
                ChatSampling, temperature=temperature, top_p=top_p, max_tokens=int(longest), seed=int(seed or 0)
            )
            for said in speakers.answer(request.session_hash, model, talk, sampling, system.strip(), again):
                yield [page_of(talk, said.text, said), gradio.skip() if said.reason is None else kept(talk, said)]
        except UserError as error:
            yield [page_of(talk[:-1]) + alarm(str(error)), talk[:-1]]

    return speak


def kept(talk: Turns, said: Said) -> Turns:
    """The conversation after an answer; a question that was stopped before any answer goes."""
    if not said.text.strip() and said.reason == "cancelled":
        return talk[:-1]
    return (*talk, Turn("assistant", said.text))


def page_of(talk: Sequence[Turn], answer: str | None = None, said: Said | None = None, remark: str = "") -> Markup:
    """A conversation on the page, with the answer that is being written; all of it text."""
    turns = [_turn(turn.role, turn.content) for turn in talk]
    if answer is not None:
        turns.append(_turn("assistant", answer, remark or _remark(said)))
    return Markup('<div class="turns" aria-live="polite"><div>{}</div></div>').format(joined(turns))


def _turn(role: str, content: str, remark: str = "") -> Markup:
    end = Markup('<p class="soft small">{}</p>').format(visible(remark)) if remark else ""
    return Markup('<div class="turn {}">{}{}</div>').format(role, text(content), end)


def _remark(said: Said | None) -> str:
    """What is to be known of an answer."""
    if said is None:
        return ""
    ends = {"length": "cut: it reached the longest answer", "cancelled": "stopped"}
    parts = [ends.get(said.reason or "", "")]
    if said.dropped:
        parts.append(f"the oldest {said.dropped} exchanges no longer fit the window and are left out")
    return "; ".join(part for part in parts if part)

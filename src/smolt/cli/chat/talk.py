"""One model or two that are asked the same, and their answers as they are written; all of it inert."""

import contextlib
import shutil
import sys
import time
from dataclasses import dataclass, replace
from typing import TextIO

from rich.cells import cell_len

from smolt.cli.chat.plain_lines import Lines
from smolt.cli.outcomes import at_words
from smolt.cli.progress import StepBar
from smolt.config import ChatSampling, Model, make_block
from smolt.errors import UserError
from smolt.models.conversation import Conversation, remembers
from smolt.models.ground import open_ground
from smolt.models.sampling import answer_in_int8
from smolt.models.saving import load_policy
from smolt.report.inert import visible

LONG = 1000
"""Tokens of a context that take seconds to read."""

ROUND = 40
"""Runs of three words from which on an answer is looked at for circles."""


@dataclass(frozen=True)
class Speaker:
    """A model in a conversation of its own.

    Attributes:
        model: its path, and where and how precisely it computes.
        conversation: what was said.
        note: what weights in int8 change in its answers, in a sentence; empty where they are as they are.
    """

    model: Model
    conversation: Conversation
    note: str = ""

    @property
    def name(self) -> str:
        """As the user named it."""
        return self.model.path

    @property
    def title(self) -> str:
        """Its name, and where and how precisely it computes."""
        precision = self.conversation.policy.trunk.precision
        return f"{self.name} on {precision.device.type} in {str(precision.dtype).removeprefix('torch.')}"


def open_speaker(model: Model, sampling: ChatSampling, system: str | None = None, int8: bool = False) -> Speaker:
    """A model at the beginning of a conversation, which answers from weights in int8 where these are wanted.

    Raises:
        UserError: the model cannot be read, takes no system message, or cannot answer so.
    """
    ground = open_ground(model)
    policy = load_policy(model.path, ground.precision)
    note = ""
    if int8:
        note = answer_in_int8(policy, ground.renderer, ground.window, model.path)
    elif policy.trunk.lean:  # else it is made again for each answer: a second for half a billion weights
        policy.decoder = policy.trunk.lean_decoder(policy.adapter, ground.window)
    talk = Conversation(policy, ground.renderer, ground.window, sampling)
    if system is not None:
        try:
            talk.instruct(system)
        except UserError as error:
            raise UserError(f"--system: {model.path}: {error}") from None
    return Speaker(model, talk, note)


def successor(before: Speaker, path: str) -> Speaker:
    """Another model that goes on with the conversation; without its system message where it takes none.

    Raises:
        UserError: the model cannot be read.
    """
    model = make_block(Model, **{**before.model.model_dump(), "path": path})
    after = open_speaker(model, before.conversation.sampling, int8=bool(before.note))
    policy, renderer, window = after.conversation.policy, after.conversation.renderer, after.conversation.window
    system = before.conversation.system if remembers(renderer) else None
    talk = replace(before.conversation, policy=policy, renderer=renderer, window=window, system=system)
    return Speaker(after.model, talk, after.note)


@dataclass
class Wrapped:
    """Text in pieces onto a terminal, broken between words: a word is written once it is whole, or fills a line.

    Attributes:
        out: the terminal.
        width: its columns.
        column: where the next character goes.
        word: what is not written yet.
    """

    out: TextIO
    width: int
    column: int = 0
    word: str = ""

    def add(self, piece: str) -> None:
        """Write the words that this piece completes."""
        for character in piece:
            if character not in " \n":
                self.word += character
                if len(self.word) >= self.width:
                    self.rest()
                continue
            self.rest()
            if character == "\n" or self.column < self.width - 1:
                self.out.write(character)
                self.column = 0 if character == "\n" else self.column + 1
        self.out.flush()

    def rest(self) -> None:
        """Write the word that waits, on a line of its own where it does not fit any more."""
        length = cell_len(self.word)
        if self.column and self.column + length > self.width:
            self.out.write("\n")
            self.column = 0
        self.out.write(self.word)
        self.column, self.word = self.column + length, ""


def circles(text: str) -> bool:
    """Whether an answer of some length says the same again and again: most runs of three words are there already."""
    words = text.split()
    runs = [tuple(words[at : at + 3]) for at in range(len(words) - 2)]
    return len(runs) >= ROUND and len(set(runs)) < len(runs) / 2


@dataclass
class Talk:
    """Questions to one model, or the same to two of them.

    Attributes:
        speakers: who answers, one after the other.
        lines: where questions come from.
        answers: where answers go.
        notices: where everything else goes.
    """

    speakers: list[Speaker]
    lines: Lines
    answers: TextIO
    notices: TextIO

    def notice(self, text: str) -> None:
        """A line for the person, not part of an answer."""
        self.answers.flush()
        self.notices.write(at_words(visible(text), self.notices) + "\n")
        self.notices.flush()

    def remark(self, speaker: Speaker, text: str) -> None:
        """A line on one of the models."""
        self.notice(f"({text})" if len(self.speakers) == 1 else f"({speaker.name}: {text})")

    def ask(self, question: str) -> None:
        """Put a question to everybody; a model whose window it exceeds is left out.

        Raises:
            KeyboardInterrupt: an answer was stopped and nobody is there to go on.
        """
        for speaker in self.speakers:
            try:
                dropped = speaker.conversation.ask(question)
            except UserError as error:
                self.remark(speaker, str(error))
                continue
            if dropped:
                oldest = f"the oldest {dropped} exchange{'s' * (dropped > 1)}"
                self.remark(speaker, f"{oldest} no longer fit the window and are left out")
            self.answer(speaker)

    def answer(self, speaker: Speaker) -> None:
        """A model's answer to its last question, as it is written; Ctrl-C stops it.

        Raises:
            KeyboardInterrupt: it was stopped and nobody is there to go on.
        """
        found, person = speaker.conversation, self.lines.person
        margin = self._name(speaker)
        reading = self._reading(found.read) if person and found.read > LONG else contextlib.ExitStack()
        width = shutil.get_terminal_size().columns if self.answers.isatty() else sys.maxsize
        page, first = Wrapped(self.answers, width), None
        with self.lines.hearing() as stopped, reading:
            for piece in found.answer(stopped):
                reading.close()
                first = first or time.perf_counter()
                page.add(visible(piece).replace("\n", "\n" + margin))
            seconds = time.perf_counter() - (first or 0.0)
            page.rest()
            self.answers.write("\n")
            self.answers.flush()
            is_over = not stopped()
        if not is_over:
            self.notice("(stopped)")
            if not person:
                raise KeyboardInterrupt
            return
        if person and found.written > 1:
            self.notice(f"({found.written:,} tokens, {(found.written - 1) / seconds:.0f} a second)")
        if found.cut:
            self.notice("(cut: the answer reached its longest length; see --max-tokens)")
        if person and found.sampling.repetition == 1 and circles(found.turns[-1].content):
            self.notice("(it goes round in circles: `/set repetition 1.2` makes that less likely)")

    def _reading(self, tokens: int) -> contextlib.ExitStack:
        """What is shown while a long context is read: that it goes on, on a terminal; closed when it is read."""
        said, shown = f"reading {tokens:,} tokens", contextlib.ExitStack()
        if self.notices.isatty():
            bar = StepBar(None)
            bar.show(said, 0, None, time.monotonic())
            shown.callback(bar.clear)
        else:
            self.notice(f"({said})")
        return shown

    def _name(self, speaker: Speaker) -> str:
        """Say whose answer comes, where there are two; what each line of it begins with."""
        if len(self.speakers) == 1:
            return ""
        name = visible(speaker.name)
        if self.answers.isatty():
            self.answers.write(f"--- {name} ---\n")
            return ""
        self.answers.write(f"{name}\t")
        return f"{name}\t"

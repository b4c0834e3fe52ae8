"""A conversation in the terminal: the one renderer and the one sampler, streamed; the model's text is inert.

With a chat template (or the style "dialogue") the whole dialogue is the context; without one each line is a question of
its own. Answers go to stdout, everything else to stderr, so that a piped conversation gives the answers alone.
"""

import contextlib
import io
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

from rich.cells import cell_len

from smolt.cli.progress import moved_on
from smolt.config import ChatSampling, Model
from smolt.errors import UserError
from smolt.models.conversation import Conversation
from smolt.models.ground import open_ground
from smolt.models.saving import load_policy
from smolt.report.inert import visible

PROMPT = "> "
LONG = 1000
"""Tokens of a context that take seconds to read."""

HELP = """\
/help        this text
/reset       forget the conversation
/regenerate  answer the last question once more, differently where the temperature is not 0
/quit        leave (so does Ctrl-D)
Ctrl-C stops an answer."""


def chat(model: Model, sampling: ChatSampling, system: str | None = None) -> None:
    """Talk to a model until /quit or the end of the input.

    On a terminal with prompts; with a piped stdin one question a line, the answers on stdout and no prompts.

    Args:
        model: a hub name, model directory, adapter or run, and where and how precisely to compute.
        sampling: how answers are drawn.
        system: the system message; needs a chat template.

    Raises:
        UserError: the model cannot be read, or takes no system message.
    """
    ground = open_ground(model)
    conversation = Conversation(
        policy=load_policy(model.path, ground.precision),
        renderer=ground.renderer,
        window=ground.window,
        sampling=sampling,
        system=system,
    )
    moved_on()
    device, dtype = ground.precision.device.type, str(ground.precision.dtype).removeprefix("torch.")
    with contextlib.suppress(BrokenPipeError):  # the reader of the answers left
        Terminal(conversation, sys.stdin, sys.stdout, sys.stderr).run(f"{model.path} on {device} in {dtype}")


class StopSwitch:
    """While entered, Ctrl-C only sets `on`. Outside the main thread, which alone gets signals, it does nothing."""

    def __init__(self) -> None:
        self.on = False

    def __enter__(self) -> "StopSwitch":
        self._listens = threading.current_thread() is threading.main_thread()
        if self._listens:
            self._before = signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        if self._listens:
            signal.signal(signal.SIGINT, self._before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.on = True


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


@contextlib.contextmanager
def unechoed(source: TextIO) -> Iterator[None]:
    """What is typed meanwhile is kept for the next prompt and not shown between the words of an answer."""
    try:
        import termios

        before = termios.tcgetattr(source)
    except (ImportError, OSError, ValueError, termios.error):  # another system, or no terminal
        yield
        return
    quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(source, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(source, termios.TCSANOW, before)


@dataclass
class Terminal:
    """Lines in, answers out.

    Attributes:
        conversation: what is said.
        source: where lines come from; prompts are shown only if it is a terminal.
        answers: where answers go.
        notices: where everything else goes.
    """

    conversation: Conversation
    source: TextIO
    answers: TextIO
    notices: TextIO

    def run(self, title: str) -> None:
        """Read and answer until the end."""
        for stream in (self.source, self.answers, self.notices):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace" if stream is self.source else "backslashreplace")
        interactive = self.source.isatty()
        if interactive:
            self.notice(f"{title}. /help lists the commands, Ctrl-D leaves.")
        if not self.conversation.remembers:
            self.notice("This model has no chat template: each line is a question of its own.")
        for line in self._typed() if interactive else self.source:
            text = line.strip()
            if text == "/quit":
                return
            try:
                self._heed(text)
            except KeyboardInterrupt:
                self.notice("(stopped)")
                if not interactive:
                    raise

    def notice(self, text: str) -> None:
        """A line for the person, not part of an answer."""
        self.answers.flush()
        self.notices.write(visible(text) + "\n")
        self.notices.flush()

    def _typed(self) -> Iterator[str]:
        """Lines of a person; Ctrl-C forgets the line, Ctrl-D ends."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives input() its line editing; imported here, as it touches the terminal
        while True:
            try:
                yield input(PROMPT) if self.answers.isatty() else self._asked()
            except KeyboardInterrupt:
                self.notice("\n(Ctrl-D or /quit leaves)")
            except EOFError:
                self.notice("")
                return

    def _asked(self) -> str:
        """Like input(), with the prompt on stderr: stdout holds answers only."""
        self.notices.write(PROMPT)
        self.notices.flush()
        line = self.source.readline()
        if not line:
            raise EOFError
        return line

    def _heed(self, text: str) -> None:
        """Do what a line says: a command is a single word that begins with a slash."""
        match text:
            case "":
                return
            case "/help":
                for line in HELP.splitlines():
                    self.notice(line)
            case "/reset":
                self.conversation.reset()
                self.notice("(the conversation is forgotten)")
            case "/regenerate":
                if self.conversation.again():
                    self._answer()
                else:
                    self.notice("(there is no answer yet)")
            case _ if re.match(r"/[a-z]+(\s|$)", text):
                self.notice(f"({text.split()[0]} is no command; /help lists them)")
            case _:
                self._ask(text)

    def _ask(self, question: str) -> None:
        try:
            dropped = self.conversation.ask(question)
        except UserError as error:
            self.notice(f"({error})")
            return
        if dropped:
            self.notice(
                f"(the oldest {dropped} exchange{'s' * (dropped > 1)} no longer fit the window and are left out)"
            )
        self._answer()

    def _answer(self) -> None:
        talk, person = self.conversation, self.source.isatty()
        if person and talk.read > LONG:
            self.notice(f"(reading {talk.read:,} tokens)")
        width = shutil.get_terminal_size().columns if self.answers.isatty() else sys.maxsize
        page, first = Wrapped(self.answers, width), None
        with StopSwitch() as switch, unechoed(self.source):
            for piece in talk.answer(lambda: switch.on):
                first = first or time.perf_counter()
                page.add(visible(piece))
            seconds = time.perf_counter() - (first or 0.0)
            page.rest()
            self.answers.write("\n")
            self.answers.flush()
        if switch.on:
            raise KeyboardInterrupt
        if person and talk.written > 1:
            self.notice(f"({talk.written:,} tokens, {(talk.written - 1) / seconds:.0f} a second)")
        if self.conversation.cut:
            self.notice("(cut: the answer reached its longest length; see --max-tokens)")

"""A conversation in the terminal: the one renderer and the one sampler, streamed; the model's text is inert.

With a chat template (or the style "dialogue") the whole dialogue is the context; without one each line is a question of
its own. Answers go to stdout, everything else to stderr, so that a piped conversation gives the answers alone.
"""

import contextlib
import io
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TextIO

from smolt.config import ChatSampling, Model
from smolt.errors import UserError
from smolt.models import Policy
from smolt.preparation import open_ground
from smolt.records import Turn
from smolt.rendering import Renderer
from smolt.sampling import Drawing, stream_tokens
from smolt.saving import load_policy

PROMPT = "> "
SHARE = 4  # one part in so many of the window is kept free for the answer, where max_tokens wants that much
UNFINISHED = "\ufffd"
BIDIRECTIONAL = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
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
    device, dtype = ground.precision.device.type, str(ground.precision.dtype).removeprefix("torch.")
    with contextlib.suppress(BrokenPipeError):  # the reader of the answers left
        Terminal(conversation, sys.stdin, sys.stdout, sys.stderr).run(f"{model.path} on {device} in {dtype}")


# --- the conversation -------------------------------------------------------------------------------------------------


@dataclass
class Conversation:
    """A policy and what was said so far.

    Attributes:
        policy, renderer: who answers.
        window: most tokens of a context and its answer.
        sampling: how answers are drawn.
        system: the system message, or None.
        turns: questions and answers in turn, the system message not among them.
        drawn: answers drawn so far; with the seed what the next one's randomness is a function of.
        cut: whether the last answer reached its longest length.
    """

    policy: Policy
    renderer: Renderer
    window: int
    sampling: ChatSampling
    system: str | None = None
    turns: list[Turn] = field(default_factory=list)
    drawn: int = 0
    cut: bool = False

    def __post_init__(self) -> None:
        if self.system is None:
            return
        if not self.remembers:
            raise UserError("--system: this model has no chat template, so there is no place for a system message")
        self.renderer.context((Turn("system", self.system), Turn("user", "Hi.")))

    @property
    def remembers(self) -> bool:
        """Whether the dialogue is the context; otherwise each question stands alone."""
        return self.renderer.style in ("chat", "dialogue")

    def ask(self, question: str) -> int:
        """Add a question.

        Returns:
            How many of the oldest exchanges were dropped to make room for it and an answer.

        Raises:
            UserError: the question alone leaves no room for an answer; the conversation is as it was.
        """
        kept = [*(self.turns if self.remembers else []), Turn("user", question)]
        dropped = 0
        while len(kept) > 1 and self._context_length(kept) + self._reserve() > self.window:
            kept, dropped = kept[2:], dropped + 1
        length = self._context_length(kept)
        if length >= self.window:
            raise UserError(f"the question has {length} tokens with its frame; the model's window is {self.window}")
        self.turns = kept
        return dropped

    def answer(self, stopped: Callable[[], bool]) -> Iterator[str]:
        """Pieces of the answer to the last question as they are drawn; the whole is then a turn.

        Args:
            stopped: asked after every token; what was said until then stays, a question without any answer goes.
        """
        context = self.renderer.context(self._framed(self.turns))
        limit = min(self.sampling.max_tokens, self.window - len(context))
        sampling = self.sampling
        drawing = Drawing(
            limit, sampling.temperature, 1, self.renderer.stop_ids, top_p=sampling.top_p, top_k=sampling.top_k
        )
        text = Incremental(self.renderer)
        counter = (sampling.seed, self.drawn)
        self.drawn += 1
        interrupted = False
        for token in stream_tokens(self.policy, context, drawing, counter):
            yield text.add(token)
            interrupted = stopped()
            if interrupted:
                break
        self.cut = len(text.tokens) == limit and not interrupted
        yield text.rest()
        if interrupted and not text.shown.strip():
            self.turns.pop()
        else:
            self.turns.append(Turn("assistant", text.shown))

    def again(self) -> bool:
        """Take the last answer back; False where there is none."""
        if len(self.turns) < 2:
            return False
        self.turns.pop()
        return True

    def reset(self) -> None:
        """Forget all but the system message."""
        self.turns = []

    def _framed(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
        return (*([Turn("system", self.system)] if self.system is not None else []), *turns)

    def _context_length(self, turns: Sequence[Turn]) -> int:
        return len(self.renderer.context(self._framed(turns)))

    def _reserve(self) -> int:
        return max(1, min(self.sampling.max_tokens, self.window // SHARE))


@dataclass
class Incremental:
    """Tokens to text as they come: a character is given out once all of its bytes are there."""

    renderer: Renderer
    tokens: list[int] = field(default_factory=list)
    shown: str = ""

    def add(self, token: int) -> str:
        """The text that this token completes."""
        self.tokens.append(token)
        return self._show(self.renderer.decode(self.tokens).rstrip(UNFINISHED))

    def rest(self) -> str:
        """The text that waits for bytes that will not come."""
        return self._show(self.renderer.decode(self.tokens))

    def _show(self, text: str) -> str:
        new = text[len(self.shown) :]
        self.shown += new
        return new


def inert(text: str) -> str:
    r"""Text that does nothing to a terminal: control characters other than line break and tab become visible.

    ESC is shown as ␛, C1 controls, direction overrides and lone surrogates as `\x9b` or `\u202e`.
    """
    return "".join(character if _is_plain(character) else _visible(character) for character in text)


def _is_plain(character: str) -> bool:
    if character in "\n\t" or " " <= character <= "~":
        return True
    hidden = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    return not hidden and unicodedata.bidirectional(character) not in BIDIRECTIONAL


def _visible(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return chr(0x2421) if code == 0x7F else f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


# --- the terminal -----------------------------------------------------------------------------------------------------


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
        self.notices.write(inert(text) + "\n")
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
            case _ if text.startswith("/") and text[1:].isalpha():
                self.notice(f"({text} is no command; /help lists them)")
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
        with StopSwitch() as switch:
            for piece in self.conversation.answer(lambda: switch.on):
                self.answers.write(inert(piece))
                self.answers.flush()
            self.answers.write("\n")
            self.answers.flush()
        if switch.on:
            raise KeyboardInterrupt
        if self.conversation.cut:
            self.notice("(cut: the answer reached its longest length; see --max-tokens)")

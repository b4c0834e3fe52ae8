"""A policy and what was said so far: what it is asked, what still fits its window, its answer piece by piece."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from smolt.config import ChatSampling
from smolt.data import Turn
from smolt.errors import UserError
from smolt.models.rendering import Renderer
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing, stream_tokens

SHARE = 4  # one part in so many of the window is kept free for the answer, where max_tokens wants that much
UNFINISHED = "\ufffd"
AGAIN = 16  # tokens that are decoded again before a new one: what a tokenizer looks back at


@dataclass
class Conversation:
    """A policy and what was said so far.

    Attributes:
        policy, renderer: who answers.
        window: most tokens of a context and its answer.
        sampling: how answers are drawn.
        system: the system message, or None.
        turns: questions and answers in turn that are still in the context, the system message not among them.
        left: turns before these.
        drawn: answers drawn so far; with the seed what the next one's randomness is a function of.
        cut: whether the last answer reached its longest length.
        read, written: tokens of the last question's context and of the last answer.
    """

    policy: Policy
    renderer: Renderer
    window: int
    sampling: ChatSampling
    system: str | None = None
    turns: list[Turn] = field(default_factory=list)
    left: list[Turn] = field(default_factory=list)
    drawn: int = 0
    cut: bool = False
    read: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        if self.system is not None:
            self.instruct(self.system)

    @property
    def remembers(self) -> bool:
        """Whether the dialogue is the context; otherwise each question stands alone."""
        return remembers(self.renderer)

    def instruct(self, system: str) -> None:
        """Take a system message, in the place of the one there was.

        Raises:
            UserError: this model takes none; the conversation is as it was.
        """
        framed(self.renderer, (Turn("user", "Hi."),), system)
        self.system = system

    def ask(self, question: str) -> int:
        """Add a question.

        Returns:
            How many of the oldest exchanges were dropped to make room for it and an answer.

        Raises:
            UserError: the question alone leaves no room for an answer; the conversation is as it was.
        """
        return self._fit([*self.turns, Turn("user", question)])

    def _fit(self, turns: list[Turn]) -> int:
        fits = fitting(self.renderer, self.window, turns, self.system, self.sampling.max_tokens)
        self.left += turns[: len(turns) - len(fits.turns)]
        self.turns, self.read = list(fits.turns), len(fits.context)
        return fits.dropped

    def answer(self, stopped: Callable[[], bool]) -> Iterator[str]:
        """Pieces of the answer to the last question as they are drawn; the whole is then a turn.

        Args:
            stopped: asked after every token; what was said until then stays, a question without any answer goes.
        """
        context = framed(self.renderer, self.turns, self.system)
        limit = min(self.sampling.max_tokens, self.window - len(context))
        sampling = self.sampling
        drawing = Drawing(
            limit,
            sampling.temperature,
            1,
            self.renderer.stop_ids,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            repetition=sampling.repetition,
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
        self.written = len(text.tokens)
        self.cut = self.written == limit and not interrupted
        yield text.rest()
        if interrupted and not text.shown.strip():
            self.turns.pop()
        else:
            self.turns.append(Turn("assistant", text.shown))

    def again(self) -> bool:
        """Take the last answer back; False where there is none.

        Raises:
            UserError: the question leaves no room for an answer (of another model, whose window is smaller).
        """
        if len(self.turns) < 2:
            return False
        self._fit(self.turns[:-1])
        return True

    def reset(self) -> None:
        """Forget all but the system message."""
        self.turns, self.left = [], []

    def dialogues(self) -> list[tuple[Turn, ...]]:
        """All that was said: one dialogue after the system message, or one an exchange where each stands alone."""
        said = [*self.left, *self.turns]
        if self.remembers:
            return [(*_opening(self.system), *said)] if said else []
        return [tuple(said[start : start + 2]) for start in range(0, len(said), 2)]


@dataclass(frozen=True)
class Fitting:
    """What of a conversation a model is asked.

    Attributes:
        context: token ids.
        turns: those of the conversation that are kept, the question last.
        dropped: how many of the oldest exchanges are not.
    """

    context: list[int]
    turns: tuple[Turn, ...]
    dropped: int


def remembers(renderer: Renderer) -> bool:
    """Whether the dialogue is the context; otherwise each question stands alone."""
    return renderer.template is not None or renderer.style == "dialogue"


def framed(renderer: Renderer, turns: Sequence[Turn], system: str | None) -> list[int]:
    """The context of turns after a system message, or after none.

    Raises:
        UserError: there is one, and the model takes none.
    """
    if system is not None and not remembers(renderer):
        raise UserError("this model has no chat template, so there is no place for a system message")
    return renderer.context((*_opening(system), *turns))


def _opening(system: str | None) -> tuple[Turn, ...]:
    """What stands before the first question."""
    return () if system is None else (Turn("system", system),)


def fitting(renderer: Renderer, window: int, turns: Sequence[Turn], system: str | None, max_tokens: int) -> Fitting:
    """The context of a conversation's last question, without the oldest exchanges where room is needed for an answer.

    Args:
        renderer: of the model.
        window: most tokens of a context and its answer.
        turns: questions and answers in turn, the question last, the system message not among them.
        system: the system message, or None.
        max_tokens: longest answer that is wanted.

    Raises:
        UserError: the question alone leaves no room for an answer, or the model takes no system message.
    """
    kept = list(turns if remembers(renderer) else turns[-1:])
    reserve, dropped = max(1, min(max_tokens, window // SHARE)), 0
    context = framed(renderer, kept, system)
    while len(kept) > 1 and len(context) + reserve > window:
        kept, dropped = kept[2:], dropped + 1
        context = framed(renderer, kept, system)
    if len(context) >= window:
        raise UserError(f"the question has {len(context)} tokens with its frame; the model's window is {window}")
    return Fitting(context, tuple(kept), dropped)


class Decoder(Protocol):
    """What makes text of tokens: a renderer, of an answer's."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text."""


@dataclass(frozen=True)
class Verbatim:
    """Tokens to text word for word, without control tokens: of a text that goes on, rather than of an answer."""

    tokenizer: PreTrainedTokenizerBase

    def decode(self, ids: Sequence[int]) -> str:
        """The text."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


def continuation(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> "Incremental":
    """The text that follows a prompt of these tokens, its leading white space included."""
    decoder, tail = Verbatim(tokenizer), list(prompt[-AGAIN:])
    return Incremental(decoder, tail, "", 0, decoder.decode(tail))


@dataclass
class Incremental:
    """Tokens to text as they come: a character is given out once all of its bytes are there.

    Only the last tokens are decoded again, so that a long answer takes as long a token as a short one.

    Attributes:
        decoder: what makes text of tokens.
        tokens: all so far.
        shown: the text that was given out.
    """

    decoder: Decoder
    tokens: list[int] = field(default_factory=list)
    shown: str = ""
    _begin: int = 0  # the first token that is decoded again
    _before: str = ""  # what of their text is shown

    def add(self, token: int) -> str:
        """The text that this token completes."""
        self.tokens.append(token)
        text = self.decoder.decode(self.tokens[self._begin :])
        new = self._show(text.rstrip(UNFINISHED))
        if len(self.tokens) - self._begin >= 2 * AGAIN and not text.endswith(UNFINISHED):
            self._begin = len(self.tokens) - AGAIN
            self._before = self.decoder.decode(self.tokens[self._begin :])
        return new

    def rest(self) -> str:
        """The text that waits for bytes that will not come."""
        return self._show(self.decoder.decode(self.tokens[self._begin :]))

    def _show(self, text: str) -> str:
        new = text[len(self._before) :]
        self._before += new
        self.shown += new
        return new

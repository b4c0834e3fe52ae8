"""What one asks of a model, and what comes back, piece by piece, across threads."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from smolt.errors import UserError


class QueueFull(RuntimeError):
    """As many answers as are allowed are being written or waited for."""


@dataclass(frozen=True)
class Request:
    """One answer that is wanted.

    It is the answer number `copy` of `sample(policy, [context], n, drawing, (seed, 0))`, whatever is decoded beside it;
    copy 0 is also the first answer of `smolt chat --seed`.

    Attributes:
        model: a name the engine knows.
        context: token ids of the prompt, at least one, by `engine.renderer(model)`.
        max_tokens: longest answer, its stop token included; at least 1. The window may end it earlier.
        temperature: 0 = greedy, else from 0.001 to 1,000.
        top_p: keep the likeliest tokens that hold this much probability, above 0 to 1.
        top_k: keep the k likeliest tokens; 0 = all.
        repetition: penalty of tokens the answer holds already, at least 1.
        seed: with `copy` what the answer is a function of, of 64 bits with a sign.
        copy: which of n answers.
        stop: texts that end the answer and are no part of it.
        logprobs: whether pieces say how likely their token was, at the temperature (at 1 when greedy), before top_p
            and top_k.
        top_logprobs: how many of the likeliest tokens each piece lists; more than 0 only with `logprobs`.
        continues: whether the text goes on where the prompt ends, word for word, rather than answering it.
        stop_token: whether a stop token that ends the answer is told as a last piece without text.
    """

    model: str
    context: Sequence[int]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition: float = 1.0
    seed: int = 0
    copy: int = 0
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    continues: bool = False
    stop_token: bool = False

    def check(self, window: int, tokens: int) -> None:
        """Refuse what cannot be answered.

        Args:
            window: of the model.
            tokens: ids that the model knows.

        Raises:
            UserError: names the field.
        """
        length = len(self.context)
        if not length:
            raise UserError("the prompt has no tokens")
        if length >= window:
            raise UserError(f"the prompt has {length} tokens; the model's window is {window}, with one for the answer")
        if not all(0 <= token < tokens for token in self.context):
            raise UserError(f"the prompt holds a token id that the model does not know; they go from 0 to {tokens - 1}")
        for name, fits, range_ in (
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("temperature", self.temperature == 0 or 0.001 <= self.temperature <= 1000, "0, or from 0.001 to 1000"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("repetition", 1 <= self.repetition < float("inf"), "at least 1"),
            ("seed", -(2**63) <= self.seed < 2**63, "a whole number of 64 bits"),
            ("copy", 0 <= self.copy < 2**63, "at least 0"),
            ("stop", all(self.stop), "texts that are not empty"),
            ("top_logprobs", self.top_logprobs >= 0 and (self.logprobs or not self.top_logprobs), "0 without logprobs"),
        ):
            if not fits:
                raise UserError(f"{name}: must be {range_}, not {getattr(self, name)!r}")


@dataclass(frozen=True)
class Piece:
    """What one token adds.

    Attributes:
        text: whole characters, and nothing that may yet turn out to begin a stop text; may be empty.
        token_id: the token; None for a last piece, whose text was waited with.
        logprob: its log-probability, where the request wants them.
        likeliest: (token id, log-probability) of the likeliest tokens in its place, likeliest first.
    """

    text: str
    token_id: int | None = None
    logprob: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass
class AnswerStream:
    """One answer as it is written: iterate it, or `listen` and `take`.

    Attributes:
        request: what was asked.
        tokens: drawn so far, the stop token included.
        kept: tokens of the prompt that were read for another answer.
        reason: why it ended: "stop" (a stop token or text), "length" (max_tokens, or the window), "cancelled"; None
            while it goes on, and where it failed.
        error: why it failed.
        cancelled: whether nobody waits for it any more.
    """

    request: Request
    tokens: int = 0
    kept: int = 0
    reason: str | None = None
    error: str | None = None
    cancelled: bool = False
    _pieces: deque[Piece] = field(default_factory=deque)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _listener: Callable[[], None] | None = None
    _told: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self.reason is not None or self.error is not None

    def cancel(self) -> None:
        """Give the answer up; its slot is free before the next decoding step."""
        self.cancelled = True

    def put(self, piece: Piece) -> None:
        """A piece more, from the engine."""
        with self._changed:
            self._pieces.append(piece)
            self._tell()

    def end(self, reason: str | None, error: str | None = None) -> None:
        """The end, from the engine."""
        with self._changed:
            self.reason, self.error = reason, error
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        if self._listener is not None and not self._told:
            self._told = True
            self._listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Have a function called, from any thread, when there is something to `take`; it must return at once."""
        with self._changed:
            self._listener, self._told = listener, False
            if self._pieces or self.ended:
                self._tell()

    def take(self) -> tuple[list[Piece], bool]:
        """The pieces that have come since, without waiting, and whether they are the last ones.

        Raises:
            UserError: the answer failed.
        """
        with self._changed:
            pieces, self._told = list(self._pieces), False
            self._pieces.clear()
            if self.error is not None and not pieces:
                raise UserError(self.error)
            if self.error is not None:
                self._tell()  # the error comes next
            return pieces, self.reason is not None

    def __iter__(self) -> Iterator[Piece]:
        """Pieces until the end; waits for each.

        Raises:
            UserError: the answer failed.
        """
        over = False
        while not over:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self.ended)
            pieces, over = self.take()
            yield from pieces

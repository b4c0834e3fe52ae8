"""What is said to a model, and its answer as it comes; whoever leaves is not answered any more."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from smolt.config import ChatSampling
from smolt.data import Turn
from smolt.errors import UserError
from smolt.models.conversation import fitting
from smolt.serving.engine import Engine
from smolt.serving.stream import AnswerStream, QueueFull, Request

PAUSE = 0.06
"""Seconds between two looks of the page at an answer."""


@dataclass(frozen=True)
class Said:
    """An answer so far.

    Attributes:
        text: what has come.
        tokens: how many.
        reason: why it ended, None while it goes on.
        dropped: oldest exchanges that no longer fit the window.
    """

    text: str
    tokens: int = 0
    reason: str | None = None
    dropped: int = 0


@dataclass
class Speakers:
    """The models of a face, and the answers under way of each of its visitors.

    Attributes:
        find: name -> where the model lies, of the models there are now.
        open_engine: from such names to what decodes for them; those found later have an engine of their own.
    """

    find: Callable[[], Mapping[str, str]]
    open_engine: Callable[[Mapping[str, str]], Engine]
    _engines: dict[str, Engine] = field(default_factory=dict)
    _answered: set[str] = field(default_factory=set)
    _streams: dict[str, list[AnswerStream]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def names(self) -> list[str]:
        """The models there are now."""
        with self._lock:
            new = {name: path for name, path in self.find().items() if name not in self._engines}
            if new:
                self._engines |= dict.fromkeys(new, self.open_engine(new))
            return list(self._engines)

    def loads(self, model: str) -> bool:
        """Whether the model has to be read before it can answer."""
        return model not in self._answered

    def close(self) -> None:
        """End all answers."""
        for engine in set(self._engines.values()):
            engine.close()

    def stop(self, visitor: str | None) -> None:
        """End the visitor's answers; what was said stays."""
        with self._lock:
            for stream in self._streams.pop(visitor or "", []):
                stream.cancel()

    def answer(
        self,
        visitor: str | None,
        model: str,
        turns: Sequence[Turn],
        sampling: ChatSampling,
        system: str = "",
        copy: int = 0,
    ) -> Iterator[Said]:
        """The answer to the last turn, as it grows; the last one has a reason.

        Args:
            visitor: whose `stop` ends it.
            model: a name of this face.
            turns: questions and answers in turn, the question last.
            sampling: how it is drawn.
            system: the system message, "" for none.
            copy: how often the question was answered before.

        Raises:
            UserError: the model is none of this face or cannot be read, the question is too long, takes no system
                message, or too many answers are under way.
        """
        engine = self._engines.get(model)
        if engine is None:
            raise UserError(f"{model!r} is no model of this face")
        renderer, window = engine.renderer(model), engine.window(model)
        fits = fitting(renderer, window, turns, system or None, sampling.max_tokens)
        stream = self._asked(visitor, engine, model, fits.context, sampling, copy)
        text, last = "", 0.0
        try:
            for piece in stream:
                self._answered.add(model)
                text += piece.text
                if time.monotonic() - last >= PAUSE:
                    last = time.monotonic()
                    yield Said(text, stream.tokens, None, fits.dropped)
            yield Said(text, stream.tokens, stream.reason, fits.dropped)
        finally:
            stream.cancel()
            with self._lock:
                left = [one for one in self._streams.get(visitor or "", []) if one is not stream]
                self._streams[visitor or ""] = left
                if not left:
                    del self._streams[visitor or ""]

    def _asked(
        self,
        visitor: str | None,
        engine: Engine,
        model: str,
        context: list[int],
        sampling: ChatSampling,
        copy: int,
    ) -> AnswerStream:
        request = Request(
            model,
            context,
            sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            repetition=sampling.repetition,
            seed=sampling.seed,
            copy=copy,
        )
        try:
            stream = engine.submit(request)
        except QueueFull as full:
            raise UserError(f"too much is asked at once: {full}; try again in a moment") from None
        with self._lock:
            self._streams.setdefault(visitor or "", []).append(stream)
        return stream

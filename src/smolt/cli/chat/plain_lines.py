"""Lines as a pipe or a terminal without an editor gives them, and Ctrl-C while an answer is written."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import FrameType
from typing import ClassVar, Protocol, TextIO

PROMPT = "> "


class Lines(Protocol):
    """Where the lines of a conversation come from."""

    @property
    def person(self) -> bool:
        """Whether somebody types them."""

    @property
    def keys(self) -> str:
        """What keys do, in words."""

    def read(self) -> str:
        """The next one.

        Raises:
            EOFError: there is none.
            KeyboardInterrupt: Ctrl-C.
        """

    def hearing(self) -> AbstractContextManager[Callable[[], bool]]:
        """While entered, Ctrl-C raises nothing: what is yielded says whether there was one."""


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


@dataclass(frozen=True)
class PlainLines:
    """Lines as they come.

    Attributes:
        source: where from.
        prompts: where a person is asked for the next one; None where nobody types.
    """

    source: TextIO
    prompts: TextIO | None = None

    keys: ClassVar[str] = "Ctrl-C stops an answer."

    @property
    def person(self) -> bool:
        """Whether somebody types."""
        return self.prompts is not None

    def read(self) -> str:
        """The next line."""
        if self.prompts is None:
            return self._next()
        try:
            if self.prompts is sys.stdout:
                return input(PROMPT)
            self.prompts.write(PROMPT)
            self.prompts.flush()
            return self._next()
        except (KeyboardInterrupt, EOFError):
            self.prompts.write("\n")
            self.prompts.flush()
            raise

    def _next(self) -> str:
        line = self.source.readline()
        if not line:
            raise EOFError
        return line

    @contextlib.contextmanager
    def hearing(self) -> Iterator[Callable[[], bool]]:
        """While entered, Ctrl-C raises nothing: what is yielded says whether there was one."""
        with StopSwitch() as switch:
            yield lambda: switch.on

"""The first Ctrl-C or SIGTERM asks the run to save and stop; the second one leaves at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)

SAID = b"\nstopping when this update is done; once more to stop at once and lose all since the last checkpoint\n"
SHOW_CURSOR = b"\x1b[?25h"  # a progress line hides it, and a second signal leaves no time to show it again

Handler = Callable[[int, FrameType | None], Any] | int | None


class Interrupts:
    """While entered, the first SIGINT or SIGTERM only sets `exit_code`, which the loop reads between two updates.

    With that the system's own handling is put back, so that a second one ends the process without waiting for Python.
    Outside the main thread, where Python cannot receive signals, it does nothing.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._previous: dict[signal.Signals, Handler] = {}

    @property
    def requested(self) -> bool:
        """Whether the loop is asked to save and stop."""
        return self.exit_code is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """130 for SIGINT, 143 for SIGTERM: 128 + the signal's number, as shells report it."""
        self.exit_code = 128 + number
        with contextlib.suppress(OSError):  # not print: the signal may have come in the midst of one
            os.write(2, SHOW_CURSOR + SAID if os.isatty(2) else SAID)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

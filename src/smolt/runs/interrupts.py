"""The first Ctrl-C or SIGTERM asks the run to save and stop; the second one leaves at once."""

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

from smolt import processes
from smolt.runs import checkpoints
from smolt.runs.inventory import CHECKPOINTS

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SOME_TIME = 1.0  # seconds of an update from which on a person is told how long they take

SHOW_CURSOR = "\x1b[?25h"  # a progress line hides it, and a second signal leaves no time to show it again
DISPLAY = "\n\n"  # lines that progress, which goes on, writes over in place of what is said

Handler = Callable[[int, FrameType | None], Any] | int | None


class Interrupts:
    """While entered, the first SIGINT or SIGTERM only sets `exit_code`, which the loop reads between two updates.

    After that the system's own handling of SIGTERM is put back, so that a second one ends the process without waiting
    for Python; a second Ctrl-C is heard by a thread, whatever the main one is at, which says what is kept and leaves.
    Outside the main thread, where Python cannot receive signals, it does nothing.

    Attributes:
        directory: of the training under way, None where there is none.
        seconds: that its last update took, 0 before the first.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.directory: Path | None = None
        self.seconds = 0.0
        self._previous: dict[signal.Signals, Handler] = {}
        self._wakeup: tuple[int, int] | None = None

    def heard(self) -> int | None:
        """The exit code of a signal that any process got: all of them stop at the same point, where all ask this."""
        return max((code for code in processes.gather(self.exit_code) if code is not None), default=None)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._wakeup is not None:
            before, writing = self._wakeup
            signal.set_wakeup_fd(before)
            os.close(writing)  # the thread reads its end, and ends
            self._wakeup = None
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """130 for SIGINT, 143 for SIGTERM: 128 + the signal's number, as shells report it."""
        self.exit_code = 128 + number
        took = f" (updates take about {self.seconds:.0f} s)" if self.seconds >= SOME_TIME else ""
        once_more = "once more to stop at once and lose all since the last checkpoint"
        _write(f"\nstopping when this update is done{took};\n{once_more}\n", below=DISPLAY)
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._wakeup = signal.set_wakeup_fd(writing), writing
        threading.Thread(target=self._leave, args=(reading,), daemon=True).start()
        signal.signal(signal.SIGINT, _wait_for_the_thread)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _leave(self, reading: int) -> None:
        """Wait for another Ctrl-C, and end the process; return once there can be none."""
        while number := os.read(reading, 1):
            if number[0] == signal.SIGINT:
                _write(f"\nleft at once; {self._kept()}: {_command()}\n")
                os._exit(128 + signal.SIGINT)
        os.close(reading)

    def _kept(self) -> str:
        if self.directory is None:
            return "what has ended is kept; the same command continues"
        step = checkpoints.last_step(self.directory / CHECKPOINTS)
        if not step:
            return "there is no checkpoint yet; the same command begins anew"
        return f"all up to update {step} is kept in {self.directory}; the same command continues"


def _wait_for_the_thread(number: int, frame: FrameType | None) -> None:
    """The signal is in the pipe already."""


def _write(text: str, below: str = "") -> None:
    """To standard error, and not by print: a signal may have come in the midst of one."""
    if not processes.first():
        return  # of several one speaks
    with contextlib.suppress(OSError):
        shown = f"{SHOW_CURSOR}{text}{below}" if os.isatty(2) else text
        os.write(2, shown.encode(errors="backslashreplace"))


def _command() -> str:
    """What was typed, but for what would set aside what is there."""
    program, *words = sys.argv
    name = Path(program).name
    return shlex.join(["smolt" if name == "__main__.py" else name, *(word for word in words if word != "--fresh")])

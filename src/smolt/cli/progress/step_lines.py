"""The step a command is at: named once it takes long, with how far it has come where it is counted."""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn

from smolt import processes
from smolt.cli.outcomes import at_words
from smolt.cli.progress.time_left import CountPace, columns
from smolt.report.inert import visible
from smolt.runs.chunks import COUNTED, PART, SAID

SOON, LATER = 2.0, 5.0
"""Seconds after which the step under way is named, and at least between two that are."""

PIPED = 30.0
"""Seconds between two lines of figures where there is no terminal."""


def standard_error() -> Console:
    """The console of all that is shown; of several processes only the first one shows anything."""
    return Console(stderr=True, quiet=not processes.first())


class Bar(Protocol):
    """Where a step is shown on a terminal."""

    def show(self, text: str, done: float, total: int | None, began: float) -> None:
        """So much of the step is done; without a total it is only named. It began when the clock said so."""

    def part(self, first: int, stop: int, total: int) -> None:
        """What is counted from now on is records `first` to `stop` of `total`."""

    def clear(self) -> None:
        """The step has ended."""


class StepBar:
    """A line for the step under way, with how far it has come and the time left; it goes when the step ends.

    Args:
        progress: where it stands; None for lines of its own.
        field: of a task, which holds the step's text.
    """

    def __init__(self, progress: Progress | None, field: str = "description") -> None:
        self._own = progress is None
        self._progress = progress or Progress(
            *columns(), TextColumn("{task.description}", markup=False), console=standard_error(), transient=True
        )
        self._field = field
        self._task: TaskID | None = None
        self._pace = CountPace(0)

    def show(self, text: str, done: float, total: int | None, began: float) -> None:
        """So much of the step is done."""
        if self._task is None:
            self._pace = CountPace(began)
            if self._own:
                self._progress.start()
            self._task = self._progress.add_task("", total=total, figures="", pace=self._pace, uncounted=total is None)
        self._pace.count(done, time.monotonic())
        shown: Any = {self._field: visible(text)}
        self._progress.update(self._task, completed=done, total=total, uncounted=total is None, **shown)

    def part(self, first: int, stop: int, total: int) -> None:
        """A step's own count says enough."""

    def clear(self) -> None:
        """The step has ended."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            if self._own:
                self._progress.stop()
        self._task = None


class Steps(logging.Handler):
    """Names what a command has been at for a while, and how far that has come where it is counted.

    The package logs each step of a command; most take no time.

    Args:
        say: shows a line.
        bar: shows the step; None says a line now and then.
        lines: whether a step that is not counted has a line that stays, though there is a bar.
    """

    def __init__(self, say: Callable[[str], object], bar: Bar | None = None, lines: bool = True) -> None:
        super().__init__(logging.DEBUG)
        self.bar, self.lines = bar, lines
        self._say = say
        self._text = ""
        self._began = 0.0
        self._come: tuple[Any, Any] = 0, None  # how far the step has come, of how much
        self._waiting: threading.Timer | None = None
        self._named = -LATER
        self._turn = threading.RLock()  # of the command, and of the timer that speaks meanwhile

    def emit(self, record: logging.LogRecord) -> None:
        """A step begins or has come so far; a warning is said at once, and so is what only wants to be known."""
        if record.levelno >= logging.WARNING:
            self._say(f"warning: {visible(record.getMessage())}")
            return
        if record.levelno >= SAID:
            self._say(visible(record.getMessage()))
            return
        with self._turn:
            if record.levelno >= logging.INFO:
                self._ended()
                self._text, self._began, self._come = record.getMessage(), time.monotonic(), (0, None)
                self._name_after(max(SOON, self._named + LATER - time.monotonic()))
            elif record.name == COUNTED and isinstance(record.args, tuple):
                self._count(*record.args)
            elif record.name == PART and isinstance(record.args, tuple):
                self._part(*record.args)

    def over(self, then: str = "") -> None:
        """What was under way has ended, or something else shows that it goes on; what is counted now is `then`."""
        with self._turn:
            self._unname()
            self._text, self._began, self._come = then, time.monotonic(), (0, None)
            self._ended()

    def _ended(self) -> None:
        if self.bar is not None:
            self.bar.clear()

    def _name_after(self, seconds: float) -> None:
        """Unless it is over by then, or something waits to be named already."""
        if self._waiting is None:
            self._waiting = threading.Timer(seconds, self._speak)
            self._waiting.daemon = True
            self._waiting.start()

    def _unname(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = None

    def _count(self, done: Any, total: Any, what: Any = "") -> None:
        """The step under way, or the one so named, has come so far; what ends soon or has no name has no count."""
        now = time.monotonic()
        if what and what != self._text:
            self._ended()
            self._text, self._began = what, now
            # Without a bar a line of it stays, and such a step comes again with each update.
            self._name_after(SOON if self.bar is not None else max(LATER, self._named + PIPED - now))
        self._come = done, total
        if not self._text or now - self._began < SOON:
            return
        if self.bar is not None:
            self._unname()
            self.bar.show(self._text, done, total, self._began)
        elif now - self._named >= PIPED:
            self._named = now
            self._say(f"({visible(self._text)}: {done:,.0f} of {total:,} ...)")

    def _part(self, first: Any, stop: Any, total: Any) -> None:
        if self.bar is not None:
            self.bar.part(first, stop, total)

    def _speak(self) -> None:
        with self._turn:
            if self._waiting is None:  # it was over in the meantime
                return
            self._named, self._waiting = time.monotonic(), None
            if self._text and self.bar is not None and not self.lines:
                self.bar.show(self._text, *self._come, self._began)
            elif self._text:
                self._say(f"({visible(self._text)} ...)")


class SlowLibrary(importlib.abc.MetaPathFinder):
    """Names a library on a terminal from the beginning of its import to its end.

    A shared library is loaded while the interpreter waits: on a cold disk no thread could name it after a while.

    Args:
        module: whose import is looked out for, once.
        name: as a person knows it.
        stream: the terminal.
    """

    def __init__(self, module: str, name: str, stream: TextIO) -> None:
        self._module, self._name, self._stream = module, name, stream
        self._looking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """What the other finders know of the module, with an execution that is named; None for other modules."""
        if fullname != self._module or self._looking:
            return None
        self._looking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._looking = False
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def named(module: ModuleType) -> None:
            self._write(f"(loading {self._name} ...)\r")  # what else is said meanwhile takes its place
            try:
                execute(module)
            finally:
                self._write("\x1b[2K")

        vars(spec.loader)["exec_module"] = named
        return spec

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


@contextlib.contextmanager
def steps_named() -> Iterator[None]:
    """While entered, steps of some length are named on stderr."""
    package = logging.getLogger("smolt")
    bar = StepBar(None) if sys.stderr.isatty() else None
    handler = Steps(lambda text: print(at_words(text, sys.stderr), file=sys.stderr, flush=True), bar)
    package.addHandler(handler)
    package.setLevel(logging.DEBUG)
    package.info("loading libraries")
    slow = SlowLibrary("torch", "PyTorch", sys.stderr)
    if sys.stderr.isatty() and "torch" not in sys.modules:
        sys.meta_path.insert(0, slow)
    try:
        yield
    finally:
        if slow in sys.meta_path:
            sys.meta_path.remove(slow)
        handler.over()
        package.removeHandler(handler)


def moved_on(then: str = "") -> None:
    """The step that was under way is over; until there is another, what is counted is `then`."""
    for handler in _handlers():
        handler.over(then)


def _handlers() -> list[Steps]:
    return [handler for handler in logging.getLogger("smolt").handlers if isinstance(handler, Steps)]


@contextlib.contextmanager
def steps_in(bar: Bar) -> Iterator[None]:
    """While entered, a step has its line among others, on a terminal."""
    handlers = [handler for handler in _handlers() if handler.bar is not None]
    before = [(handler.bar, handler.lines) for handler in handlers]
    moved_on()
    for handler in handlers:
        handler.bar, handler.lines = bar, False
    try:
        yield
    finally:
        moved_on()
        for handler, (own, lines) in zip(handlers, before, strict=True):
            handler.bar, handler.lines = own, lines

"""What a command shows while it runs: one line on a terminal, now and then a line elsewhere, never long nothing."""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from smolt import processes
from smolt.cli.outcomes import at_words
from smolt.report.filling import filled
from smolt.report.inert import visible
from smolt.report.terminal import WholeItems
from smolt.runs.chunks import COUNTED, SAID

FIGURES = (
    ("reward", "reward", "{:+.3f}"),
    ("loss", "loss", "{:.4f}"),
    ("loss", "reward_loss", "{:.4f}"),
    ("accuracy", "accuracy", "{:.0%}"),
    ("margin", "margin", "{:+.4f}"),
    ("KL", "kl", "{:.3f}"),
    ("entropy", "entropy", "{:.2f}"),
    ("stops", "stop_rate", "{:.0%}"),
    ("length", "length", "{:.0f}"),
    ("tokens/s", "tokens_per_second", "{:.0f}"),
)
"""What is shown of an update: its word, its name in metrics.jsonl, its format."""

SHOWN_SHARE = 0.05
PACED_OVER = 3600.0
"""Seconds over which the pace is taken. With rich's 30 an update that takes longer would never have a time left."""

SOON, LATER = 2.0, 5.0
"""Seconds after which the step under way is named, and at least between two that are."""

PIPED = 30.0
"""Seconds between two lines of figures where there is no terminal."""


def standard_error() -> Console:
    """The console of all that is shown; of several processes only the first one shows anything."""
    return Console(stderr=True, quiet=not processes.first())


class StepBar:
    """A line for the step under way, with how far it has come and the time left; it goes when the step ends.

    Args:
        progress: where it stands; None for lines of its own.
        field: of a task, which holds the step's text.
    """

    def __init__(self, progress: Progress | None, field: str = "description") -> None:
        columns = MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(compact=True), BarColumn(bar_width=10)
        self._own = progress is None
        self._progress = progress or Progress(
            *columns,
            TextColumn("{task.description}", markup=False),
            console=standard_error(),
            transient=True,
            speed_estimate_period=PACED_OVER,
        )
        self._field = field
        self._task: TaskID | None = None

    def show(self, text: str, done: int, total: int) -> None:
        """So much of the step is done."""
        if self._task is None:
            if self._own:
                self._progress.start()
            self._task = self._progress.add_task("", total=total, figures="")
            self._progress.advance(self._task, 0)
        shown: Any = {self._field: visible(text)}
        self._progress.update(self._task, completed=done, total=total, **shown)

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
        bar: shows a step that is counted; None says a line now and then.
    """

    def __init__(self, say: Callable[[str], object], bar: StepBar | None = None) -> None:
        super().__init__(logging.DEBUG)
        self.bar = bar
        self._say = say
        self._text = ""
        self._began = 0.0
        self._waiting: threading.Timer | None = None
        self._named = -LATER

    def emit(self, record: logging.LogRecord) -> None:
        """A step begins or has come so far; a warning is said at once, and so is what only wants to be known."""
        if record.levelno < logging.INFO:
            if record.name == COUNTED and isinstance(record.args, tuple):
                self._count(*record.args)
            return
        if record.levelno >= logging.WARNING:
            self._say(f"warning: {visible(record.getMessage())}")
            return
        if record.levelno >= SAID:
            self._say(visible(record.getMessage()))
            return
        self._ended()
        self._text, self._began = record.getMessage(), time.monotonic()
        self._name_after(max(SOON, self._named + LATER - time.monotonic()))

    def over(self, then: str = "") -> None:
        """What was under way has ended, or something else shows that it goes on; what is counted now is `then`."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting, self._text, self._began = None, then, time.monotonic()
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

    def _count(self, done: Any, total: Any, what: Any = "") -> None:
        """The step under way, or the one so named, has come so far; what ends soon or has no name has no count."""
        now = time.monotonic()
        if what and what != self._text:
            self._ended()
            self._text, self._began = what, now
            if self.bar is None:  # a line of it stays, and such a step comes again with each update
                self._name_after(max(LATER, self._named + PIPED - now))
        if not self._text or now - self._began < SOON:
            return
        if self.bar is not None:
            self.bar.show(self._text, done, total)
        elif now - self._named >= PIPED:
            self._named = now
            self._say(f"({visible(self._text)}: {done:,} of {total:,} ...)")

    def _speak(self) -> None:
        self._named, self._waiting = time.monotonic(), None
        if self._text:
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
def steps_in(bar: StepBar) -> Iterator[None]:
    """While entered, a counted step has its line among others, on a terminal."""
    handlers = [handler for handler in _handlers() if handler.bar is not None]
    before = [handler.bar for handler in handlers]
    moved_on()
    for handler in handlers:
        handler.bar = bar
    try:
        yield
    finally:
        moved_on()
        for handler, own in zip(handlers, before, strict=True):
            handler.bar = own


class Running(Protocol):
    """What the display asks of a training."""

    @property
    def name(self) -> str:
        """Its name: in a study the section's."""

    @property
    def out(self) -> Path:
        """Its run directory."""

    @property
    def total(self) -> int | None:
        """Updates in all, None while only the clock knows."""

    @property
    def shares(self) -> Mapping[str, float]:
        """Share of the time so far by what it went into."""

    @property
    def remarks(self) -> Sequence[str]:
        """What a person should know before the first update."""


def figures(metrics: Mapping[str, Any]) -> str:
    """The headline metrics of one update in a line: `reward +0.310  KL 0.020  stops 98%`."""
    known = [
        (label, metrics[name], form) for label, name, form in FIGURES if isinstance(metrics.get(name), int | float)
    ]
    idle = ["no step"] if metrics.get("optimizer_steps") == 0 else []
    return "  ".join([*(f"{label} {form.format(value)}" for label, value, form in known), *idle])


def times(shares: Mapping[str, float]) -> str:
    """Where the time goes, from a twentieth on: `sampling 61% training 35%`."""
    return " ".join(f"{kind} {share:.0%}" for kind, share in shares.items() if share >= SHOWN_SHARE)


class Display:
    """Shows trainings on stderr while entered; a study's stages get a line each."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console if console is not None else standard_error()
        self._progress = Progress(
            TextColumn("{task.description:<10}", markup=False),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            BarColumn(bar_width=10),
            WholeItems("figures", Column(ratio=1)),
            expand=True,
            console=self.console,
            disable=not self.console.is_terminal,
            redirect_stdout=False,
            speed_estimate_period=PACED_OVER,
        )
        self._tasks: dict[Path, TaskID] = {}
        self._spoke = time.monotonic()
        self._steps = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._steps.enter_context(steps_in(StepBar(self._progress, "figures")))
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._steps.close()
        self._progress.stop()

    def begin(self, training: Running, done: int = 0) -> None:
        """Give a training its line, below what is to be known of it."""
        if training.out not in self._tasks:
            for text in training.remarks:
                self.remark(f"{training.name}: {text}")
            task = self._progress.add_task(visible(training.name), total=training.total, completed=done, figures="")
            self._progress.advance(task, 0)  # from when on: so the first update tells how long the others will take
            self._tasks[training.out] = task

    def show(self, training: Running, metrics: Mapping[str, Any]) -> None:
        """Show one update, or without metrics a beginning; events (a skipped step, a stop) stay above the lines."""
        if not metrics:
            self.begin(training)
            return
        step = int(metrics["step"])
        moved_on()
        self.begin(training, step - 1)
        shown = "  ".join(part for part in (figures(metrics), times(training.shares)) if part)
        self._progress.update(self._tasks[training.out], completed=step, total=training.total, figures=shown)
        if not self.console.is_terminal and time.monotonic() - self._spoke >= PIPED:
            self._spoke = time.monotonic()
            self.remark(f"{training.name} {step}/{training.total or '?'}: {shown}")
        for event in [*metrics.get("events", []), *([metrics["stop"]] if "stop" in metrics else [])]:
            self.remark(f"{training.name} update {step}: {event}")

    def remark(self, text: str) -> None:
        """One line that stays, on stderr."""
        said = filled(visible(text), self.console.width) if self.console.is_terminal else visible(text)
        self.console.print(said, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[..., None]]:
    """Show `done of total` on stderr while entered.

    What is yielded is told how much is done, of how much, and, where one count follows another, of what.
    """
    console = standard_error()
    columns = MofNCompleteColumn(), TimeRemainingColumn(compact=True), BarColumn(bar_width=20)
    with (
        Progress(
            TextColumn("{task.description}", markup=False), *columns, console=console, disable=not console.is_terminal
        ) as progress,
        steps_in(StepBar(progress)),
    ):
        task = progress.add_task(what, total=None)
        spoke = time.monotonic()

        def show(done: int, total: int, what: str = what) -> None:
            nonlocal spoke
            moved_on(f"{what}, this batch" if done < total else "")
            progress.update(task, description=what, completed=done, total=total)
            if not console.is_terminal and time.monotonic() - spoke >= PIPED:
                spoke = time.monotonic()
                console.print(f"{what}: {done:,} of {total:,}", highlight=False)

        yield show

"""The line of a training, and that of a command that counts records."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn
from rich.table import Column

from smolt.cli.outcomes import filled
from smolt.cli.progress.step_lines import PIPED, StepBar, moved_on, standard_error, steps_in
from smolt.cli.progress.time_left import CountPace, columns
from smolt.report.inert import visible
from smolt.report.terminal import WholeItems

FIGURES = (
    ("reward", "reward", "{:+.3f}"),
    ("loss", "loss", "{:.4f}"),
    ("loss", "reward_loss", "{:.4f}"),
    ("critic loss", "critic_loss", "{:.3f}"),
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
    idle = ["no step"] if metrics.get("optimizer_steps") == 0 else []
    return "  ".join([*telling(metrics), *idle])


def telling(metrics: Mapping[str, Any], speed: bool = True) -> list[str]:
    """Each headline metric that says something, in words.

    The loss of a policy gradient says nothing, it is about 0 however well it goes; nor does the speed of an update that
    took no step. A KL is estimated from the sampled tokens: where it is below 0, it is so by chance.
    """
    silent = {"loss"} if "ratio_error" in metrics else set()
    silent |= set() if speed and metrics.get("tokens_per_second") else {"tokens_per_second"}
    return [
        f"{label} {form.format(value)}{' (by chance)' if name == 'kl' and value < 0 else ''}"
        for label, name, form in FIGURES
        if isinstance(value := metrics.get(name), int | float) and name not in silent
    ]


def times(shares: Mapping[str, float]) -> str:
    """Where the time goes, from a twentieth on: `sampling 61% training 35%`."""
    return " ".join(f"{kind} {share:.0%}" for kind, share in shares.items() if share >= SHOWN_SHARE)


class Display:
    """Shows trainings on stderr while entered; a study's stages get a line each."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console if console is not None else standard_error()
        self._progress = Progress(
            TextColumn("{task.description:<10}", markup=False),
            *columns(),
            WholeItems("figures", Column(ratio=1)),
            expand=True,
            console=self.console,
            disable=not self.console.is_terminal,
            redirect_stdout=False,
        )
        self._tasks: dict[Path, TaskID] = {}
        self._paces: dict[Path, CountPace] = {}
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
            # From when on: so the first update tells how long the others will take.
            pace = self._paces[training.out] = CountPace(self._progress.get_time(), done)
            for earlier in self._tasks.values():
                self._end(earlier)
            name, total = visible(training.name), training.total
            task = self._progress.add_task(name, total=total, completed=done, figures="", pace=pace)
            self._tasks[training.out] = task

    def show(self, training: Running, metrics: Mapping[str, Any]) -> None:
        """Show one update, or without metrics a beginning; events (a skipped step, a stop) stay above the lines."""
        if not metrics:
            self.begin(training)
            return
        step = int(metrics["step"])
        moved_on()
        self.begin(training, step - 1)
        self._paces[training.out].count(step, self._progress.get_time())
        shown = "  ".join(part for part in (figures(metrics), times(training.shares)) if part)
        self._progress.update(self._tasks[training.out], completed=step, total=training.total, figures=shown)
        if step == training.total:
            self._end(self._tasks[training.out])
        if not self.console.is_terminal and time.monotonic() - self._spoke >= PIPED:
            self._spoke = time.monotonic()
            self.remark(f"{training.name} {step}/{training.total or '?'}: {shown}")
        for event in [*metrics.get("events", []), *([metrics["stop"]] if "stop" in metrics else [])]:
            self.remark(f"{training.name} update {step}: {event}")

    def _end(self, task: TaskID) -> None:
        """Its clock stands still, and nothing is left."""
        if self._progress.tasks[self._progress.task_ids.index(task)].stop_time is None:
            self._progress.stop_task(task)

    def remark(self, text: str) -> None:
        """One line that stays, on stderr."""
        said = filled(visible(text), self.console.width) if self.console.is_terminal else visible(text)
        self.console.print(said, markup=False, highlight=False, soft_wrap=True)


class CountLine:
    """The one line of a command that counts records; a step below it is named on it, and moves it on.

    Args:
        progress: where it stands.
        what: is counted.
    """

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress, self._what = progress, what
        self._total: int | None = None
        self._done = 0.0
        self._part: tuple[int, int, int] | None = None
        self._pace: CountPace | None = None
        self._task = progress.add_task(what, total=None, uncounted=True, pace=CountPace(progress.get_time()))

    def records(self, done: int, total: int, what: str) -> None:
        """What the command says; the pace is that of what it has done itself."""
        now = self._progress.get_time()
        if self._pace is None or what != self._what:
            self._pace = CountPace(now, done)
        self._what, self._total, self._done, self._part = what, total, done, None
        self._pace.count(done, now)
        self._update(what)

    def part(self, first: int, stop: int, total: int) -> None:
        """What is counted from now on is records `first` to `stop` of the last `total` ones."""
        self._part = first, stop, total

    def show(self, text: str, done: float, total: int | None, began: float) -> None:
        """A step of it; what a part of the records is counted by moves the line on, but not to the part's end."""
        if total is not None and self._part is not None and self._total is not None and self._pace is not None:
            first, stop, of = self._part
            share = min(done / max(total, 1), 1 - 1e-3)
            self._done = max(self._done, self._total - of + first + share * (stop - first))
            self._pace.count(self._done, self._progress.get_time())
        elif total is not None:
            text = f"{'this batch' if text == self._what else text}: {done:,.0f} of {total:,}"
        self._update(self._what if text == self._what else f"{self._what} ({visible(text)})")

    def clear(self) -> None:
        """The step has ended."""
        self._update(self._what)

    def _update(self, text: str) -> None:
        known: dict[str, Any] = {"completed": self._done, "total": self._total, "uncounted": False, "pace": self._pace}
        self._progress.update(self._task, description=text, **({} if self._pace is None else known))


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[..., None]]:
    """Show `done of total` on stderr while entered.

    What is yielded is told how much is done, of how much, and, where one count follows another, of what.
    """
    console = standard_error()
    with contextlib.ExitStack() as entered:
        text = TextColumn("{task.description}", markup=False)
        progress = entered.enter_context(Progress(*columns(), text, console=console, disable=not console.is_terminal))
        line = CountLine(progress, what)
        entered.enter_context(steps_in(line))
        spoke = time.monotonic()

        def show(done: int, total: int, what: str = what) -> None:
            nonlocal spoke
            moved_on(
                f"{what}, this batch" if done < total and not console.is_terminal else what if done < total else ""
            )
            line.records(done, total, what)
            if not console.is_terminal and time.monotonic() - spoke >= PIPED:
                spoke = time.monotonic()
                console.print(f"{what}: {done:,} of {total:,}", highlight=False)

        yield show

"""How far a command is that counts something: one line on a terminal, nothing where nobody looks."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Counter:
    """Shows `done of total` on stderr while entered."""

    def __init__(self, what: str, console: Console | None = None) -> None:
        console = console if console is not None else Console(stderr=True)
        columns = BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn(compact=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), *columns, console=console, disable=not console.is_terminal
        )
        self._task = self._progress.add_task(what, total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, done: int, total: int) -> None:
        """Show how much is done."""
        self._progress.update(self._task, completed=done, total=total)

"""How long a count goes on, and the columns of a line that shows one: count, time so far, time left, bar."""

from rich.progress import BarColumn, ProgressColumn, Task
from rich.text import Text


class CountPace:
    """How fast a count comes on, taken over all of it.

    rich takes it over the last counts, and from when its line is shown: a step whose line comes late, or whose first
    part takes half a minute, had next to no time left.

    Args:
        now: seconds of any clock, when it begins.
        done: of the count by then.
    """

    def __init__(self, now: float, done: float = 0) -> None:
        self.began, self._first = now, done
        self._told, self._done = now, done

    def count(self, done: float, now: float) -> None:
        """So much is done; less than before is a new beginning."""
        if done < self._done:
            self.began, self._first = self._told, done
        self._told, self._done = now, done

    def left(self, total: float, now: float) -> float | None:
        """Seconds; None before anything is done, and where the last count is late.

        It goes down between two counts, and up again once the next one is late.
        """
        counts, missing = self._done - self._first, total - self._done
        if counts <= 0:
            return None
        by_pace = (self._told - self.began) / counts * missing - (now - self._told)
        late = (now - self.began) / (counts + 1) * max(0.0, missing - 1)
        return max(0.0, by_pace, late) if by_pace >= 0 or late > 0 or missing <= 0 else None


def clock(seconds: float) -> str:
    """`0:07`, `12:25`, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Count(ProgressColumn):
    """How much of how much; nothing of a step that is not counted."""

    def render(self, task: Task) -> Text:
        """`3/16`, or `3/?` where only the clock knows."""
        if task.fields.get("uncounted"):
            return Text("")
        total = "?" if task.total is None else str(int(task.total))
        return Text(f"{int(task.completed):{len(total)}d}/{total}", style="progress.download", justify="right")


class Elapsed(ProgressColumn):
    """Time since the task's pace began, up to its end where it has one."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """As a clock."""
        end = task.get_time() if task.stop_time is None else task.stop_time
        return Text(clock(end - task.fields["pace"].began), style="progress.elapsed", justify="right")


class TimeLeft(ProgressColumn):
    """By the task's pace."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """As a clock."""
        if task.total is None or task.stop_time is not None:
            return Text("")
        left = task.fields["pace"].left(task.total, task.get_time())
        known = "-:--" if left is None else clock(left)
        return Text(f"{known} left", style="progress.remaining", justify="right")


def columns() -> tuple[ProgressColumn, ...]:
    """Of a line that counts."""
    return Count(), Elapsed(), TimeLeft(), BarColumn(bar_width=10)

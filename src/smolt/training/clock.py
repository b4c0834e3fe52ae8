"""Where a training's time goes, and how many updates fit into a budget of minutes.

A budget of minutes ends in a finished schedule, not in the middle of one: after the first updates, the very first left
out (it warms caches up), the total is fixed once from their measured pace, saved with the checkpoint, and the learning
rate decays over it. Nothing but the number of updates follows from the clock.
"""

import time
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

ENOUGH = 3  # measured updates from which a total is fixed ...
EARLIEST = 0.05  # ... once this share of the time is used;
LATEST = 0.25  # with this share used one measured update is enough,
AT_ONCE = 0.5  # and with this share even the first update of all
KINDS = ("sampling", "scoring", "preparation", "training", "evaluation", "saving")


def now() -> float:
    """Seconds of a clock that never goes back."""
    return time.perf_counter()


def evaluations(done: int, total: int, every: int) -> int:
    """Evaluations after update `done` up to `total`: at multiples of `every` (0 = never) and after the last update."""
    if total <= done:
        return 0
    regular = total // every - done // every if every else 0
    return regular + (1 if not every or total % every else 0)


def updates_that_fit(
    done: int, most: int, seconds: float, update: float, evaluation: float = 0.0, every: int = 0
) -> int:
    """The total of updates, from `done` to `most`, whose rest with its evaluations takes at most so many seconds.

    Args:
        done: updates taken.
        most: updates at most.
        seconds: what is left.
        update: seconds of one update, > 0.
        evaluation: seconds of one evaluation, 0 where there is none.
        every: updates between evaluations.
    """

    def cost(total: int) -> float:
        return (total - done) * update + evaluations(done, total, every) * evaluation

    more = range(done + 1, max(done, min(most, done + int(seconds / update))) + 1)
    return done + bisect_right(more, seconds, key=cost)


class Clock:
    """The time a training has taken so far, by kind, over all its processes.

    Attributes:
        limit: seconds after which it ends, None without a limit.
        whole: whether evaluation and saving count against the limit, or updates alone.
        total: updates fixed by the pace, None before (and always without a limit).
        spent: seconds by kind.
        evaluation: seconds the last evaluation took, None before the first.
    """

    def __init__(self, limit: float | None = None, whole: bool = True) -> None:
        self.limit = limit
        self.whole = whole
        self.total: int | None = None
        self.spent = dict.fromkeys(KINDS, 0.0)
        self.evaluation: float | None = None
        self._first: float | None = None
        self._measured = 0
        self._seconds = 0.0
        self._saved, self._saving = now(), 0.0

    @property
    def updates(self) -> float:
        """Seconds of all updates: without evaluation and saving."""
        return sum(self.spent[kind] for kind in KINDS[:4])

    @property
    def used(self) -> float:
        """Seconds that count against the limit."""
        return sum(self.spent.values()) if self.whole else self.updates

    @property
    def up(self) -> bool:
        """Whether the limit is reached."""
        return self.limit is not None and self.used >= self.limit

    @property
    def pace(self) -> float:
        """Seconds an update, the first one left out where there are others."""
        return self._seconds / self._measured if self._measured else self._first or 0.0

    @property
    def shares(self) -> dict[str, float]:
        """Share of the time by kind; kinds that took none are left out."""
        whole = sum(self.spent.values())
        return {kind: seconds / whole for kind, seconds in self.spent.items() if seconds > 0}

    def updated(self, seconds: float, metrics: Mapping[str, Any]) -> None:
        """One update took so long; its metrics say what for."""
        parts = {kind: float(metrics.get(f"{kind}_seconds", 0.0)) for kind in ("sampling", "scoring", "training")}
        parts["preparation"] = max(0.0, seconds - sum(parts.values()))
        for kind, part in parts.items():
            self.spent[kind] += part
        if self._first is None:
            self._first = seconds
        else:
            self._measured, self._seconds = self._measured + 1, self._seconds + seconds

    def evaluated(self, seconds: float) -> None:
        """One evaluation took so long."""
        self.spent["evaluation"] += seconds
        self.evaluation = seconds

    def saved(self, seconds: float) -> None:
        """One checkpoint took so long."""
        self.spent["saving"] += seconds
        self._saved, self._saving = now(), seconds

    def unsaved(self, minutes: float | None) -> bool:
        """Whether the last checkpoint is so many minutes old, and older than nine times what it took; None: never."""
        return minutes is not None and now() - self._saved > max(minutes * 60, 9 * self._saving)

    @property
    def ready(self) -> bool:
        """Whether it is time to fix the total."""
        if self.limit is None or self.total is not None:
            return False
        share = self.used / self.limit
        return share >= AT_ONCE or (share >= (EARLIEST if self._measured >= ENOUGH else LATEST) and self._measured > 0)

    def fix(self, done: int, most: int, every: int) -> int:
        """Fix the total from the measured pace; arguments as of `updates_that_fit`."""
        if self.limit is None:
            raise RuntimeError("without a limit there is nothing to fix")
        evaluation = self.evaluation or 0.0 if self.whole else 0.0
        self.total = updates_that_fit(done, most, self.limit - self.used, max(self.pace, 1e-9), evaluation, every)
        return self.total

    def record(self) -> dict[str, Any]:
        """For the result: seconds and shares by kind, and the total that the clock chose."""
        chosen = {} if self.total is None else {"total": self.total}
        return {"seconds": dict(self.spent), "shares": self.shares, **chosen}

    def state(self) -> dict[str, Any]:
        """JSON of what a continued run needs."""
        return {
            "total": self.total,
            "measured": self._measured,
            "pace_seconds": self._seconds,
            "first_seconds": self._first,
            "evaluation_seconds": self.evaluation,
            "seconds": dict(self.spent),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.total, self._measured = state["total"], state["measured"]
        self._seconds, self._first = state["pace_seconds"], state["first_seconds"]
        self.evaluation, self.spent = state["evaluation_seconds"], dict(state["seconds"])

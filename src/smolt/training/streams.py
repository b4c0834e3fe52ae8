"""Where the updates of stages that learn from records come from. No training state lives in a generator's locals."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from smolt import randomness
from smolt.config import Budget
from smolt.models.groups import Groups, join
from smolt.training.fit import ENDLESS, Metrics, Update


def taken(number: int, batch: int, size: int, seed: int) -> list[int]:
    """Which of `size` records update `number` takes from the endless sequence that is shuffled anew each epoch."""
    places = (divmod(place, size) for place in range(number * batch, (number + 1) * batch))
    return [_order(size, seed, epoch)[index] for epoch, index in places]


@lru_cache(maxsize=2)
def _order(size: int, seed: int, epoch: int) -> list[int]:
    return randomness.permutation(size, seed, epoch)


@dataclass
class Rows:
    """`batch` items an update, in an order that is a function of (seed, epoch).

    Attributes:
        items: one Groups for each record (an answer, or the two of a pair).
        batch: records of one update.
        total: updates in all.
        seed: of the order.
        complete: adds columns to some records, once for each record when it is first used; None adds nothing.
        whole: adds columns that depend on all records of an update, each time; None adds nothing.
    """

    items: list[Groups]
    batch: int
    total: int
    seed: int
    complete: Callable[[Groups], Groups] | None = None
    whole: Callable[[Groups], Groups] | None = None

    def next(self, number: int) -> Update:
        """Records [number * batch, (number + 1) * batch) of the endless shuffled sequence."""
        places = taken(number, self.batch, len(self.items), self.seed)
        for place in places:
            if self.complete is not None and place not in self._completed:
                self._replace(self.together(place), self.complete)
        groups = join([self.items[place] for place in places])
        if self.whole is not None:
            groups = self.whole(groups)
        return Update([groups], {"epoch": (number + 1) * self.batch / len(self.items)})

    def _replace(self, places: list[int], complete: Callable[[Groups], Groups]) -> None:
        """Complete records in one batch: always those of one update of the first epoch.

        A run continued in a later epoch finds the same batches, and with them the same last digits.
        """
        groups, row = complete(join([self.items[place] for place in places])), 0
        for place in places:
            size = len(self.items[place])
            self.items[place] = groups.select(list(range(row, row + size)))
            row += size
        self._completed |= set(places)

    def together(self, place: int) -> list[int]:
        """The records, in order, that a record shares its update of the first epoch with, itself among them."""
        order = _order(len(self.items), self.seed, 0)
        start = order.index(place) // self.batch * self.batch
        return sorted(order[start : start + self.batch])

    _completed: set[int] = field(default_factory=set, repr=False)

    def veto(self, step: int, batch: Groups, metrics: Metrics) -> str | None:
        """Every step is taken."""
        return None

    def observe(self, metrics: Metrics) -> str | None:
        """Nothing adapts."""
        return None

    def state(self) -> dict[str, Any]:
        """The order needs no state."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""


def updates_of(budget: Budget, items: int, batch: int) -> int:
    """Updates that a budget of updates or epochs means for `items` records; endless ones are ended by the clock."""
    if budget.updates is not None:
        return budget.updates
    if budget.epochs is not None:
        return max(1, math.ceil(budget.epochs * items / batch))
    return ENDLESS

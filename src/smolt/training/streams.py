"""Where the updates of stages that learn from records come from. No training state lives in a generator's locals."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from smolt import randomness
from smolt.config import Budget, DistillRecipe
from smolt.data import Question, Score
from smolt.models.answers import Answered, as_answers, rated_answers
from smolt.models.groups import Groups, join
from smolt.models.rendering import Renderer
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing, sample
from smolt.runs.rated_answers import as_row
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


@dataclass
class Exercises:
    """`prompts` questions an update, a share of them answered by who learns, the others as they were given.

    Their order is a function of (seed, epoch), the answers one of (seed, update, question); it needs no state.

    Attributes:
        recipe: how many, and which share.
        policy: who answers.
        renderer: its.
        drawing: how its tokens are drawn.
        questions: all that are asked.
        given: each with the answer that was given; empty where none is used.
    """

    recipe: DistillRecipe
    policy: Policy
    renderer: Renderer
    drawing: Drawing
    questions: list[Question]
    given: list[Groups]

    @property
    def total(self) -> int:
        """Updates in all."""
        return self.recipe.budget.updates or ENDLESS

    def next(self, number: int) -> Update:
        """Ask, answer; one optimizer step."""
        recipe = self.recipe
        places = taken(number, recipe.prompts, len(self.questions), recipe.seed)
        own = round(recipe.own * recipe.prompts)
        parts = [self.given[place] for place in places[own:]]
        if not own:
            return Update([join(parts)])
        began, asked = time.perf_counter(), [self.questions[place] for place in places[:own]]
        first = number * recipe.prompts
        groups = self.answers(asked, self.drawing, (recipe.seed, number), range(first, first + own))
        metrics: Metrics = {
            "stop_rate": float(groups.stopped.float().mean()),
            "length": float(groups.lengths.float().mean()),
            "sampling_seconds": time.perf_counter() - began,
        }
        found = Answered(asked, as_answers(groups, self.renderer), groups.columns["sampled"].sum(dim=1))
        rows = [as_row(answer) for answer in rated_answers(found, [Score(None)] * own, recipe.seed)]
        return Update([join([replace(groups, columns={}), *parts])], metrics, rows)

    def answers(
        self, asked: Sequence[Question], drawing: Drawing, counter: tuple[int, ...], ids: Sequence[int]
    ) -> Groups:
        """One answer of the policy to each question."""
        contexts = self.renderer.contexts([question.context for question in asked])
        return sample(self.policy, contexts, 1, drawing, counter, ids=ids)

    def veto(self, step: int, batch: Groups, metrics: Metrics) -> str | None:
        """Every step is taken."""
        return None

    def observe(self, metrics: Metrics) -> str | None:
        """Nothing adapts."""
        return None

    def state(self) -> dict[str, Any]:
        """The answers are functions of the update's number and the weights."""
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

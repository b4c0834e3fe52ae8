"""Streams: where an algorithm's updates come from. No training state lives in a generator's locals.

Rows     a fixed set of records, shuffled anew each epoch (SFT, reward model, DPO)
Rollouts questions answered by the policy and scored, one rollout an update (PPO, GRPO)
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from smolt import randomness
from smolt.config import Budget
from smolt.data import Question, Score
from smolt.models.answers import Answered, as_answers, mean, rated_answers
from smolt.models.groups import Groups, join
from smolt.models.rendering import Renderer
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing, sample
from smolt.rewards.rules import Reward
from smolt.runs.rated_answers import as_row
from smolt.training.fit import ENDLESS, Metrics, Update


@dataclass
class Rows:
    """`batch` items an update, in an order that is a function of (seed, epoch).

    Attributes:
        items: one Groups for each record (an answer, or the two of a pair).
        batch: records of one update.
        total: updates in all.
        seed: of the order.
        complete: adds columns to some records, once for each record when it is first used; None adds nothing.
    """

    items: list[Groups]
    batch: int
    total: int
    seed: int
    complete: Callable[[Groups], Groups] | None = None

    def next(self, number: int) -> Update:
        """Records [number * batch, (number + 1) * batch) of the endless shuffled sequence."""
        places = self.places(number)
        for place in places:
            if self.complete is not None and place not in self._completed:
                self._replace(self.together(place), self.complete)
        return Update(
            [join([self.items[place] for place in places])], {"epoch": (number + 1) * self.batch / len(self.items)}
        )

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

    def places(self, number: int) -> list[int]:
        """Which records update `number` takes."""
        chosen = []
        for place in range(number * self.batch, (number + 1) * self.batch):
            epoch, index = divmod(place, len(self.items))
            if epoch != self._shuffled[0]:
                self._shuffled = epoch, randomness.permutation(len(self.items), self.seed, epoch)
            chosen.append(self._shuffled[1][index])
        return chosen

    def together(self, place: int) -> list[int]:
        """The records, in order, that a record shares its update of the first epoch with, itself among them."""
        order = randomness.permutation(len(self.items), self.seed, 0)
        start = order.index(place) // self.batch * self.batch
        return sorted(order[start : start + self.batch])

    _shuffled: tuple[int, list[int]] = field(default=(-1, []), repr=False)
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


@dataclass
class Rollouts:
    """Each update: some questions, the policy's answers, their scores, and what the algorithm makes of them.

    Attributes:
        questions: what is asked, in an order that is a function of (seed, epoch).
        policy, renderer, drawing: who answers, and how.
        reward: who scores.
        prompts: questions an update.
        samples: answers for each.
        total: updates in all.
        seed: of order and sampling.
        prepare: from the answers and their scores (NaN where the rater abstained) to the optimizer steps; its
            arguments are the groups, the rewards and the update's number.
        veto: see Stream.
        observe: see Stream.
        adaptive: the state that `observe` changes.
    """

    questions: Sequence[Question]
    policy: Policy
    renderer: Renderer
    drawing: Drawing
    reward: Reward
    prompts: int
    samples: int
    total: int
    seed: int
    prepare: Callable[[Groups, torch.Tensor, int], Update]
    veto: Callable[[int, Groups, Metrics], str | None]
    observe: Callable[[Metrics], str | None]
    adaptive: dict[str, Any] = field(default_factory=dict)

    def next(self, number: int) -> Update:
        """Ask, answer, score, prepare."""
        places = range(number * self.prompts, (number + 1) * self.prompts)
        chosen = [self._question(place) for place in places]
        began = time.perf_counter()
        groups = sample(
            self.policy,
            [self.renderer.context(self.questions[index].context) for index in chosen],
            self.samples,
            self.drawing,
            (self.seed, number),
            ids=list(places),
        )
        sampled = time.perf_counter()
        asked = [self.questions[chosen[owner]] for owner in groups.owners]
        answers = as_answers(groups, self.renderer)
        scores = self.reward(asked, answers)
        metrics = score_metrics(scores, groups)
        metrics["sampling_seconds"] = sampled - began
        metrics["scoring_seconds"] = time.perf_counter() - sampled
        update = self.prepare(groups, as_rewards(scores), number)
        rated = rated_answers(Answered(asked, answers, groups.columns["sampled"].sum(dim=1)), scores, self.seed)
        return Update(update.minibatches, {**metrics, **update.metrics}, [*map(as_row, rated)], update.roles)

    def _question(self, place: int) -> int:
        epoch, index = divmod(place, len(self.questions))
        return randomness.permutation(len(self.questions), self.seed, epoch)[index]

    def state(self) -> dict[str, Any]:
        """What the observer adapts."""
        return dict(self.adaptive)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what the observer had adapted."""
        self.adaptive.update(state)


def as_rewards(scores: Sequence[Score]) -> torch.Tensor:
    """Scores as fp32 [B]; NaN where the rater abstained."""
    return torch.tensor([math.nan if score.value is None else score.value for score in scores], dtype=torch.float32)


def score_metrics(scores: Sequence[Score], groups: Groups) -> Metrics:
    """Mean reward and components, abstentions, stop rate and length of a rollout."""
    metrics: Metrics = {
        "reward": mean([score.value for score in scores]),
        "abstained": sum(score.value is None for score in scores),
        "stop_rate": float(groups.stopped.float().mean()),
        "length": float(groups.lengths.float().mean()),
    }
    for name in sorted({name for score in scores for name in score.components}):
        metrics[f"reward/{name}"] = mean([score.components.get(name) for score in scores])
    return metrics

"""The stream of a stage that learns from rollouts: questions, answers, scores; and what else a plan takes from them."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from smolt import randomness, statistics
from smolt.data import Answer, Question, Score
from smolt.errors import UserError
from smolt.models.answers import Answered, as_answers, mean, rated_answers
from smolt.models.groups import Groups, join
from smolt.models.items import asked_questions
from smolt.models.roles import Policy
from smolt.models.sampling import sample
from smolt.models.saving import save_policy
from smolt.report.pairing import ranged
from smolt.rewards.mix import told
from smolt.runs.chunks import counted
from smolt.runs.rated_answers import RatedAnswer, as_row
from smolt.training.checks import forward_facts, same_policy, stop_probe, stop_reachable
from smolt.training.fit import ENDLESS, Learner, LossFunction, Metrics, Update
from smolt.training.objectives import group_advantages
from smolt.training.online.reward_forecast import forecast
from smolt.training.online.rolling import Rolling
from smolt.training.optimizers.parameter_groups import Role
from smolt.training.plan import Dev, Plan
from smolt.training.streams import taken

UNREWARDED_LIMIT = 20  # updates in a row in which no answer got a reward, before the run ends


class Preparation(Protocol):
    """What an algorithm makes of rewarded answers, and how it watches over what is learned from them.

    Attributes:
        state: JSON of what `observe` adapts.
    """

    state: dict[str, Any]

    @property
    def reference(self) -> Policy | None:
        """The policy of step 0, None where it is not needed."""

    def __call__(self, groups: Groups, rewards: Tensor, number: int) -> Update:
        """The optimizer steps of one rollout: none where nothing can be learned from it, and the KL is then None.

        Rewards are NaN where the rater abstained.
        """

    def veto(self, step: int, batch: Groups, metrics: Metrics) -> str | None:
        """See Stream."""

    def observe(self, metrics: Metrics) -> str | None:
        """See Stream."""


@dataclass(frozen=True)
class Drawn:
    """Questions of an update, the policy's answers, and what they got; seconds of writing and of rating them."""

    groups: Groups
    asked: list[Question]
    answers: list[Answer]
    scores: list[Score]
    seconds: tuple[float, float]

    @property
    def rewards(self) -> Tensor:
        """Fp32 [B]; NaN where the rater abstained."""
        return as_rewards(self.scores)


class Rollouts:
    """The stream of a rollout stage, each update: questions, the policy's answers, their scores, what is made of them.

    The questions' order is a function of (seed, epoch), the answers one of (seed, update, question). Groups without
    signal are replaced by those of other questions, `again` times at most; which are asked is a function of
    (seed, update, time). Nothing is learned from an update whose answers all stay without a reward; after
    UNREWARDED_LIMIT of them in a row the run ends.
    """

    def __init__(self, rolling: Rolling, prepare: Preparation, samples: int, again: int = 0) -> None:
        self.rolling = rolling
        self.prepare = prepare
        self.samples = samples
        self.again = again
        self.unrewarded = 0
        self.total = rolling.recipe.budget.updates or ENDLESS
        self.veto = prepare.veto
        self.observe = prepare.observe

    def next(self, number: int) -> Update:
        """Ask, answer, score, prepare."""
        recipe = self.rolling.recipe
        places = taken(number, recipe.prompts, len(self.rolling.questions), recipe.seed)
        ids = range(number * recipe.prompts, (number + 1) * recipe.prompts)
        first = self.draw(places, (recipe.seed, number), ids)
        drawn, learned, rewards = self.resampled(first, number)
        counted(0, len(rewards), f"log-probabilities of update {number + 1}")
        update = self.prepare(learned, rewards, number)
        metrics = {**score_metrics(first.scores, first.groups), **update.metrics}
        events = [*self.look(drawn, number), *metrics.pop("events", [])]
        if events:
            metrics["events"] = events
        if self.rolling.served is not None:
            metrics |= self.rolling.served.metrics(sum(len(one.answers) for one in drawn))
        if self.again:
            metrics["replaced"] = sum(len(one.groups.contexts) for one in drawn[1:])
        for side, name in enumerate(("sampling_seconds", "scoring_seconds")):
            metrics[name] = sum(one.seconds[side] for one in drawn)
        samples = [as_row(answer) for one in drawn for answer in self.rated(one)]
        return Update(update.minibatches, metrics, samples, update.roles)

    def resampled(self, first: Drawn, number: int) -> tuple[list[Drawn], Groups, Tensor]:
        """All that an update draws, the groups to learn from and their rewards (DAPO, 2503.14476).

        A group without signal gives way to that of another question, `again` times at most.
        """
        recipe, size = self.rolling.recipe, len(self.rolling.questions)
        drawn, learned, rewards = [first], first.groups, first.rewards
        for time_over in range(1, self.again + 1):
            kept = group_advantages(rewards, torch.tensor(learned.owners))[1].nonzero()[:, 0].tolist()
            missing = recipe.prompts - len({learned.owners[row] for row in kept})
            if not missing:
                break
            others = randomness.permutation(size, recipe.seed, number, time_over)[:missing]
            drawn.append(self.draw(others, (recipe.seed, number, time_over), range(len(others))))
            parts = ([learned.select(kept)] if kept else []) + [drawn[-1].groups]
            learned, rewards = join(parts), torch.cat([rewards[kept], drawn[-1].rewards])
        return drawn, learned, rewards

    def look(self, drawn: Sequence[Drawn], number: int) -> list[str]:
        """What is to be said of an update without a single reward, of which there may be some in a row.

        Raises:
            UserError: there were too many.
        """
        scores = [score for one in drawn for score in one.scores]
        if any(score.value is not None for score in scores):
            self.unrewarded = 0
            return []
        self.unrewarded += 1
        why = told(Counter(score.reason or "the rater abstained" for score in scores))
        if self.unrewarded == UNREWARDED_LIMIT:
            raise UserError(
                f"reward: no answer got one in {UNREWARDED_LIMIT} updates in a row, the last of them update "
                f"{number + 1} ({why}); samples.jsonl holds those of the others. Once that is mended, the same command "
                "continues after the last checkpoint"
            )
        return [f"none of {len(scores)} answers got a reward, so nothing is learned from them ({why})"]

    def draw(self, places: Sequence[int], counter: tuple[int, ...], ids: Sequence[int]) -> Drawn:
        """The policy's answers to the questions at some places, and their scores."""
        rolling, began, update = self.rolling, time.perf_counter(), counter[1] + 1
        counted(0, len(places) * self.samples, f"answers of update {update}")
        questions = [rolling.questions[index] for index in places]
        contexts, n = rolling.contexts(questions), self.samples
        if rolling.served is None:
            groups = sample(rolling.policy, contexts, n, rolling.drawing, counter, ids=ids)
        else:
            groups = rolling.served.draw(contexts, n, counter, ids)
        sampled = time.perf_counter()
        asked, answers = [questions[owner] for owner in groups.owners], as_answers(groups, rolling.ground.renderer)
        counted(0, len(answers), f"scores of update {update}")
        scores = rolling.reward(asked, answers)
        return Drawn(groups, asked, answers, scores, (sampled - began, time.perf_counter() - sampled))

    def rated(self, drawn: Drawn) -> list[RatedAnswer]:
        """For samples.jsonl."""
        logprobs = drawn.groups.columns["sampled"].sum(dim=1)
        return rated_answers(Answered(drawn.asked, drawn.answers, logprobs), drawn.scores, self.rolling.recipe.seed)

    def state(self) -> dict[str, Any]:
        """What the observer adapts, and how many updates in a row were without a reward."""
        return {**self.prepare.state, "unrewarded": self.unrewarded}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up both; a checkpoint of an older version has no such count."""
        self.unrewarded = state.get("unrewarded", 0)
        self.prepare.state.update({name: value for name, value in state.items() if name != "unrewarded"})


def as_rewards(scores: Sequence[Score]) -> Tensor:
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


def rollout_plan(
    rolling: Rolling,
    samples: int,
    preparation: Preparation,
    loss: LossFunction,
    roles: Mapping[str, Role],
    again: int = 0,
) -> Plan:
    """The plan of a stage that learns from rollouts of `recipe.prompts` questions with `samples` answers each."""
    recipe, policy, ground, reference = rolling.recipe, rolling.policy, rolling.ground, preparation.reference
    stream, renderer = Rollouts(rolling, preparation, samples, again), ground.renderer
    probe = stop_probe(renderer, rolling.questions[0])
    return Plan(
        stage=recipe.stage,
        recipe=recipe,
        identity={**ground.identity, "data": rolling.sha256, "conditions": rolling.conditions.record()},
        stream=stream,
        loss=loss,
        learner=Learner(roles, recipe.optim, stream.total),
        micro_tokens=rolling.micro_tokens,
        save=lambda directory: finished(rolling, directory),
        result=policy,
        checks=[
            *([] if rolling.served is None else [rolling.served.open]),
            lambda: stop_reachable(policy, renderer, recipe.sampling.max_tokens, rolling.questions[0]),
            *([lambda: same_policy(policy, reference, probe)] if reference is not None else []),
        ],
        forecast=partial(forecast, rolling) if recipe.checks.forecast else None,
        dev=dev_rewards(rolling),
        facts={**forward_facts(policy.trunk), "records": len(rolling.questions), "too_long": rolling.dropped},
        outlook=rolling.outlook,
    )


def finished(rolling: Rolling, directory: Path) -> None:
    """Write the finished model; a server need not keep its last adapter."""
    save_policy(rolling.policy, rolling.ground.renderer, directory)
    if rolling.served is not None:
        rolling.served.close()


def dev_rewards(rolling: Rolling) -> Dev | None:
    """Mean reward with its 95 % interval, stop rate and length of greedy answers to held-out questions."""
    recipe, ground = rolling.recipe, rolling.ground
    if recipe.dev is None:
        return None
    held_out = asked_questions(recipe.dev, ground.renderer, ground.window, recipe.sampling.max_tokens)
    asked = held_out.questions[: recipe.watch.items]
    contexts = rolling.contexts(asked)
    greedy = rolling.conditions.drawing(0.0, recipe.sampling.batch)

    def measure() -> dict[str, float]:
        groups = sample(rolling.policy, contexts, 1, greedy, (recipe.seed,))
        scores = rolling.reward(asked, as_answers(groups, ground.renderer))
        figures = score_metrics(scores, groups)
        values = [score.value for score in scores if score.value is not None]
        found = statistics.measure(values, bounded=ranged(name for score in scores for name in score.components))
        if found is not None:
            figures |= {"n": found.n, "reward_low": found.low, "reward_high": found.high}
        return {name: value for name, value in figures.items() if value is not None and name != "abstained"}

    return Dev(measure, "reward", "max", len(asked))

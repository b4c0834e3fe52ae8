"""What stages that learn from rewarded rollouts share: what they work with, the stream, a plan, importance weights."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from smolt import randomness, statistics
from smolt.config import Correction, GRPORecipe, Model, OnlineDPORecipe, PPORecipe
from smolt.data import Answer, Question, Score
from smolt.data.nouns import as_question
from smolt.errors import UserError
from smolt.models.answers import Answered, as_answers, mean, rated_answers
from smolt.models.conditions import Conditions, conditions_of
from smolt.models.ground import Ground, open_ground
from smolt.models.groups import Groups, from_answers, join, masked_sum, widen, without_gradient
from smolt.models.items import asked_questions
from smolt.models.roles import Policy, open_policy
from smolt.models.sampling import Drawing, sample
from smolt.models.saving import save_policy
from smolt.report.pairing import ranged
from smolt.rewards import python_reward
from smolt.rewards.build import mixed_reward, never_scored, partly_scored
from smolt.rewards.llm_judge.cache import VERDICTS
from smolt.rewards.rules import Reward
from smolt.runs.chunks import counted
from smolt.runs.rated_answers import RatedAnswer, as_row
from smolt.training.checks import forward_facts, same_policy, stop_reachable
from smolt.training.fit import ENDLESS, Learner, LossFunction, Metrics, Update
from smolt.training.memory.outlook import Outlook, heeded, look_at_questions
from smolt.training.mismatch import check_mismatch, mismatch
from smolt.training.objectives import group_advantages, truncated_weights
from smolt.training.optimizers.parameter_groups import Role
from smolt.training.stage import Dev, Plan
from smolt.training.stage_input import in_memory, longest_answer, recipe_for, settled
from smolt.training.streams import taken

LOG = logging.getLogger(__name__)
RolloutRecipe = PPORecipe | GRPORecipe | OnlineDPORecipe
RecipeT = TypeVar("RecipeT", PPORecipe, GRPORecipe, OnlineDPORecipe)
GIVEN = {"name": "python", "path": "(in memory)"}  # what a recipe says of a reward that was handed over


@dataclass(frozen=True)
class Rolling:
    """The parts of a rollout stage."""

    recipe: RolloutRecipe
    ground: Ground
    policy: Policy
    questions: list[Question]
    dropped: int
    sha256: str
    reward: Reward
    conditions: Conditions
    drawing: Drawing
    micro_tokens: int
    outlook: Outlook | None

    def contexts(self, questions: Sequence[Question]) -> list[list[int]]:
        """Their tokens."""
        return self.ground.renderer.contexts([question.context for question in questions])


def open_rollouts(
    recipe: RolloutRecipe,
    questions: Sequence[Question | str] | None = None,
    reward: Callable[..., Any] | None = None,
    model: Model | None = None,
    out: Path | None = None,
) -> Rolling:
    """Load what a rollout stage works with.

    Args:
        recipe: the stage's recipe.
        questions: instead of `recipe.data`.
        reward: a Python function instead of `recipe.reward`.
        model: `recipe.model` with its precision and threads decided.
        out: the run's directory, which keeps what a judge behind an address has said.

    Raises:
        UserError: model or data cannot be used, or the rules of the reward score no answer to any of the questions.
    """
    ground, sampling = open_ground(model or recipe.model), recipe.sampling
    source: Any = recipe.data if questions is None else [as_question(question) for question in questions]
    asked = asked_questions(source, ground.renderer, ground.window, sampling.max_tokens)
    hopeless = None if reward is not None else never_scored(recipe.reward.parts, asked.questions)
    if hopeless is not None:
        raise UserError(hopeless)
    if reward is None and (partly := partly_scored(recipe.reward.parts, asked.questions)):
        LOG.warning("%s", partly)
    outlook = heeded(recipe, look_at_questions(recipe, ground, asked))
    policy = open_policy(ground.located, ground.precision, recipe.lora, recipe.seed)
    verdicts = None if out is None else out / VERDICTS
    rater = python_reward(reward) if reward is not None else mixed_reward(recipe.reward, ground.precision, verdicts)
    conditions = conditions_of(ground.renderer, sampling.max_tokens)
    return Rolling(
        recipe=recipe,
        ground=ground,
        policy=policy,
        questions=asked.questions,
        dropped=asked.dropped,
        sha256=asked.sha256,
        reward=rater,
        conditions=conditions,
        drawing=conditions.drawing(sampling.temperature, sampling.batch),
        micro_tokens=policy.trunk.settle(recipe.budget, [longest_answer(asked.longest, sampling.max_tokens)]),
        outlook=outlook,
    )


def open_stage(
    kind: type[RecipeT],
    recipe: RecipeT | str | Path,
    questions: Sequence[Question | str] | None,
    reward: Callable[..., Any] | str | Sequence[Any] | Mapping[str, Any] | None,
    out: Path | None,
    fresh: bool,
    fields: dict[str, Any],
) -> tuple[RecipeT, Rolling]:
    """The checked recipe of a rollout stage and what it works with; arguments as of the stages themselves."""
    function, written = (reward, {}) if reward is None or callable(reward) else (None, {"reward": reward})
    given = {"data": in_memory(questions), "reward": None if function is None else GIVEN}
    checked = recipe_for(kind, recipe, {**fields, **written}, **given)
    return checked, open_rollouts(checked, questions, function, settled(checked.model, out, fresh), out)


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
        """The optimizer steps of one rollout; rewards are NaN where the rater abstained."""

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
    (seed, update, time).
    """

    def __init__(self, rolling: Rolling, prepare: Preparation, samples: int, again: int = 0) -> None:
        self.rolling = rolling
        self.prepare = prepare
        self.samples = samples
        self.again = again
        self.total = rolling.recipe.budget.updates or ENDLESS
        self.veto = prepare.veto
        self.observe = prepare.observe

    def next(self, number: int) -> Update:
        """Ask, answer, score, prepare."""
        recipe, size = self.rolling.recipe, len(self.rolling.questions)
        places = taken(number, recipe.prompts, size, recipe.seed)
        ids = range(number * recipe.prompts, (number + 1) * recipe.prompts)
        drawn = [self.draw(places, (recipe.seed, number), ids)]
        learned, rewards, replaced = drawn[0].groups, drawn[0].rewards, 0
        for time_over in range(1, self.again + 1):
            kept = group_advantages(rewards, torch.tensor(learned.owners))[1].nonzero()[:, 0].tolist()
            missing = recipe.prompts - len({learned.owners[row] for row in kept})
            if not missing:
                break
            others = randomness.permutation(size, recipe.seed, number, time_over)[:missing]
            drawn.append(self.draw(others, (recipe.seed, number, time_over), range(len(others))))
            parts = ([learned.select(kept)] if kept else []) + [drawn[-1].groups]
            learned, rewards = join(parts), torch.cat([rewards[kept], drawn[-1].rewards])
            replaced += len(others)
        counted(0, len(rewards), f"log-probabilities of update {number + 1}")
        update = self.prepare(learned, rewards, number)
        metrics = score_metrics(drawn[0].scores, drawn[0].groups)
        if self.again:
            metrics["replaced"] = replaced
        for side, name in enumerate(("sampling_seconds", "scoring_seconds")):
            metrics[name] = sum(one.seconds[side] for one in drawn)
        samples = [as_row(answer) for one in drawn for answer in self.rated(one)]
        return Update(update.minibatches, {**metrics, **update.metrics}, samples, update.roles)

    def draw(self, places: Sequence[int], counter: tuple[int, ...], ids: Sequence[int]) -> Drawn:
        """The policy's answers to the questions at some places, and their scores."""
        rolling, began, update = self.rolling, time.perf_counter(), counter[1] + 1
        counted(0, len(places) * self.samples, f"answers of update {update}")
        questions = [rolling.questions[index] for index in places]
        groups = sample(rolling.policy, rolling.contexts(questions), self.samples, rolling.drawing, counter, ids=ids)
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
        """What the observer adapts."""
        return dict(self.prepare.state)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what the observer had adapted."""
        self.prepare.state.update(state)


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
    probe = from_answers(rolling.contexts(rolling.questions[:1]), [[[renderer.stop_id] * 2]])
    return Plan(
        stage=recipe.stage,
        recipe=recipe,
        identity={**ground.identity, "data": rolling.sha256, "conditions": rolling.conditions.record()},
        stream=stream,
        loss=loss,
        learner=Learner(roles, recipe.optim, stream.total),
        micro_tokens=rolling.micro_tokens,
        save=lambda directory: save_policy(policy, renderer, directory),
        result=policy,
        checks=[
            lambda: stop_reachable(policy, renderer, recipe.sampling.max_tokens, probe),
            *([lambda: same_policy(policy, reference, probe)] if reference is not None else []),
        ],
        dev=dev_rewards(rolling),
        facts={**forward_facts(policy.trunk), "records": len(rolling.questions), "too_long": rolling.dropped},
        outlook=rolling.outlook,
    )


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


def dealt(recipe: RolloutRecipe, units: Sequence[Sequence[int]], number: int) -> list[list[int]]:
    """The rows of each step of update `number`: an inner epoch deals whole units of rows in an order of its own."""
    size, steps = -(-len(units) // recipe.inner.minibatches), list[list[int]]()
    for epoch in range(recipe.inner.epochs):
        order = randomness.permutation(len(units), recipe.seed, number, epoch)
        for start in range(0, len(units), size):
            steps.append([row for place in order[start : start + size] for row in units[place]])
    return steps


def old_logprobs(rolling: Rolling, groups: Groups, steps: Sequence[Sequence[int]]) -> tuple[Tensor, Metrics]:
    """The policy's log-probabilities before the first step, [B, T], and how far the sampler's are off them.

    They are computed as the steps of the first inner epoch will: in half precision another cut of the same answers
    rounds otherwise, and the first ratio is not 1.

    Raises:
        SelfCheckError: they differ by more than rounding.
    """
    policy, recipe, tokens = rolling.policy, rolling.recipe, rolling.micro_tokens
    temperature, old = recipe.sampling.temperature, torch.zeros(groups.mask.shape)
    for rows in steps[: len(steps) // recipe.inner.epochs]:
        part = without_gradient(groups.select(rows), tokens, lambda cut: policy(cut, temperature)[0])
        old[torch.tensor(rows)] = widen(part, old.shape[1])
    apart = mismatch(groups.columns["sampled"], old, groups.mask)
    check_mismatch(policy, groups, apart, temperature)
    return old, apart


def corrected(
    terms: Tensor, old: Tensor, sampled: Tensor, mask: Tensor, correction: Correction, dtype: torch.dtype
) -> tuple[Tensor, dict[str, tuple[float | Tensor, float]]]:
    """A policy loss per token times its truncated importance weight, [B, T], and what the weights were, as metrics.

    `correction.weights: auto` weighs in half precision alone; unweighted terms come back as they are, without metrics.
    """
    if correction.weights != "always" and not (correction.weights == "auto" and dtype != torch.float32):
        return terms, {}
    weights = truncated_weights(old, sampled, correction.cap)
    tokens = float(mask.sum())
    return terms * weights, {
        "importance_weight": (masked_sum(weights, mask), tokens),
        "importance_truncated": (masked_sum((weights >= correction.cap).float(), mask), tokens),
    }


def over_budget(apart: float | None, budget: float | None) -> str | None:
    """Why a run ends whose sequence KL to the reference (nats an answer) exceeds its budget, or None."""
    if budget is None or apart is None or apart <= budget:
        return None
    return f"KL to the reference {apart:.2f} nats an answer exceeds kl.budget {budget:g}"

"""What PPO and GRPO share before their arithmetic begins: policy, questions, reward, sampling, dev measurement."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from smolt.config import Correction, GRPORecipe, Model, PPORecipe
from smolt.data import Question
from smolt.data.nouns import as_question
from smolt.models.answers import as_answers, mean
from smolt.models.conditions import Conditions, conditions_of
from smolt.models.ground import Ground, open_ground
from smolt.models.groups import Groups, from_answers, masked_sum, widen, without_gradient
from smolt.models.items import question_list
from smolt.models.roles import Policy, open_policy
from smolt.models.sampling import Drawing, sample
from smolt.models.saving import save_policy
from smolt.rewards import python_reward
from smolt.rewards.build import mixed_reward
from smolt.rewards.llm_judge.cache import VERDICTS
from smolt.rewards.rules import Reward
from smolt.training.checks import forward_facts, same_policy, stop_reachable
from smolt.training.clock import seconds_of
from smolt.training.fit import ENDLESS, Learner, LossFunction, Metrics, Role, Update
from smolt.training.memory.outlook import Outlook, look_at_questions
from smolt.training.objectives import truncated_weights
from smolt.training.stage import Dev, Plan
from smolt.training.stage_input import in_memory, longest_answer, longest_context, recipe_for, settled
from smolt.training.streams import Rollouts

RecipeT = TypeVar("RecipeT", PPORecipe, GRPORecipe)
GIVEN = {"name": "python", "path": "(in memory)"}  # what a recipe says of a reward that was handed over


@dataclass(frozen=True)
class Rolling:
    """The parts of a rollout stage."""

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

    @property
    def identity(self) -> dict[str, Any]:
        """What the run's manifest says of its model, questions, and the conditions they are answered in."""
        return {**self.ground.identity, "data": self.sha256, "conditions": self.conditions.record()}


def open_rollouts(
    recipe: PPORecipe | GRPORecipe,
    questions: Sequence[Question | str] | None,
    reward: Callable[..., Any] | None,
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
    """
    ground = open_ground(model or recipe.model)
    source: Any = recipe.data if questions is None else [as_question(question) for question in questions]
    asked, dropped, digest = question_list(source, ground.renderer, ground.window, recipe.sampling.max_tokens)
    longest = longest_context(asked, ground.renderer)
    outlook = look_at_questions(recipe, ground, asked, longest)
    policy = open_policy(ground.located, ground.precision, recipe.lora, recipe.seed)

    verdicts = None if out is None else out / VERDICTS
    rater = python_reward(reward) if reward is not None else mixed_reward(recipe.reward, ground.precision, verdicts)
    sampling = recipe.sampling
    conditions = conditions_of(ground.renderer, sampling.max_tokens)
    return Rolling(
        ground=ground,
        policy=policy,
        questions=asked,
        dropped=dropped,
        sha256=digest,
        reward=rater,
        conditions=conditions,
        drawing=conditions.drawing(sampling.temperature, sampling.batch),
        micro_tokens=policy.trunk.settle(recipe.budget, [longest_answer(longest, sampling.max_tokens)]),
        outlook=outlook,
    )


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


def rollout_plan(
    recipe: PPORecipe | GRPORecipe,
    rolling: Rolling,
    samples: int,
    preparation: Preparation,
    loss: LossFunction,
    roles: Mapping[str, Role],
) -> Plan:
    """The plan of a stage that learns from rollouts of `recipe.prompts` questions with `samples` answers each."""
    policy, ground, reference = rolling.policy, rolling.ground, preparation.reference
    total = recipe.budget.updates or ENDLESS
    stream = Rollouts(
        questions=rolling.questions,
        policy=policy,
        renderer=ground.renderer,
        drawing=rolling.drawing,
        reward=rolling.reward,
        prompts=recipe.prompts,
        samples=samples,
        total=total,
        seed=recipe.seed,
        prepare=preparation,
        veto=preparation.veto,
        observe=preparation.observe,
        adaptive=preparation.state,
    )
    probe = from_answers([ground.renderer.context(rolling.questions[0].context)], [[[ground.renderer.stop_id] * 2]])
    return Plan(
        stage=recipe.stage,
        recipe=recipe,
        identity=rolling.identity,
        stream=stream,
        loss=loss,
        learner=Learner(roles, recipe.optim, total),
        micro_tokens=rolling.micro_tokens,
        save=lambda directory: save_policy(policy, ground.renderer, directory),
        result=policy,
        checks=[
            lambda: stop_reachable(policy, ground.renderer, recipe.sampling.max_tokens, probe),
            *([lambda: same_policy(policy, reference, probe)] if reference is not None else []),
        ],
        dev=dev_rewards(rolling, recipe),
        facts={**forward_facts(policy.trunk), "records": len(rolling.questions), "too_long": rolling.dropped},
        outlook=rolling.outlook,
        seconds=seconds_of(recipe.budget),
    )


def dev_rewards(rolling: Rolling, recipe: PPORecipe | GRPORecipe) -> Dev | None:
    """Mean reward, stop rate and length of greedy answers to held-out questions."""
    if recipe.dev is None:
        return None
    ground, sampling = rolling.ground, recipe.sampling
    held_out, _, _ = question_list(recipe.dev, ground.renderer, ground.window, sampling.max_tokens)
    asked = held_out[: recipe.watch.items]
    contexts = [ground.renderer.context(question.context) for question in asked]
    greedy = rolling.conditions.drawing(0.0, sampling.batch)

    def measure() -> dict[str, float]:
        groups = sample(rolling.policy, contexts, 1, greedy, (recipe.seed,))
        scores = rolling.reward(asked, as_answers(groups, ground.renderer))
        figures = {
            "reward": mean([score.value for score in scores]),
            "stop_rate": float(groups.stopped.float().mean()),
            "length": float(groups.lengths.float().mean()),
        }
        for name in {name for score in scores for name in score.components}:
            figures[f"reward/{name}"] = mean([score.components.get(name) for score in scores])
        return {name: value for name, value in figures.items() if value is not None}

    return Dev(measure, "reward", "max")


def old_logprobs(
    policy: Policy, groups: Groups, first: Sequence[Sequence[int]], temperature: float, tokens: int
) -> Tensor:
    """The policy's log-probabilities before the first step, [B, T], computed as the first steps will.

    In half precision another cut of the same answers rounds otherwise, and the first ratio is not 1.

    Args:
        policy: who answered.
        groups: its answers.
        first: rows of each minibatch of the first inner epoch; together all rows.
        temperature: the answers were sampled at.
        tokens: packed tokens of one forward.
    """
    column = torch.zeros(groups.mask.shape)
    for rows in first:
        part = without_gradient(groups.select(rows), tokens, lambda cut: policy(cut, temperature)[0])
        column[torch.tensor(rows)] = widen(part, column.shape[1])
    return column


def weighs(correction: Correction, dtype: torch.dtype) -> bool:
    """Whether tokens get importance weights: `auto` gives them in half precision."""
    return correction.weights == "always" or (correction.weights == "auto" and dtype != torch.float32)


def corrected(
    terms: Tensor, old: Tensor, sampled: Tensor, mask: Tensor, correction: Correction
) -> tuple[Tensor, dict[str, tuple[Tensor, float]]]:
    """A policy loss per token times its truncated importance weight, [B, T], and what the weights were, as metrics."""
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

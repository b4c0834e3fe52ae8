"""Proximal policy optimization for language models (1909.08593, 2009.01325, 2403.17031), actor and critic.

Under LoRA actor, critic and reference are adapters on one trunk; with full weights they are separate. Or the critic is
a head on the actor's own states (critic.trunk: policy), which learn from the sum of both losses, as in most
implementations. The reward of a token is -coefficient * k1, plus the score on the last real answer token; inner epochs
end when the policy has moved too far from the one that sampled, and the step that would have gone further is not taken.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolt.config import PPORecipe
from smolt.data import Question
from smolt.models.groups import Groups, masked_sum
from smolt.models.roles import Policy, Scorer, logprobs_and_values
from smolt.training.checks import only_warmup
from smolt.training.fit import Loss, LossFunction
from smolt.training.objectives import (
    clipped_policy_loss,
    kl,
    value_loss,
)
from smolt.training.online.critic import open_critic
from smolt.training.online.rolling import open_stage
from smolt.training.online.rollouts import rollout_plan
from smolt.training.online.steps import corrected
from smolt.training.online.token_advantages import PPOPreparation
from smolt.training.optimizers.parameter_groups import adapter_role
from smolt.training.stage import Training

LOG = logging.getLogger(__name__)


def ppo(
    recipe: PPORecipe | str | Path,
    questions: Sequence[Question | str] | None = None,
    *,
    reward: Callable[..., Any] | str | Sequence[Any] | Mapping[str, Any] | None = None,
    out: Path | None = None,
    fresh: bool = False,
    **fields: Any,
) -> Training:
    """PPO of a recipe, or of a model path on questions in memory.

    Args:
        recipe: a recipe, or a model path or hub name with `questions` and recipe fields.
        questions: instead of `recipe.data`; a text is a question without a solution.
        reward: a function of (question, answer) to a number, instead of `recipe.reward`; with a path also what a recipe
            says there, such as "gsm8k".
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
        fields: recipe fields, when `recipe` is a path.
    """
    checked, rolling = open_stage(PPORecipe, recipe, questions, reward, out, fresh, fields)
    for said in only_warmup(checked, checked.budget.updates):
        LOG.warning("%s", said)
    policy, reference = rolling.policy, rolling.policy.as_reference()
    critic = open_critic(checked, policy)
    preparation = PPOPreparation(checked, rolling, reference, critic)
    own = critic.head_parameters() if checked.critic.trunk == "policy" else critic.parameters()
    roles = {
        "policy": adapter_role(policy.parameters(), checked.lora),
        "critic": adapter_role(own, checked.lora, checked.critic.lr_scale),
    }
    plan = rollout_plan(rolling, checked.samples, preparation, ppo_loss(policy, critic, checked), roles)
    return Training(plan, out, fresh)


def ppo_loss(policy: Policy, critic: Scorer, recipe: PPORecipe) -> LossFunction:
    """The actor's loss, sent backward, then the critic's: their adapters share a trunk. Or both as one."""
    dtype = policy.trunk.precision.dtype

    def actor(logprobs: Tensor, entropy: Tensor, mask: Tensor, columns: Mapping[str, Tensor]) -> Loss:
        tokens = float(mask.sum())
        terms, clipped = clipped_policy_loss(logprobs, columns["old"], columns["advantages"], recipe.clip, recipe.clip)
        moved = kl(columns["old"], logprobs.detach(), "k3")
        terms, weights = corrected(terms, columns["old"], columns["sampled"], mask, recipe, dtype)
        return Loss(
            masked_sum(terms, mask),
            tokens,
            {
                **weights,
                "entropy": (masked_sum(entropy.detach(), mask), tokens),
                "clip_fraction": (masked_sum(clipped.float(), mask), tokens),
                "approx_kl": (masked_sum(moved, mask), tokens),
                "ratio_error": (masked_sum((torch.exp(logprobs.detach() - columns["old"]) - 1).abs(), mask), tokens),
            },
        )

    def valued(values: Tensor, mask: Tensor, columns: Mapping[str, Tensor]) -> Loss:
        errors = value_loss(values, columns["values"], columns["returns"], recipe.critic.clip)
        return Loss(recipe.critic.weight * masked_sum(errors, mask), float(mask.sum()), role="critic")

    def loss(batch: Groups) -> Iterator[Loss]:
        temperature = recipe.sampling.temperature
        mask, columns = batch.on(policy.trunk.precision.device)
        if recipe.critic.trunk == "own":
            yield actor(*policy(batch, temperature), mask, columns)
            yield valued(critic.values(batch), mask, columns)
            return
        logprobs, entropy, values = logprobs_and_values(policy, critic, batch, temperature)
        acted, seen = actor(logprobs, entropy, mask, columns), valued(values, mask, columns)
        apart = {"loss": (acted.total.detach(), acted.count), **acted.metrics}
        yield replace(acted, total=acted.total + seen.total, metrics=apart)
        yield replace(seen, total=seen.total.detach())  # its gradient came with the policy's

    return loss

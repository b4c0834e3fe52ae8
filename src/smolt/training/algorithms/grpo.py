"""Group-relative policy optimization (2402.03300): answers compete within their group, no critic.

Baseline and scale, reduction, and surrogate are three independent choices; RLOO is `advantage.baseline: leave_one_out`
with `kl.beta: 0`. Groups without signal are dropped and counted: they leave both the sum and the count.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolt.config import GRPORecipe
from smolt.data import Question
from smolt.models.groups import Groups, answer_sums, masked_sum
from smolt.models.roles import Policy
from smolt.training.fit import Loss, LossFunction
from smolt.training.mismatch import mismatch_parts
from smolt.training.objectives import kl, reduce_tokens, surrogate_loss
from smolt.training.online.group_advantages import GRPOPreparation
from smolt.training.online.rolling import open_stage
from smolt.training.online.rollouts import rollout_plan
from smolt.training.online.steps import corrected
from smolt.training.optimizers.parameter_groups import adapter_role
from smolt.training.stage import Training


def grpo(
    recipe: GRPORecipe | str | Path,
    questions: Sequence[Question | str] | None = None,
    *,
    reward: Callable[..., Any] | str | Sequence[Any] | Mapping[str, Any] | None = None,
    out: Path | None = None,
    fresh: bool = False,
    **fields: Any,
) -> Training:
    """GRPO of a recipe, or of a model path on questions in memory.

    Args:
        recipe: a recipe, or a model path or hub name with `questions` and recipe fields.
        questions: instead of `recipe.data`; a text is a question without a solution.
        reward: a function of (question, answer) to a number, instead of `recipe.reward`; with a path also what a recipe
            says there, such as "gsm8k".
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
        fields: recipe fields, when `recipe` is a path.
    """
    checked, rolling = open_stage(GRPORecipe, recipe, questions, reward, out, fresh, fields)
    policy = rolling.policy
    preparation = GRPOPreparation(checked, rolling, policy.as_reference() if checked.kl.beta else None)
    loss = grpo_loss(policy, checked, preparation.several)
    roles, again = {"policy": adapter_role(policy.parameters(), checked.lora)}, checked.advantage.resample
    plan = rollout_plan(rolling, checked.group, preparation, loss, roles, again)
    return Training(plan, out, fresh)


def grpo_loss(policy: Policy, recipe: GRPORecipe, several: bool) -> LossFunction:
    """Surrogate plus KL over a micro-batch. With one step a rollout the old policy is this one, and the ratio is 1."""
    dtype = policy.trunk.precision.dtype

    def loss(batch: Groups) -> Iterator[Loss]:
        logprobs, entropy = policy(batch, recipe.sampling.temperature)
        mask, columns = batch.on(logprobs.device)
        tokens, answers = float(mask.sum()), float(len(batch))
        old = columns["old"] if several else logprobs.detach()
        choice = recipe.surrogate
        terms, clipped = surrogate_loss(
            logprobs, old, columns["advantages"], mask, choice.name, choice.low, choice.high
        )
        terms, weights = corrected(terms, old, columns["sampled"], mask, recipe, dtype)
        metrics: dict[str, tuple[float | Tensor, float]] = {
            "entropy": (masked_sum(entropy.detach(), mask), tokens),
            "clip_fraction": (masked_sum(clipped.float(), mask), tokens),
            "ratio_error": (masked_sum((torch.exp(logprobs.detach() - old) - 1).abs(), mask), tokens),
            **weights,
        }
        spread: dict[str, Tensor] = {}
        if not several:
            spread, apart_from_sampler = mismatch_parts(columns["sampled"], old, mask)
            metrics |= apart_from_sampler
        if "reference" in columns:
            apart = logprobs.detach() - columns["reference"]
            metrics["kl"] = (answer_sums(apart, mask).sum(), answers)
            metrics["kl_k3"] = (masked_sum(kl(logprobs.detach(), columns["reference"], "k3"), mask), tokens)
            terms = terms + recipe.kl.beta * kl(logprobs, columns["reference"], recipe.kl.estimator)
        if choice.entropy:
            terms = terms - choice.entropy * entropy
        everyone = torch.ones(len(batch), dtype=torch.bool, device=logprobs.device)
        total, count = reduce_tokens(terms, mask, recipe.reduction, recipe.sampling.max_tokens, everyone)
        yield Loss(total, count, metrics, spread=spread)

    return loss

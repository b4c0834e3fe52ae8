"""The optimizer steps of one rollout: rows dealt out, old log-probabilities, importance weights, the KL's budget."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smolt import randomness
from smolt.config import GRPORecipe, PPORecipe
from smolt.models.groups import Groups, masked_sum, widen, without_gradient
from smolt.training.fit import Metrics
from smolt.training.mismatch import mismatch
from smolt.training.objectives import truncated_weights
from smolt.training.online.rolling import Rolling, RolloutRecipe


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
    rolling.check(groups, apart)
    return old, apart


def corrected(
    terms: Tensor,
    old: Tensor,
    sampled: Tensor,
    mask: Tensor,
    recipe: PPORecipe | GRPORecipe,
    dtype: torch.dtype,
) -> tuple[Tensor, dict[str, tuple[float | Tensor, float]]]:
    """A policy loss per token times its truncated importance weight, [B, T], and what the weights were, as metrics.

    `correction.weights: auto` weighs in half precision, and what a server drew; unweighted terms come back as they are,
    without metrics.
    """
    correction, differ = recipe.correction, dtype != torch.float32 or recipe.server is not None
    if correction.weights != "always" and not (correction.weights == "auto" and differ):
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

"""Direct preference optimization (2305.18290) and IPO (2310.12036): preferences without a reward model.

The reference is the policy as it was at step 0; its log-probabilities are computed once for each pair, when the stream
first comes to it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolt.config import DPORecipe
from smolt.data import Preference
from smolt.models.groups import Groups, answer_sums, join, without_gradient
from smolt.models.items import preference_items
from smolt.models.roles import Policy, open_policy
from smolt.models.saving import save_policy
from smolt.training.checks import same_policy
from smolt.training.fit import Loss, LossFunction
from smolt.training.objectives import dpo_sigmoid, ipo
from smolt.training.offline import dev_loss, open_lessons, plan_for
from smolt.training.stage import Training
from smolt.training.stage_input import in_memory, recipe_for


def dpo(
    recipe: DPORecipe | str | Path,
    preferences: Sequence[Preference] | None = None,
    *,
    out: Path | None = None,
    fresh: bool = False,
    **fields: Any,
) -> Training:
    """DPO of a recipe, or of a model path on preferences in memory.

    Args:
        recipe: a recipe, or a model path or hub name with `preferences` and recipe fields.
        preferences: instead of `recipe.data`.
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
        fields: recipe fields, when `recipe` is a path.
    """
    checked = recipe_for(DPORecipe, recipe, fields, data=in_memory(preferences))
    ground, lessons = open_lessons(checked, preferences, preference_items, out, fresh)
    policy = open_policy(ground.located, ground.precision, checked.lora, checked.seed)
    reference = policy.as_reference()

    def referred(groups: Groups) -> Groups:
        return reference_column(reference, plan.micro_tokens, groups)

    loss = dpo_loss(policy, checked)
    plan = plan_for(lessons, policy, loss, lambda directory: save_policy(policy, ground.renderer, directory), referred)
    plan.dev = dev_loss(plan, lessons.held_out, ("loss", "accuracy"), referred)
    plan.checks.append(lambda: same_policy(policy, reference, join(lessons.items[:2])))
    plan.facts |= length_gap(lessons.items)
    return Training(plan, out, fresh)


def length_gap(items: Sequence[Groups]) -> dict[str, float]:
    """Mean length of chosen minus rejected answers in tokens, and the share of pairs whose chosen one is longer."""
    gaps = torch.tensor([float(pair.lengths[0] - pair.lengths[1]) for pair in items])
    return {"length_gap": float(gaps.mean()), "chosen_longer": float((gaps > 0).float().mean())}


def reference_column(reference: Policy, micro_tokens: int, groups: Groups) -> Groups:
    """The groups with the reference's log-probabilities, [B, T]."""
    return groups.with_columns(reference=without_gradient(groups, micro_tokens, lambda part: reference(part)[0]))


def lead(logprobs: Tensor, batch: Groups, average: bool) -> tuple[Tensor, Tensor]:
    """Log pi - log ref of the chosen and of the rejected answers, [P] each: token sums, or averages for IPO."""
    mask = batch.mask.to(logprobs.device)
    ratio = answer_sums(logprobs - batch.columns["reference"].to(logprobs.device), mask)
    if average:
        ratio = ratio / mask.sum(dim=1)
    side = batch.columns["side"].to(logprobs.device)
    return ratio[side == 0], ratio[side == 1]


def dpo_loss(policy: Policy, recipe: DPORecipe) -> LossFunction:
    """Sum over the pairs of a micro-batch, and what should be watched together: log-probabilities, margin, accuracy."""

    def loss(batch: Groups) -> Iterator[Loss]:
        logprobs, _ = policy(batch)
        chosen, rejected = lead(logprobs, batch, average=recipe.loss == "ipo")
        side = batch.columns["side"].to(logprobs.device)
        weight = batch.columns["weight"].to(logprobs.device)[side == 0]
        if recipe.loss == "ipo":
            terms = ipo(chosen - rejected, recipe.beta, weight)
        else:
            terms = dpo_sigmoid(chosen - rejected, recipe.beta, weight, recipe.label_smoothing)
        pairs = float(len(terms))
        sums = answer_sums(logprobs.detach(), batch.mask.to(logprobs.device))
        margin = recipe.beta * (chosen - rejected).detach()
        yield Loss(
            terms.sum(),
            pairs,
            {
                "margin": (margin.sum(), pairs),
                "accuracy": ((margin > 0).float().sum(), pairs),
                "chosen_logprob": (sums[side == 0].sum(), pairs),
                "rejected_logprob": (sums[side == 1].sum(), pairs),
                "chosen_reward": (recipe.beta * chosen.detach().sum(), pairs),
                "rejected_reward": (recipe.beta * rejected.detach().sum(), pairs),
            },
        )

    return loss

"""Preferences without a reward model: DPO (2305.18290) and its kin, of which SimPO, ORPO and CPO need no reference.

The reference of the others is the policy as it was at step 0; its log-probabilities are computed once for each pair.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolt.config import DPORecipe
from smolt.data import Preference
from smolt.models.groups import Groups, answer_sums, join
from smolt.models.items import preference_items
from smolt.models.roles import Policy, open_policy
from smolt.models.saving import save_policy
from smolt.training.checks import same_policy
from smolt.training.fit import Loss, LossFunction
from smolt.training.objectives import dpo_sigmoid, ipo, log_odds, simpo
from smolt.training.offline import dev_loss, open_lessons, plan_for, reference_column
from smolt.training.stage import Training
from smolt.training.stage_input import in_memory, recipe_for

PER_TOKEN = ("ipo", "simpo", "orpo")
"""Losses of an answer's mean log-probability per token; the others take its sum."""


def dpo(
    recipe: DPORecipe | str | Path,
    preferences: Sequence[Preference] | None = None,
    *,
    out: Path | None = None,
    fresh: bool = False,
    **fields: Any,
) -> Training:
    """DPO, IPO, SimPO, ORPO or CPO of a recipe, or of a model path on preferences in memory.

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
    reference = None if checked.reference_free else policy.as_reference()

    def referred(groups: Groups) -> Groups:
        return groups if reference is None else reference_column(reference, plan.micro_tokens, groups)

    save, whole = partial(save_policy, policy, ground.renderer), imitation_column if checked.nll else None
    plan = plan_for(lessons, policy, dpo_loss(policy, checked), save, referred, whole)
    plan.dev = dev_loss(plan, lessons.held_out, ("loss", "accuracy"), referred, whole)
    if reference is not None:
        plan.checks.append(partial(same_policy, policy, reference, join(lessons.items[:2])))
    plan.facts |= length_gap(lessons.items)
    return Training(plan, out, fresh)


def length_gap(items: Sequence[Groups]) -> dict[str, float]:
    """Mean length of chosen minus rejected answers in tokens, and the share of pairs whose chosen one is longer."""
    gaps = torch.tensor([float(pair.lengths[0] - pair.lengths[1]) for pair in items])
    return {"length_gap": float(gaps.mean()), "chosen_longer": float((gaps > 0).float().mean())}


def imitation_column(groups: Groups) -> Groups:
    """All pairs of an update, with what each answer's NLL counts there, [B]: times it, summed, divided by the pairs.

    That is the mean over all tokens of the better answers, so it does not depend on the cut into micro-batches. An
    answer counts by the probability that it is the better one.
    """
    weight = groups.columns["weight"]
    better = torch.where(groups.columns["side"] == 0, weight, 1 - weight)
    return groups.with_columns(imitation=better * len(groups) / 2 / (better * groups.lengths).sum())


def dpo_loss(policy: Policy, recipe: DPORecipe) -> LossFunction:
    """Sum over the pairs of a micro-batch, and what should be watched together: log-probabilities, margin, accuracy."""

    def loss(batch: Groups) -> Iterator[Loss]:
        logprobs, _ = policy(batch)
        mask, columns = batch.mask.to(logprobs.device), {k: v.to(logprobs.device) for k, v in batch.columns.items()}
        sums, first = answer_sums(logprobs, mask), columns["side"] == 0
        values = sums if recipe.reference_free else answer_sums(logprobs - columns["reference"], mask)
        if recipe.loss in PER_TOKEN:
            values = values / mask.sum(dim=1)
        chosen, rejected = values[first], values[~first]
        terms = pair_terms(chosen, rejected, columns["weight"][first], recipe)
        pairs, total = float(len(terms)), terms.sum()
        seen = {"chosen_logprob": sums[first], "rejected_logprob": sums[~first]}
        seen |= {"chosen_reward": recipe.beta * chosen, "rejected_reward": recipe.beta * rejected}
        seen |= {"margin": recipe.beta * (chosen - rejected), "accuracy": (chosen > rejected).float()}
        each = terms
        if recipe.nll:
            imitation = -columns["imitation"] * sums
            total = total + recipe.nll * imitation.sum()
            seen |= {"pair_loss": terms, "nll": imitation}
            each = terms + recipe.nll * (imitation[first] + imitation[~first])
        metrics = {name: (value.detach().sum(), pairs) for name, value in seen.items()}
        yield Loss(total, pairs, metrics, each=(each, torch.ones_like(each)))

    return loss


def pair_terms(chosen: Tensor, rejected: Tensor, weight: Tensor, recipe: DPORecipe) -> Tensor:
    """The loss of each pair, [P], from its answers' log-probabilities or log-ratios: sums, or means `PER_TOKEN`."""
    if recipe.loss == "ipo":
        return ipo(chosen - rejected, recipe.beta, weight)
    if recipe.loss == "simpo":
        return simpo(chosen - rejected, recipe.beta, recipe.gamma, weight)
    if recipe.loss == "orpo":
        return recipe.beta * dpo_sigmoid(log_odds(chosen) - log_odds(rejected), 1.0, weight)
    return dpo_sigmoid(chosen - rejected, recipe.beta, weight, recipe.label_smoothing)

"""Preferences without a reward model: DPO (2305.18290) and its kin, of which SimPO, ORPO and CPO need no reference.

The reference of the others is the policy as it was at step 0; its log-probabilities are computed once for each pair.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from smolt.config import DPORecipe
from smolt.data import Preference
from smolt.models.groups import Groups, join
from smolt.models.items import preference_items
from smolt.models.roles import open_policy
from smolt.models.saving import save_policy
from smolt.training.checks import same_policy
from smolt.training.offline import dev_loss, dpo_loss, open_lessons, plan_for, reference_column
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

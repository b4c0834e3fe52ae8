"""Kahneman-Tversky optimization (2402.01306): answers that are desirable or not, without pairs.

An answer's log-ratio is compared with the KL to the reference, which is estimated on every update: each context of it
is read with the answer of another record of it. The reference is the policy as it was at step 0.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolt.config import KTORecipe
from smolt.data import Feedback, Preference
from smolt.models.groups import Groups, answer_sums, join, without_gradient
from smolt.models.items import feedback_items
from smolt.models.roles import Policy, open_policy
from smolt.models.saving import save_policy
from smolt.training.checks import balance_of_feedback, same_policy
from smolt.training.fit import Loss, LossFunction
from smolt.training.objectives import kahneman_tversky
from smolt.training.offline import dev_loss, open_lessons, plan_for, reference_column
from smolt.training.stage import Training
from smolt.training.stage_input import in_memory, recipe_for


def kto(
    recipe: KTORecipe | str | Path,
    feedback: Sequence[Feedback | Preference] | None = None,
    *,
    out: Path | None = None,
    fresh: bool = False,
    **fields: Any,
) -> Training:
    """KTO of a recipe, or of a model path on feedback in memory.

    Args:
        recipe: a recipe, or a model path or hub name with `feedback` and recipe fields.
        feedback: instead of `recipe.data`; a preference is a desirable and an undesirable answer.
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
        fields: recipe fields, when `recipe` is a path.
    """
    checked = recipe_for(KTORecipe, recipe, fields, data=in_memory(feedback))
    ground, lessons = open_lessons(checked, feedback, feedback_items, out, fresh)
    policy = open_policy(ground.located, ground.precision, checked.lora, checked.seed)
    reference = policy.as_reference()

    def referred(groups: Groups) -> Groups:
        return reference_column(reference, plan.micro_tokens, groups)

    def whole(groups: Groups) -> Groups:
        return kl_column(policy, reference, mismatched(groups, ground.window), plan.micro_tokens, groups)

    save = partial(save_policy, policy, ground.renderer)
    plan = plan_for(lessons, policy, kto_loss(policy, checked), save, referred, whole)
    plan.dev = dev_loss(plan, lessons.held_out, ("loss", "accuracy"), referred, whole)
    plan.checks.append(partial(same_policy, policy, reference, join(lessons.items[:2])))
    plan.facts |= balance_of_feedback(lessons.items, checked.desirable_weight, checked.undesirable_weight)
    return Training(plan, out, fresh)


def mismatched(groups: Groups, window: int) -> Groups:
    """The contexts of an update, each with the answer of the record before it, cut where it exceeds the window."""
    answers = (*groups.answers[-1:], *groups.answers[:-1])
    contexts = [groups.contexts[owner] for owner in groups.owners]
    fitting = tuple(answer[: window - len(context)] for context, answer in zip(contexts, answers, strict=True))
    return Groups(groups.contexts, fitting, groups.owners, torch.zeros(len(groups), dtype=torch.bool))


def kl_column(policy: Policy, reference: Policy, others: Groups, micro_tokens: int, groups: Groups) -> Groups:
    """The groups with the mean log-ratio of other answers to their contexts, not below 0, as a column `kl`, [B]."""

    def ratio(part: Groups) -> Tensor:
        logprobs = policy(part)[0]
        return answer_sums(logprobs - reference(part)[0], part.mask.to(logprobs.device))

    kl = without_gradient(others, micro_tokens, ratio).mean().clamp(min=0)
    return groups.with_columns(kl=kl.expand(len(groups)))


def kto_loss(policy: Policy, recipe: KTORecipe) -> LossFunction:
    """Sum over the answers of a micro-batch, and of each kind apart: loss, reward, log-probability."""

    def loss(batch: Groups) -> Iterator[Loss]:
        logprobs, _ = policy(batch)
        mask, columns = batch.on(logprobs.device)
        ratio, kl, desirable = answer_sums(logprobs - columns["reference"], mask), columns["kl"], columns["desirable"]
        terms = kahneman_tversky(ratio, kl, desirable, recipe.beta, recipe.desirable_weight, recipe.undesirable_weight)
        count, right = float(len(terms)), (ratio > kl) == desirable
        told = ratio != kl  # where they are equal, as before the first step, an answer is on neither side
        metrics = {"kl": (kl.sum(), count), "accuracy": (right[told].float().sum(), float(told.sum()))}
        seen = {"loss": terms, "reward": recipe.beta * ratio, "logprob": answer_sums(logprobs, mask)}
        for kind, rows in (("desirable", desirable), ("undesirable", ~desirable)):
            metrics |= {f"{kind}_{name}": (v.detach()[rows].sum(), float(rows.sum())) for name, v in seen.items()}
        yield Loss(terms.sum(), count, metrics, each=(terms, torch.ones_like(terms)))

    return loss

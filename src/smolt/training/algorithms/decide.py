"""Typed decisions: the probabilities of a question's options, learned by a proper score (cross-entropy, or Brier).

A question is read once, where its prompt ends; the labels of its options are its only possible answers. What comes out
is a directory that transformers' `pipeline("decision")` loads, with temperatures that were fitted on dev data.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from smolt.config import DecideRecipe
from smolt.data import Decision
from smolt.data.decisions import TYPES
from smolt.errors import SelfCheckError
from smolt.models.ground import Ground
from smolt.models.groups import Groups, join, without_gradient
from smolt.models.items import decision_items
from smolt.models.rendering.decision_settings import trainable_settings
from smolt.models.rendering.option_scores import option_scores
from smolt.models.roles import Policy, open_policy
from smolt.models.saving import save_decider
from smolt.statistics.proper_scores import fitted_temperature
from smolt.training.fit import Loss, LossFunction
from smolt.training.objectives import brier, cross_entropy
from smolt.training.offline import dev_loss, open_lessons, plan_for
from smolt.training.stage import Training
from smolt.training.stage_input import in_memory, recipe_for

TERMS = {"cross_entropy": cross_entropy, "brier": brier}


def decide(
    recipe: DecideRecipe | str | Path,
    decisions: Sequence[Decision] | None = None,
    *,
    out: Path | None = None,
    fresh: bool = False,
    **fields: Any,
) -> Training:
    """Training on decisions of a recipe, or of a model path on decisions in memory.

    Args:
        recipe: a recipe, or a model path or hub name with `decisions` and recipe fields.
        decisions: instead of `recipe.data`; each question says what is expected.
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
        fields: recipe fields, when `recipe` is a path.
    """
    checked = recipe_for(DecideRecipe, recipe, fields, data=in_memory(decisions))
    ground, lessons = open_lessons(checked, decisions, decision_items, out, fresh)
    policy = open_policy(ground.located, ground.precision, checked.lora, checked.seed)
    lessons = replace(lessons, checks=[lambda: finite(policy, join(lessons.items[:2]))])
    calibration = Calibration(policy, ground, lessons.held_out, checked)
    plan = plan_for(lessons, policy, decide_loss(policy, checked), calibration.save)
    plan.dev = dev_loss(plan, lessons.held_out, ("loss", "accuracy", "brier"))
    plan.finish = calibration.fit
    plan.facts |= {"questions": sum(len(item) for item in lessons.items)}
    return Training(plan, out, fresh)


def finite(policy: Policy, groups: Groups) -> None:
    """Every option has a probability.

    Raises:
        SelfCheckError: one has none.
    """
    with torch.no_grad():
        found = option_scores(policy, groups)
    if not bool(found[groups.columns["labels"][:, :, 0].to(found.device) >= 0].isfinite().all()):
        raise SelfCheckError("an option of the first decisions has no finite probability (damaged weights?)")


def decide_loss(policy: Policy, recipe: DecideRecipe) -> LossFunction:
    """Sum over the questions of a micro-batch, and how many are answered as expected."""

    def loss(batch: Groups) -> Iterator[Loss]:
        scores = option_scores(policy, batch)
        expected, count = batch.columns["expected"][:, :, 0].to(scores.device), float(len(batch))
        terms = TERMS[recipe.loss](scores, expected)
        right = expected.gather(1, scores.argmax(dim=1, keepdim=True))[:, 0] == expected.amax(dim=1)
        seen = {"accuracy": right.float(), "brier": brier(scores.detach(), expected)}
        metrics = {name: (values.sum(), count) for name, values in seen.items()}
        yield Loss(terms.sum(), count, metrics, each=(terms, torch.ones_like(terms)))

    return loss


@dataclass
class Calibration:
    """The temperatures of a finished model, fitted on its dev decisions, and its way to the disk."""

    policy: Policy
    ground: Ground
    held_out: Sequence[Groups]
    recipe: DecideRecipe
    temperature: Mapping[str, float] | None = None

    def fit(self) -> dict[str, Any]:
        """For each type of question the temperature of the least log score on dev; too few questions have none."""
        found: dict[str, float] = {}
        if self.held_out and self.recipe.calibrate:
            groups = join(self.held_out)
            tokens = self.policy.trunk.micro_tokens(self.recipe.budget.memory)
            scores = without_gradient(groups, tokens, lambda part: option_scores(self.policy, part)[:, :, None])
            for number, kind in enumerate(TYPES):
                own = groups.columns["type"] == number
                value = fitted_temperature(scores[own, :, 0].tolist(), groups.columns["expected"][own, :, 0].tolist())
                found |= {} if value is None else {kind: round(value, 4)}
        self.temperature = found
        return {"temperature": found}

    def save(self, directory: Path) -> None:
        """A directory that `pipeline("decision")` loads."""
        renderer, temperature = self.ground.renderer, dict(self.temperature or {})
        save_decider(self.policy, renderer, replace(trainable_settings(renderer), temperature=temperature), directory)

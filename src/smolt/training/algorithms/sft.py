"""Supervised fine-tuning: -sum of the answers' log-probabilities, divided by the answer tokens of the update.

Only assistant tokens count, the end-of-turn token included; a prompt token cannot, for Groups have no entry for it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smolt.config import SFTRecipe
from smolt.data import Demonstration
from smolt.models.items import demonstration_items
from smolt.models.roles import open_policy
from smolt.models.saving import save_policy
from smolt.training.offline import dev_loss, open_lessons, plan_for, sft_loss
from smolt.training.stage import Training
from smolt.training.stage_input import in_memory, recipe_for


def sft(
    recipe: SFTRecipe | str | Path,
    demonstrations: Sequence[Demonstration] | None = None,
    *,
    out: Path | None = None,
    fresh: bool = False,
    seconds: float | None = None,
    **fields: Any,
) -> Training:
    """Supervised fine-tuning of a recipe, or of a model path on demonstrations in memory.

    Args:
        recipe: a recipe, or a model path or hub name with `demonstrations` and recipe fields.
        demonstrations: instead of `recipe.data`.
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
        seconds: train for so long instead of `recipe.budget` (a study's `budget.like`).
        fields: recipe fields, when `recipe` is a path.
    """
    checked = recipe_for(SFTRecipe, recipe, fields, data=in_memory(demonstrations))
    ground, lessons = open_lessons(checked, demonstrations, demonstration_items, out, fresh)
    policy = open_policy(ground.located, ground.precision, checked.lora, checked.seed)
    loss = sft_loss(policy)
    plan = plan_for(lessons, policy, loss, lambda directory: save_policy(policy, ground.renderer, directory))
    plan.dev = dev_loss(plan, lessons.held_out)
    plan.seconds = seconds
    return Training(plan, out, fresh)

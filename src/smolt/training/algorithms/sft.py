"""Supervised fine-tuning: -sum of the answers' log-probabilities, divided by the answer tokens of the update.

Only assistant tokens count, the end-of-turn token included; a prompt token cannot, for Groups have no entry for it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smolt.config import Budget, SFTRecipe
from smolt.data import Demonstration
from smolt.models.ground import Ground, open_ground
from smolt.models.groups import join, masked_sum, without_gradient
from smolt.models.items import demonstration_items
from smolt.models.roles import Policy, open_policy
from smolt.models.saving import save_policy
from smolt.training.checks import answer_tokens_only, forward_facts
from smolt.training.clock import seconds_of
from smolt.training.fit import Learner, Role
from smolt.training.memory.outlook import look_at_rows
from smolt.training.offline import sft_loss
from smolt.training.stage import Dev, Plan, Training
from smolt.training.stage_input import in_memory, recipe_for, settled
from smolt.training.streams import Rows, updates_of


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
    ground = open_ground(settled(checked.model, out, fresh))
    train = demonstration_items(demonstrations or checked.data, ground.renderer, ground.window)
    outlook = look_at_rows(checked, ground, train.items)
    policy = open_policy(ground.located, ground.precision, checked.lora, checked.seed)
    micro_tokens = policy.trunk.settle(checked.budget, train.items)
    total = updates_of(checked.budget, len(train.items), checked.batch)
    learner = Learner({"policy": Role(policy.parameters())}, checked.optim, total)
    loss = sft_loss(policy)
    return Training(
        Plan(
            stage="sft",
            recipe=checked,
            identity={**ground.identity, "data": train.sha256},
            stream=Rows(train.items, checked.batch, total, checked.seed),
            loss=loss,
            learner=learner,
            micro_tokens=micro_tokens,
            save=lambda directory: save_policy(policy, ground.renderer, directory),
            result=policy,
            checks=[lambda: answer_tokens_only(train.items, ground.renderer)],
            dev=dev_loss(policy, ground, checked),
            facts={**forward_facts(policy.trunk), "records": len(train.items), "too_long": train.dropped},
            outlook=outlook,
            seconds=seconds if seconds is not None else seconds_of(checked.budget),
        ),
        out,
        fresh,
    )


def dev_loss(policy: Policy, ground: Ground, recipe: SFTRecipe) -> Dev | None:
    """Loss in nats per token on held-out demonstrations."""
    if recipe.dev is None:
        return None
    items = demonstration_items(recipe.dev, ground.renderer, ground.window).items[: recipe.watch.items]
    groups, budget = join(items), Budget(memory=recipe.budget.memory)

    def measure() -> dict[str, float]:
        logprobs = without_gradient(groups, policy.trunk.micro_tokens(budget.memory), lambda part: policy(part)[0])
        return {"loss": -float(masked_sum(logprobs.double(), groups.mask)) / int(groups.lengths.sum())}

    return Dev(measure, "loss", "min")

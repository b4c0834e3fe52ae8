"""Reward model: Bradley-Terry on preferences (2203.02155), read at the stop token.

It is audited on held-out pairs (see smolt.rewards.audit), and one that is not shown to be better than what needs no
model (a constant, the longer answer, the shorter answer) is marked as refused: PPO will not start on it unless told to.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from smolt.config import RewardRecipe
from smolt.data import Preference
from smolt.models.groups import Groups
from smolt.models.items import preference_items
from smolt.models.roles import Scorer
from smolt.models.saving import open_scorer
from smolt.rewards.audit.seen_pairs import hold_out
from smolt.training.examination import Examination, compared
from smolt.training.fit import Loss, LossFunction
from smolt.training.offline import led, open_lessons, plan_for
from smolt.training.plan import Dev
from smolt.training.stage import Training
from smolt.training.stage_input import in_memory, recipe_for


def reward_model(
    recipe: RewardRecipe | str | Path,
    preferences: Sequence[Preference] | None = None,
    *,
    out: Path | None = None,
    fresh: bool = False,
    **fields: Any,
) -> Training:
    """A reward model of a recipe, or of a model path on preferences in memory.

    Args:
        recipe: a recipe, or a model path or hub name with `preferences` and recipe fields.
        preferences: instead of `recipe.data`.
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
        fields: recipe fields, when `recipe` is a path.
    """
    checked = recipe_for(RewardRecipe, recipe, fields, data=in_memory(preferences))
    ground, lessons = open_lessons(checked, preferences, preference_items, out, fresh, hold_out)
    scorer = open_scorer(ground.located, ground.precision, checked.lora, checked.seed)
    examination = Examination(scorer, ground, lessons.items, lessons.held_out, checked)
    plan = plan_for(lessons, scorer, reward_loss(scorer, checked), examination.save)
    plan.dev = Dev(examination.figures, "accuracy", "max", len(examination.held_out))
    plan.finish = examination.report
    return Training(plan, out, fresh)


def reward_loss(scorer: Scorer, recipe: RewardRecipe) -> LossFunction:
    """Sum over the pairs of a micro-batch."""

    def loss(batch: Groups) -> Iterator[Loss]:
        terms, chosen, rejected = compared(scorer.verdicts(batch), batch, recipe)
        pairs = float(len(terms))
        metrics = {
            "accuracy": led(chosen, rejected),
            "margin": ((chosen - rejected).detach().sum(), pairs),
            "score": ((chosen + rejected).detach().sum() / 2, pairs),
        }
        yield Loss(terms.sum(), pairs, metrics, role="reward")

    return loss

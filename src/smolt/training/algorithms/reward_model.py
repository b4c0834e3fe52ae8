"""Reward model: Bradley-Terry on preferences (2203.02155), read at the stop token.

It is audited on held-out pairs (see smolt.rewards.audit), and one that is not shown to be better than what needs no
model (a constant, the longer answer, the shorter answer) is marked as refused: PPO will not start on it unless told to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from smolt import randomness
from smolt.config import RewardRecipe
from smolt.data import Preference
from smolt.models.ground import Ground, open_ground
from smolt.models.groups import Groups, join, without_gradient
from smolt.models.items import preference_items
from smolt.models.roles import Scorer
from smolt.models.saving import open_scorer, save_scorer
from smolt.report.panels import panel_name
from smolt.rewards.audit.audit_panel import audit_panel, called
from smolt.rewards.audit.auditing import audit, leads_of
from smolt.rewards.audit.figures import calibration_error
from smolt.training.checks import answer_tokens_only, forward_facts
from smolt.training.clock import seconds_of
from smolt.training.fit import Learner, Loss, LossFunction, Role
from smolt.training.memory.outlook import look_at_rows
from smolt.training.objectives import bradley_terry
from smolt.training.stage import Dev, Plan, Training
from smolt.training.stage_input import in_memory, recipe_for, settled
from smolt.training.streams import Rows, updates_of

HELD_OUT = 10  # without dev data, one pair in so many is held out


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
    ground = open_ground(settled(checked.model, out, fresh))
    train = preference_items(preferences or checked.data, ground.renderer, ground.window)
    if checked.dev is not None:
        learned, held_out = train.items, preference_items(checked.dev, ground.renderer, ground.window).items
    else:
        learned, held_out = hold_out(train.items, checked.seed)
    held_out = held_out[: checked.watch.items]
    outlook = look_at_rows(checked, ground, learned)
    scorer = open_scorer(ground.located, ground.precision, checked.lora, checked.seed)
    total = updates_of(checked.budget, len(learned), checked.batch)
    micro_tokens = scorer.trunk.settle(checked.budget, learned)
    examination = Examination(scorer, ground, learned, held_out, checked, micro_tokens)

    def save(directory: Path) -> None:
        shown = join(learned[:512])
        shift = float(without_gradient(shown, micro_tokens, scorer.verdicts).mean())
        save_scorer(scorer, ground.renderer, directory, {"shift": shift, "refused": examination.refused})

    return Training(
        Plan(
            stage="reward",
            recipe=checked,
            identity={**ground.identity, "data": train.sha256},
            stream=Rows(learned, checked.batch, total, checked.seed),
            loss=reward_loss(scorer, checked),
            learner=Learner({"reward": Role(scorer.parameters())}, checked.optim, total),
            micro_tokens=micro_tokens,
            save=save,
            result=scorer,
            checks=[lambda: answer_tokens_only(train.items, ground.renderer)],
            dev=Dev(examination.figures, "accuracy", "max"),
            finish=examination.report,
            facts={**forward_facts(scorer.trunk), "records": len(train.items), "too_long": train.dropped},
            outlook=outlook,
            seconds=seconds_of(checked.budget),
        ),
        out,
        fresh,
    )


def hold_out(items: list[Groups], seed: int) -> tuple[list[Groups], list[Groups]]:
    """A tenth of the pairs, at least one, kept for measurement."""
    order = randomness.permutation(len(items), seed, HELD_OUT)
    size = max(1, len(items) // HELD_OUT)
    return [items[index] for index in order[size:]] or items, [items[index] for index in order[:size]]


def reward_loss(scorer: Scorer, recipe: RewardRecipe) -> LossFunction:
    """Sum over the pairs of a micro-batch."""

    def loss(batch: Groups) -> Iterator[Loss]:
        chosen, rejected, weight = sides(scorer.verdicts(batch), batch)
        terms = bradley_terry(chosen, rejected, weight, recipe.margin, recipe.centering)
        pairs = float(len(terms))
        metrics = {
            "accuracy": ((chosen > rejected).float().sum(), pairs),
            "margin": ((chosen - rejected).detach().sum(), pairs),
            "score": ((chosen + rejected).detach().sum() / 2, pairs),
        }
        yield Loss(terms.sum(), pairs, metrics, role="reward")

    return loss


def sides(scores: Tensor, batch: Groups) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the chosen and of the rejected answers and the pairs' weights, [P] each."""
    side = batch.columns["side"].to(scores.device)
    return scores[side == 0], scores[side == 1], batch.columns["weight"].to(scores.device)[side == 0]


@dataclass
class Examination:
    """The held-out pairs of a training, and what its gate said of the finished model."""

    scorer: Scorer
    ground: Ground
    learned: list[Groups]
    held_out: list[Groups]
    recipe: RewardRecipe
    micro_tokens: int
    refused: str | None = None

    def figures(self) -> dict[str, float]:
        """Accuracy, loss and calibration error, for the record of a training."""
        leads = leads_of(self.scorer, join(self.held_out), self.micro_tokens)
        return {
            "accuracy": float((leads > 0).mean()),
            "loss": float(np.logaddexp(0, -leads).mean()),
            "ece": calibration_error(leads),
        }

    def report(self) -> dict[str, Any]:
        """The whole audit of the finished model, with its panel; the gate decides here."""
        ground = self.ground
        found = audit(
            self.scorer,
            ground.renderer,
            join(self.held_out),
            window=ground.window,
            micro_tokens=self.micro_tokens,
            learned=self.learned,
        )
        self.refused = found.refused if self.recipe.gate else None
        name = self.recipe.name
        panel = audit_panel(found, panel_name(f"audit-{name}"), f"The {called(name)} on held-out pairs")
        return {**found.facts(), "refused": self.refused, "panels": [asdict(panel)]}

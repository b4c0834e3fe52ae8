"""How a reward model is measured while it learns, and whether its gate lets the finished one through."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from smolt.config import RewardRecipe
from smolt.models.ground import Ground
from smolt.models.groups import Groups, join, without_gradient
from smolt.models.items import preference_items
from smolt.models.roles import Scorer
from smolt.models.saving import save_scorer
from smolt.report.panels import panel_name
from smolt.rewards.audit.audit_panel import audit_panel, called
from smolt.rewards.audit.auditing import audit
from smolt.rewards.audit.figures import calibration_error
from smolt.rewards.audit.seen_pairs import hold_out
from smolt.training.objectives import bradley_terry
from smolt.training.offline import interval_of_loss

LOG = logging.getLogger(__name__)
CENTERED = 64  # pairs whose mean score is left out of every reward: it moves all rewards alike, so few are enough


def held_out_pairs(recipe: RewardRecipe, ground: Ground, items: list[Groups]) -> list[Groups]:
    """The pairs that a training of all `items` is measured on."""
    if recipe.dev is None:
        return hold_out(items, recipe.seed)[1][: recipe.watch.items]
    return preference_items(recipe.dev, ground.renderer, ground.window).items[: recipe.watch.items]


def compared(scores: Tensor, batch: Groups, recipe: RewardRecipe) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of each pair, and the scores of its chosen and its rejected answer, [P] each."""
    side = batch.columns["side"].to(scores.device)
    chosen, rejected = scores[side == 0], scores[side == 1]
    weight = batch.columns["weight"].to(scores.device)[side == 0]
    return bradley_terry(chosen, rejected, weight, recipe.margin, recipe.centering), chosen, rejected


@dataclass
class Examination:
    """The held-out pairs of a training, and what its gate said of the finished model."""

    scorer: Scorer
    ground: Ground
    learned: list[Groups]
    held_out: list[Groups]
    recipe: RewardRecipe
    refused: str | None = None

    @property
    def micro_tokens(self) -> int:
        """Packed tokens of one forward."""
        return self.scorer.trunk.micro_tokens(self.recipe.budget.memory)

    def figures(self) -> dict[str, float]:
        """Accuracy, the training's own loss and calibration error, for the record of a training."""
        groups = join(self.held_out)
        scores = without_gradient(groups, self.micro_tokens, self.scorer.verdicts).double()
        terms, chosen, rejected = compared(scores, groups, self.recipe)
        leads = (chosen - rejected).numpy()
        pairs = [pair.contexts[0] for pair in self.held_out]
        return {
            "accuracy": float((leads > 0).mean()),
            "loss": float(terms.mean()),
            **interval_of_loss(terms.tolist(), [1.0] * len(pairs), pairs),
            "ece": calibration_error(leads),
        }

    def save(self, directory: Path) -> None:
        """Write the model, with the mean score of answers it learned from and what its gate said."""
        LOG.info("scoring answers of the training, for the mean that is left out of every reward")
        shift = float(without_gradient(join(self.learned[:CENTERED]), self.micro_tokens, self.scorer.verdicts).mean())
        save_scorer(self.scorer, self.ground.renderer, directory, {"shift": shift, "refused": self.refused})

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

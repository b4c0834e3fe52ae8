"""Reward model: Bradley-Terry on preferences (2203.02155), read at the stop token.

It is measured on held-out pairs against what needs no model (a constant, the longer answer, the shorter answer), and
one that is not better is marked as refused: PPO will not start on it unless told to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolt import counters
from smolt.checks import answer_tokens_only, forward_facts
from smolt.config import RewardRecipe
from smolt.fitting import Learner, Loss, LossFunction, Role
from smolt.groups import Groups, join, without_gradient
from smolt.models import Scorer
from smolt.numerics import bradley_terry
from smolt.preparation import in_memory, open_ground, preference_items, recipe_for
from smolt.records import Preference
from smolt.saving import open_scorer, save_scorer
from smolt.statistics import wilson
from smolt.streams import Rows, updates_of
from smolt.training import Dev, Plan, Training, seconds_of

HELD_OUT = 10  # without dev data, one pair in so many is held out
BINS = 10


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
    ground = open_ground(checked.model)
    train = preference_items(preferences or checked.data, ground.renderer, ground.window)
    if checked.dev is not None:
        learned, held_out = train.items, preference_items(checked.dev, ground.renderer, ground.window).items
    else:
        learned, held_out = hold_out(train.items, checked.seed)
    held_out = held_out[: checked.watch.items]
    scorer = open_scorer(ground.located, ground.precision, checked.lora, checked.seed)
    total = updates_of(checked.budget, len(learned), checked.batch)
    micro_tokens = scorer.trunk.micro_tokens(checked.budget.memory)
    audit = Audit(scorer, join(held_out), micro_tokens, checked.gate)

    def save(directory: Path) -> None:
        shown = join(learned[:512])
        shift = float(without_gradient(shown, micro_tokens, scorer.verdicts).mean())
        save_scorer(scorer, ground.renderer, directory, {"shift": shift, "refused": audit.refusal()})

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
            dev=Dev(audit.figures, "accuracy", "max"),
            finish=audit.report,
            facts={**forward_facts(scorer.trunk), "records": len(train.items), "too_long": train.dropped},
            seconds=seconds_of(checked.budget),
        ),
        out,
        fresh,
    )


def hold_out(items: list[Groups], seed: int) -> tuple[list[Groups], list[Groups]]:
    """A tenth of the pairs, at least one, kept for measurement."""
    order = counters.permutation(len(items), seed, HELD_OUT)
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
class Audit:
    """Held-out figures of a reward model beside what needs no model."""

    scorer: Scorer
    pairs: Groups
    micro_tokens: int
    gate: bool

    def _lead(self) -> Tensor:
        chosen, rejected, _ = sides(without_gradient(self.pairs, self.micro_tokens, self.scorer.verdicts), self.pairs)
        return chosen - rejected

    def figures(self) -> dict[str, float]:
        """Accuracy, loss and calibration error, for the record of a training."""
        lead = self._lead().double()
        loss = -torch.nn.functional.logsigmoid(lead).mean()
        return {"accuracy": float((lead > 0).double().mean()), "loss": float(loss), "ece": calibration_error(lead)}

    def baselines(self) -> dict[str, float]:
        """Accuracy of a constant and of length alone, on the same pairs."""
        lengths = self.pairs.lengths.double()
        chosen, rejected, _ = sides(lengths, self.pairs)
        longer = ((chosen > rejected).double() + 0.5 * (chosen == rejected).double()).mean()
        return {"constant": 0.5, "longer": float(longer), "shorter": 1 - float(longer)}

    def refusal(self) -> str | None:
        """Why PPO should not start on this model, or None."""
        accuracy, known = self.figures()["accuracy"], self.baselines()
        best = max(known, key=lambda name: known[name])
        if not self.gate or accuracy > known[best]:
            return None
        return f"held-out accuracy {accuracy:.1%} is not above the baseline '{best}' ({known[best]:.1%})"

    def report(self) -> dict[str, Any]:
        """Accuracy with interval, by length gap, calibration, baselines, gate."""
        lead = self._lead()
        chosen, rejected, _ = sides(self.pairs.lengths, self.pairs)
        gap = chosen - rejected
        parts = {"chosen longer": gap > 0, "same length": gap == 0, "chosen shorter": gap < 0}
        return {
            "accuracy": measure(lead),
            "by_length_gap": {name: measure(lead[rows]) for name, rows in parts.items() if bool(rows.any())},
            "ece": calibration_error(lead.double()),
            "baselines": self.baselines(),
            "refused": self.refusal(),
        }


def measure(lead: Tensor) -> dict[str, Any]:
    """Share of pairs whose chosen answer leads, with Wilson's interval."""
    right, n = int((lead > 0).sum()), len(lead)
    low, high = wilson(right, n)
    return {"value": right / n, "low": low, "high": high, "n": n}


def calibration_error(lead: Tensor) -> float:
    """Expected calibration error of the predicted probability that the preferred side is preferred, in ten bins."""
    confidence = torch.sigmoid(lead.abs())
    right = (lead > 0).double()
    place = ((confidence - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    gaps = [
        (place == number).double().mean() * (confidence[place == number].mean() - right[place == number].mean()).abs()
        for number in place.unique()
    ]
    return float(torch.stack(gaps).sum())

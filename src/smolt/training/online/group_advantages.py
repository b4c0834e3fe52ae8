"""Answers that compete within their group (2402.03300): advantages, groups without signal, log-probabilities before."""

from typing import Any

import torch
from torch import Tensor

from smolt.config import GRPORecipe
from smolt.models.groups import Groups, without_gradient
from smolt.models.roles import Policy
from smolt.training.fit import Metrics, Update
from smolt.training.mismatch import check_first_ratio
from smolt.training.objectives import group_advantages
from smolt.training.online.rolling import Rolling
from smolt.training.online.steps import dealt, old_logprobs, over_budget


class GRPOPreparation:
    """From answers and rewards to optimizer steps: advantages, dropped groups, reference and old log-probabilities."""

    def __init__(self, recipe: GRPORecipe, rolling: Rolling, reference: Policy | None) -> None:
        self.recipe = recipe
        self.rolling = rolling
        self.reference = reference
        self.several = recipe.inner.epochs * recipe.inner.minibatches > 1
        self.state: dict[str, Any] = {}

    def __call__(self, groups: Groups, rewards: Tensor, number: int) -> Update:
        """The optimizer steps of one rollout."""
        recipe, temperature, tokens = self.recipe, self.recipe.sampling.temperature, self.rolling.micro_tokens
        owners = torch.tensor(groups.owners)
        choice = recipe.advantage
        advantages, keep = group_advantages(rewards, owners, choice.baseline, choice.scale, recipe.keep_empty_groups)
        if recipe.truncated == "mask":
            keep &= groups.stopped
        metrics = signal_metrics(rewards, owners, keep)
        rows = keep.nonzero()[:, 0].tolist()
        if not rows:  # nothing is computed, so the KL is not measured
            return Update([], metrics if self.reference is None else {**metrics, "kl": None})
        kept = groups.with_columns(advantages=advantages).select(rows)
        if self.reference is not None:
            reference = self.reference
            named = f"log-probabilities under the reference, update {number + 1}"
            column = without_gradient(kept, tokens, lambda part: reference(part, temperature)[0], named)
            kept = kept.with_columns(reference=column)
        units = [
            [row for row, owner in enumerate(kept.owners) if owner == group] for group in range(len(kept.contexts))
        ]
        steps = [sorted(rows) for rows in dealt(recipe, units, number)]  # whole groups
        if self.several:
            old, apart = old_logprobs(self.rolling, kept, steps)
            kept, metrics = kept.with_columns(old=old), metrics | apart
        return Update([kept.select(rows) for rows in steps], metrics)

    def veto(self, step: int, batch: Groups, metrics: Metrics) -> str | None:
        """No step is refused; the first one is checked: the sampler's log-probabilities, or the old ones, are its own.

        Raises:
            SelfCheckError: they are not.
        """
        if self.several:
            check_first_ratio(step, metrics, self.rolling.policy.trunk.precision.dtype)
        else:
            self.rolling.check(batch, metrics)
        return None

    def observe(self, metrics: Metrics) -> str | None:
        """End the run when the KL to the reference exceeds its budget."""
        return over_budget(metrics.get("kl"), self.recipe.kl.budget)


def signal_metrics(rewards: Tensor, owners: Tensor, keep: Tensor) -> Metrics:
    """Share of groups with signal, spread of rewards within groups, answers learned from."""
    groups = owners.unique()
    live = sum(bool(keep[owners == owner].any()) for owner in groups)
    valid = [rewards[(owners == owner) & ~rewards.isnan()] for owner in groups]
    spreads = [part.std(unbiased=False) for part in valid if len(part)]
    return {
        "signal": live / len(groups),
        "reward_std": float(torch.stack(spreads).mean()) if spreads else None,
        "answers_used": int(keep.sum()),
    }

"""Group-relative policy optimization (2402.03300): answers compete within their group, no critic.

Baseline and scale, reduction, and surrogate are three independent choices; RLOO is `advantage.baseline: leave_one_out`
with `kl.beta: 0`. Groups without signal are dropped and counted: they leave both the sum and the count.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolt.config import GRPORecipe
from smolt.data import Question
from smolt.models.groups import Groups, answer_sums, masked_sum, without_gradient
from smolt.models.roles import Policy
from smolt.training.fit import Loss, LossFunction, Metrics, Update
from smolt.training.mismatch import check_first_ratio, check_mismatch, mismatch_parts
from smolt.training.objectives import group_advantages, kl, reduce_tokens, surrogate_loss
from smolt.training.online import Rolling, corrected, dealt, old_logprobs, open_stage, over_budget, rollout_plan
from smolt.training.optimizers.parameter_groups import adapter_role
from smolt.training.reward_forecast import forecast
from smolt.training.stage import Training


def grpo(
    recipe: GRPORecipe | str | Path,
    questions: Sequence[Question | str] | None = None,
    *,
    reward: Callable[..., Any] | str | Sequence[Any] | Mapping[str, Any] | None = None,
    out: Path | None = None,
    fresh: bool = False,
    **fields: Any,
) -> Training:
    """GRPO of a recipe, or of a model path on questions in memory.

    Args:
        recipe: a recipe, or a model path or hub name with `questions` and recipe fields.
        questions: instead of `recipe.data`; a text is a question without a solution.
        reward: a function of (question, answer) to a number, instead of `recipe.reward`; with a path also what a recipe
            says there, such as "gsm8k".
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
        fields: recipe fields, when `recipe` is a path.
    """
    checked, rolling = open_stage(GRPORecipe, recipe, questions, reward, out, fresh, fields)
    policy = rolling.policy
    preparation = GRPOPreparation(checked, rolling, policy.as_reference() if checked.kl.beta else None)
    loss = grpo_loss(policy, checked, preparation.several)
    roles, again = {"policy": adapter_role(policy.parameters(), checked.lora)}, checked.advantage.resample
    plan = rollout_plan(rolling, checked.group, preparation, loss, roles, again)
    plan.forecast = (lambda rated: forecast(rolling, rated)) if checked.checks.forecast else None
    return Training(plan, out, fresh)


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
            column = without_gradient(kept, tokens, lambda part: reference(part, temperature)[0])
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
        policy = self.rolling.policy
        if self.several:
            check_first_ratio(step, metrics, policy.trunk.precision.dtype)
        else:
            check_mismatch(policy, batch, metrics, self.recipe.sampling.temperature)
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


def grpo_loss(policy: Policy, recipe: GRPORecipe, several: bool) -> LossFunction:
    """Surrogate plus KL over a micro-batch. With one step a rollout the old policy is this one, and the ratio is 1."""
    dtype = policy.trunk.precision.dtype

    def loss(batch: Groups) -> Iterator[Loss]:
        logprobs, entropy = policy(batch, recipe.sampling.temperature)
        device = logprobs.device
        mask, columns = batch.mask.to(device), {name: value.to(device) for name, value in batch.columns.items()}
        tokens, answers = float(mask.sum()), float(len(batch))
        old = columns["old"] if several else logprobs.detach()
        choice = recipe.surrogate
        terms, clipped = surrogate_loss(
            logprobs, old, columns["advantages"], mask, choice.name, choice.low, choice.high
        )
        terms, weights = corrected(terms, old, columns["sampled"], mask, recipe.correction, dtype)
        metrics: dict[str, tuple[float | Tensor, float]] = {
            "entropy": (masked_sum(entropy.detach(), mask), tokens),
            "clip_fraction": (masked_sum(clipped.float(), mask), tokens),
            "ratio_error": (masked_sum((torch.exp(logprobs.detach() - old) - 1).abs(), mask), tokens),
            **weights,
        }
        spread: dict[str, Tensor] = {}
        if not several:
            spread, apart_from_sampler = mismatch_parts(columns["sampled"], old, mask)
            metrics |= apart_from_sampler
        if "reference" in columns:
            apart = logprobs.detach() - columns["reference"]
            metrics["kl"] = (answer_sums(apart, mask).sum(), answers)
            metrics["kl_k3"] = (masked_sum(kl(logprobs.detach(), columns["reference"], "k3"), mask), tokens)
            terms = terms + recipe.kl.beta * kl(logprobs, columns["reference"], recipe.kl.estimator)
        if choice.entropy:
            terms = terms - choice.entropy * entropy
        everyone = torch.ones(len(batch), dtype=torch.bool, device=device)
        total, count = reduce_tokens(terms, mask, recipe.reduction, recipe.sampling.max_tokens, everyone)
        yield Loss(total, count, metrics, spread=spread)

    return loss

"""Proximal policy optimization for language models (1909.08593, 2009.01325, 2403.17031), actor and critic.

Under LoRA actor, critic and reference are adapters on one trunk; with full weights they are separate. Or the critic is
a head on the actor's own states (critic.trunk: policy), which learn from the sum of both losses, as in most
implementations. The reward of a token is -coefficient * k1, plus the score on the last real answer token; inner epochs
end when the policy has moved too far from the one that sampled, and the step that would have gone further is not taken.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolt import randomness
from smolt.config import PPORecipe
from smolt.data import Question
from smolt.errors import UserError
from smolt.models.groups import Groups, answer_sums, masked_sum, without_gradient
from smolt.models.roles import CRITIC, Policy, Scorer, copy_trunk, logprobs_and_values, score_head
from smolt.models.saving import load_scorer
from smolt.training.fit import Loss, LossFunction, Metrics, Update
from smolt.training.mismatch import check_first_ratio
from smolt.training.objectives import (
    adapted_coefficient,
    clipped_policy_loss,
    gae,
    kl,
    token_rewards,
    value_loss,
    whiten,
)
from smolt.training.online import Rolling, corrected, dealt, old_logprobs, open_stage, over_budget, rollout_plan
from smolt.training.optimizers.parameter_groups import adapter_role
from smolt.training.reward_forecast import forecast
from smolt.training.stage import Training

LOG = logging.getLogger(__name__)


def ppo(
    recipe: PPORecipe | str | Path,
    questions: Sequence[Question | str] | None = None,
    *,
    reward: Callable[..., Any] | str | Sequence[Any] | Mapping[str, Any] | None = None,
    out: Path | None = None,
    fresh: bool = False,
    **fields: Any,
) -> Training:
    """PPO of a recipe, or of a model path on questions in memory.

    Args:
        recipe: a recipe, or a model path or hub name with `questions` and recipe fields.
        questions: instead of `recipe.data`; a text is a question without a solution.
        reward: a function of (question, answer) to a number, instead of `recipe.reward`; with a path also what a recipe
            says there, such as "gsm8k".
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
        fields: recipe fields, when `recipe` is a path.
    """
    checked, rolling = open_stage(PPORecipe, recipe, questions, reward, out, fresh, fields)
    updates, warmup = checked.budget.updates, checked.critic.warmup
    if updates is not None and warmup >= updates:
        LOG.warning("critic.warmup: %d updates are all of the budget: the policy will stay as it is", warmup)
    policy, reference = rolling.policy, rolling.policy.as_reference()
    critic = open_critic(checked, policy)
    preparation = PPOPreparation(checked, rolling, reference, critic)
    own = critic.head_parameters() if checked.critic.trunk == "policy" else critic.parameters()
    roles = {
        "policy": adapter_role(policy.parameters(), checked.lora),
        "critic": adapter_role(own, checked.lora, checked.critic.lr_scale),
    }
    plan = rollout_plan(rolling, checked.samples, preparation, ppo_loss(policy, critic, checked), roles)
    plan.forecast = (lambda rated: forecast(rolling, rated)) if checked.checks.forecast else None
    return Training(plan, out, fresh)


def open_critic(recipe: PPORecipe, policy: Policy) -> Scorer:
    """The value model: an adapter on the policy's trunk, a copy of it, or itself, with a zero head; or a reward model.

    Raises:
        UserError: the reward model does not have the policy's shape.
    """
    trunk = policy.trunk
    if recipe.critic.start == "reward":
        path = recipe.critic.path or next(part.path for part in recipe.reward.parts if part.name == "model")
        scorer, _ = load_scorer(str(path), trunk.precision)
        scorer.head.requires_grad_(True)
        if scorer.adapter is None:
            scorer.trunk.train_all()
            scorer.trunk.network.get_submodule("score").requires_grad_(False)
        else:
            scorer.trunk.train_adapter(scorer.adapter)
        if scorer.trunk.width != trunk.width:
            raise UserError(f"critic.start: the reward model {path} is not of the policy's shape")
        scorer.trunk.recomputed = trunk.recomputed
        return scorer
    head = score_head(trunk.width, None, trunk.precision.device)
    if recipe.critic.trunk == "policy":
        return Scorer(trunk, policy.adapter, head)
    if policy.adapter is None:
        twin = copy_trunk(trunk)
        twin.train_all()
        return Scorer(twin, None, head)
    if recipe.lora is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(randomness.key(recipe.seed, 1) % 2**63)
            trunk.add_adapter(CRITIC, recipe.lora)
    trunk.train_adapter(CRITIC)
    return Scorer(trunk, CRITIC, head)


class PPOPreparation:
    """From answers and rewards to optimizer steps: old and reference log-probabilities, values, advantages.

    It also holds the leash: the KL coefficient, the end of the inner epochs, the end of the run.
    """

    def __init__(self, recipe: PPORecipe, rolling: Rolling, reference: Policy, critic: Scorer) -> None:
        self.recipe = recipe
        self.rolling = rolling
        self.reference = reference
        self.critic = critic
        self.state: dict[str, Any] = {"coefficient": recipe.kl.coefficient}

    def __call__(self, groups: Groups, rewards: Tensor, number: int) -> Update:
        """The optimizer steps of one rollout."""
        valid = (~rewards.isnan()).nonzero()[:, 0].tolist()
        if not valid:
            raise UserError("reward: every answer of this update was abstained from; see samples.jsonl")
        groups = groups.with_columns(score=self._penalised(rewards, groups)).select(valid)
        temperature, tokens = self.recipe.sampling.temperature, self.rolling.micro_tokens
        steps = dealt(self.recipe, [[row] for row in range(len(groups))], number)
        old, apart = old_logprobs(self.rolling, groups, steps)
        reference = without_gradient(groups, tokens, lambda part: self.reference(part, temperature)[0])
        values = without_gradient(groups, tokens, self.critic.values)
        mask, coefficient = groups.mask, float(self.state["coefficient"])
        per_token = token_rewards(groups.columns["score"], old, reference, mask, coefficient)
        advantages, returns = gae(per_token, values, mask, self.recipe.gae.gamma, self.recipe.gae.lam)
        groups = groups.with_columns(old=old, values=values, returns=returns, advantages=whiten(advantages, mask))
        metrics: Metrics = {
            "kl": float(answer_sums(old - reference, mask).mean()),
            "kl_k3": float(masked_sum(kl(old, reference, "k3"), mask) / mask.sum()),
            "kl_coefficient": coefficient,
            "score": float(groups.columns["score"].mean()),
            **apart,
            "explained_variance": explained_variance(values[mask], returns[mask]),
        }
        if number == 0 and self.recipe.critic.warmup:
            metrics["events"] = [
                f"the policy stays as it is for {self.recipe.critic.warmup} updates: the critic warms up"
            ]
        roles = frozenset({"critic"}) if number < self.recipe.critic.warmup else None
        return Update([groups.select(rows) for rows in steps], metrics, roles=roles)

    def veto(self, step: int, batch: Groups, metrics: Metrics) -> str | None:
        """The inner epochs end when KL(old, new) per token exceeds 1.5 x kl.stop; that step is not taken."""
        check_first_ratio(step, metrics, self.rolling.ground.precision.dtype)
        stop = self.recipe.kl.stop
        moved = metrics.get("approx_kl", 0.0)
        if stop is not None and moved > 1.5 * stop:
            return f"KL to the sampling policy {moved:.4f} exceeds 1.5 x kl.stop = {1.5 * stop:.4f}"
        return None

    def observe(self, metrics: Metrics) -> str | None:
        """Adapt the coefficient; end the run when the KL to the reference exceeds its budget."""
        control, apart = self.recipe.kl, metrics["kl"]
        if control.target is not None:
            now = self.state["coefficient"]
            self.state["coefficient"] = adapted_coefficient(now, apart, control.target, control.horizon_gain)
        return over_budget(apart, control.budget)

    def _penalised(self, rewards: Tensor, groups: Groups) -> Tensor:
        """The reward after the missing-stop penalty, [B]."""
        rule = self.recipe.missing_stop
        if rule.mode == "none":
            return rewards
        cut = rewards - rule.value if rule.mode == "subtract" else torch.full_like(rewards, -rule.value)
        return torch.where(groups.stopped | rewards.isnan(), rewards, cut)


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is a perfect critic, 0 one that knows only the mean."""
    spread = float(returns.var(unbiased=False))
    return 1 - float((returns - values).var(unbiased=False)) / spread if spread > 0 else 0.0


def ppo_loss(policy: Policy, critic: Scorer, recipe: PPORecipe) -> LossFunction:
    """The actor's loss, sent backward, then the critic's: their adapters share a trunk. Or both as one."""
    dtype = policy.trunk.precision.dtype

    def actor(logprobs: Tensor, entropy: Tensor, mask: Tensor, columns: Mapping[str, Tensor]) -> Loss:
        tokens = float(mask.sum())
        terms, clipped = clipped_policy_loss(logprobs, columns["old"], columns["advantages"], recipe.clip, recipe.clip)
        moved = kl(columns["old"], logprobs.detach(), "k3")
        terms, weights = corrected(terms, columns["old"], columns["sampled"], mask, recipe.correction, dtype)
        return Loss(
            masked_sum(terms, mask),
            tokens,
            {
                **weights,
                "entropy": (masked_sum(entropy.detach(), mask), tokens),
                "clip_fraction": (masked_sum(clipped.float(), mask), tokens),
                "approx_kl": (masked_sum(moved, mask), tokens),
                "ratio_error": (masked_sum((torch.exp(logprobs.detach() - columns["old"]) - 1).abs(), mask), tokens),
            },
        )

    def valued(values: Tensor, mask: Tensor, columns: Mapping[str, Tensor]) -> Loss:
        errors = value_loss(values, columns["values"], columns["returns"], recipe.critic.clip)
        return Loss(recipe.critic.weight * masked_sum(errors, mask), float(mask.sum()), role="critic")

    def loss(batch: Groups) -> Iterator[Loss]:
        device, temperature = policy.trunk.precision.device, recipe.sampling.temperature
        mask, columns = batch.mask.to(device), {name: value.to(device) for name, value in batch.columns.items()}
        if recipe.critic.trunk == "own":
            yield actor(*policy(batch, temperature), mask, columns)
            yield valued(critic.values(batch), mask, columns)
            return
        logprobs, entropy, values = logprobs_and_values(policy, critic, batch, temperature)
        acted, seen = actor(logprobs, entropy, mask, columns), valued(values, mask, columns)
        apart = {"loss": (acted.total.detach(), acted.count), **acted.metrics}
        yield replace(acted, total=acted.total + seen.total, metrics=apart)
        yield replace(seen, total=seen.total.detach())  # its gradient came with the policy's

    return loss

"""What PPO makes of rewards: one for each token, less what the policy has moved, and what the critic had expected."""

from typing import Any

import torch
from torch import Tensor

from smolt.config import PPORecipe
from smolt.models.groups import Groups, answer_sums, masked_sum, without_gradient
from smolt.models.roles import Policy, Scorer
from smolt.training.fit import Metrics, Update
from smolt.training.mismatch import check_first_ratio
from smolt.training.objectives import adapted_coefficient, gae, kl, token_rewards, whiten
from smolt.training.online.rolling import Rolling
from smolt.training.online.steps import dealt, old_logprobs, over_budget


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
        if not valid:  # nothing is computed, so the KL is not measured
            return Update([], {"kl": None, "kl_coefficient": float(self.state["coefficient"])})
        groups = groups.with_columns(score=self._penalised(rewards, groups)).select(valid)
        temperature, tokens = self.recipe.sampling.temperature, self.rolling.micro_tokens
        steps = dealt(self.recipe, [[row] for row in range(len(groups))], number)
        old, apart = old_logprobs(self.rolling, groups, steps)
        named = f"log-probabilities under the reference, update {number + 1}"
        reference = without_gradient(groups, tokens, lambda part: self.reference(part, temperature)[0], named)
        values = without_gradient(groups, tokens, self.critic.values, f"the critic's values, update {number + 1}")
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
            warmup = self.recipe.critic.warmup
            several = f"{warmup} updates" if warmup > 1 else "this update"
            metrics["events"] = [f"the policy stays as it is for {several}: the critic warms up"]
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
        if control.target is not None and apart is not None:
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

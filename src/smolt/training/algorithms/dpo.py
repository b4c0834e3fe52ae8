"""Direct preference optimization (2305.18290) and IPO (2310.12036): preferences without a reward model.

The reference is the policy as it was at step 0; its log-probabilities are computed once for each pair.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolt.config import DPORecipe
from smolt.data import Preference
from smolt.models.ground import Ground, open_ground
from smolt.models.groups import Groups, answer_sums, join, without_gradient
from smolt.models.items import preference_items
from smolt.models.roles import Policy, open_policy
from smolt.models.saving import save_policy
from smolt.training.checks import answer_tokens_only, forward_facts, same_policy
from smolt.training.clock import seconds_of
from smolt.training.fit import Learner, Loss, LossFunction, Metrics, Role, Update
from smolt.training.memory.outlook import look_at_rows
from smolt.training.objectives import dpo_sigmoid, ipo
from smolt.training.stage import Dev, Plan, Training
from smolt.training.stage_input import in_memory, recipe_for, settled
from smolt.training.streams import Rows, updates_of


def dpo(
    recipe: DPORecipe | str | Path,
    preferences: Sequence[Preference] | None = None,
    *,
    out: Path | None = None,
    fresh: bool = False,
    **fields: Any,
) -> Training:
    """DPO of a recipe, or of a model path on preferences in memory.

    Args:
        recipe: a recipe, or a model path or hub name with `preferences` and recipe fields.
        preferences: instead of `recipe.data`.
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
        fields: recipe fields, when `recipe` is a path.
    """
    checked = recipe_for(DPORecipe, recipe, fields, data=in_memory(preferences))
    ground = open_ground(settled(checked.model, out, fresh))
    train = preference_items(preferences or checked.data, ground.renderer, ground.window)
    outlook = look_at_rows(checked, ground, train.items)
    policy = open_policy(ground.located, ground.precision, checked.lora, checked.seed)
    reference = policy.as_reference()
    micro_tokens = policy.trunk.settle(checked.budget, train.items)
    total = updates_of(checked.budget, len(train.items), checked.batch)
    rows = Rows(train.items, checked.batch, total, checked.seed)
    return Training(
        Plan(
            stage="dpo",
            recipe=checked,
            identity={**ground.identity, "data": train.sha256},
            stream=Referenced(rows, reference, micro_tokens),
            loss=dpo_loss(policy, checked),
            learner=Learner({"policy": Role(policy.parameters())}, checked.optim, total),
            micro_tokens=micro_tokens,
            save=lambda directory: save_policy(policy, ground.renderer, directory),
            result=policy,
            checks=[
                lambda: answer_tokens_only(train.items, ground.renderer),
                lambda: same_policy(policy, reference, join(train.items[:2])),
            ],
            dev=dev_pairs(policy, reference, ground, checked),
            facts={**forward_facts(policy.trunk), **train.facts(), **length_gap(train.items)},
            outlook=outlook,
            seconds=seconds_of(checked.budget),
        ),
        out,
        fresh,
    )


def length_gap(items: Sequence[Groups]) -> dict[str, float]:
    """Mean length of chosen minus rejected answers in tokens, and the share of pairs whose chosen one is longer."""
    gaps = torch.tensor([float(pair.lengths[0] - pair.lengths[1]) for pair in items])
    return {"length_gap": float(gaps.mean()), "chosen_longer": float((gaps > 0).float().mean())}


@dataclass
class Referenced:
    """Rows whose pairs carry the reference's log-probabilities, computed once for each pair when it is first used.

    Attributes:
        rows: the pairs.
        reference: the policy of step 0.
        micro_tokens: packed tokens of one forward.
    """

    rows: Rows
    reference: Policy
    micro_tokens: int
    known: set[int] = field(default_factory=set)

    @property
    def total(self) -> int:
        """Updates in all."""
        return self.rows.total

    def next(self, number: int) -> Update:
        """The next pairs, each with its reference."""
        for place in self.rows.places(number):
            if place not in self.known:
                self._refer(self.rows.together(place))
        return self.rows.next(number)

    def _refer(self, places: list[int]) -> None:
        """Send pairs through the reference in one batch: always those of one update of the first epoch.

        A run continued in a later epoch finds the same batches, and with them the same last digits.
        """
        groups = reference_column(self.reference, self.micro_tokens, join([self.rows.items[i] for i in places]))
        for number, place in enumerate(places):
            self.rows.items[place] = groups.select([2 * number, 2 * number + 1])
        self.known |= set(places)

    def veto(self, step: int, batch: Groups, metrics: Metrics) -> str | None:
        """Every step is taken."""
        return None

    def observe(self, metrics: Metrics) -> str | None:
        """Nothing adapts."""
        return None

    def state(self) -> dict[str, Any]:
        """What is known of the reference can be computed again."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""


def reference_column(reference: Policy, micro_tokens: int, groups: Groups) -> Groups:
    """The groups with the reference's log-probabilities, [B, T]."""
    return groups.with_columns(reference=without_gradient(groups, micro_tokens, lambda part: reference(part)[0]))


def lead(logprobs: Tensor, batch: Groups, average: bool) -> tuple[Tensor, Tensor]:
    """Log pi - log ref of the chosen and of the rejected answers, [P] each: token sums, or averages for IPO."""
    mask = batch.mask.to(logprobs.device)
    ratio = answer_sums(logprobs - batch.columns["reference"].to(logprobs.device), mask)
    if average:
        ratio = ratio / mask.sum(dim=1)
    side = batch.columns["side"].to(logprobs.device)
    return ratio[side == 0], ratio[side == 1]


def dpo_loss(policy: Policy, recipe: DPORecipe) -> LossFunction:
    """Sum over the pairs of a micro-batch, and what should be watched together: log-probabilities, margin, accuracy."""

    def loss(batch: Groups) -> Iterator[Loss]:
        logprobs, _ = policy(batch)
        chosen, rejected = lead(logprobs, batch, average=recipe.loss == "ipo")
        side = batch.columns["side"].to(logprobs.device)
        weight = batch.columns["weight"].to(logprobs.device)[side == 0]
        if recipe.loss == "ipo":
            terms = ipo(chosen - rejected, recipe.beta, weight)
        else:
            terms = dpo_sigmoid(chosen - rejected, recipe.beta, weight, recipe.label_smoothing)
        pairs = float(len(terms))
        sums = answer_sums(logprobs.detach(), batch.mask.to(logprobs.device))
        margin = recipe.beta * (chosen - rejected).detach()
        yield Loss(
            terms.sum(),
            pairs,
            {
                "margin": (margin.sum(), pairs),
                "accuracy": ((margin > 0).float().sum(), pairs),
                "chosen_logprob": (sums[side == 0].sum(), pairs),
                "rejected_logprob": (sums[side == 1].sum(), pairs),
                "chosen_reward": (recipe.beta * chosen.detach().sum(), pairs),
                "rejected_reward": (recipe.beta * rejected.detach().sum(), pairs),
            },
        )

    return loss


def dev_pairs(policy: Policy, reference: Policy, ground: Ground, recipe: DPORecipe) -> Dev | None:
    """Loss and accuracy of the implicit reward on held-out pairs."""
    if recipe.dev is None:
        return None
    items = preference_items(recipe.dev, ground.renderer, ground.window).items[: recipe.watch.items]
    micro_tokens = policy.trunk.micro_tokens(recipe.budget.memory)
    cache: list[Groups] = []

    def measure() -> dict[str, float]:
        if not cache:
            cache.append(reference_column(reference, micro_tokens, join(items)))
        groups = cache[0]
        logprobs = without_gradient(groups, micro_tokens, lambda part: policy(part)[0])
        chosen, rejected = lead(logprobs, groups, average=recipe.loss == "ipo")
        weight = groups.columns["weight"][groups.columns["side"] == 0]
        apart = chosen - rejected
        terms = ipo(apart, recipe.beta, weight) if recipe.loss == "ipo" else dpo_sigmoid(apart, recipe.beta, weight)
        return {"loss": float(terms.mean()), "accuracy": float((apart > 0).float().mean())}

    return Dev(measure, "loss", "min")

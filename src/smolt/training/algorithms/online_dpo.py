"""Online DPO (2402.04792): the policy's own answers two by two, labelled as they are written, with dpo's loss.

The pairs never grow old: what a fixed file of pairs says of answers that the policy no longer gives is not learned.
Of several answers to a question the best and the worst are the pair; where all are rated alike there is none.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolt.config import DPORecipe, OnlineDPORecipe
from smolt.data import Question
from smolt.models.groups import Groups, answer_sums, without_gradient
from smolt.models.roles import Policy
from smolt.training.fit import LossFunction, Metrics, Update
from smolt.training.offline import dpo_loss
from smolt.training.online.rolling import Rolling, open_stage
from smolt.training.online.rollouts import rollout_plan
from smolt.training.online.steps import dealt
from smolt.training.optimizers.parameter_groups import adapter_role
from smolt.training.stage import Training


def online_dpo(
    recipe: OnlineDPORecipe | str | Path,
    questions: Sequence[Question | str] | None = None,
    *,
    reward: Callable[..., Any] | str | Sequence[Any] | Mapping[str, Any] | None = None,
    out: Path | None = None,
    fresh: bool = False,
    **fields: Any,
) -> Training:
    """Online DPO of a recipe, or of a model path on questions in memory.

    Args:
        recipe: a recipe, or a model path or hub name with `questions` and recipe fields.
        questions: instead of `recipe.data`; a text is a question without a solution.
        reward: a function of (question, answer) to a number, instead of `recipe.reward`; with a path also what a recipe
            says there, such as "gsm8k". Of two answers the one with more is the better one.
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
        fields: recipe fields, when `recipe` is a path.
    """
    checked, rolling = open_stage(OnlineDPORecipe, recipe, questions, reward, out, fresh, fields)
    policy = rolling.policy
    preparation = PairPreparation(checked, rolling, policy.as_reference())
    roles = {"policy": adapter_role(policy.parameters(), checked.lora)}
    plan = rollout_plan(rolling, checked.samples, preparation, online_loss(policy, checked), roles)
    return Training(plan, out, fresh)


def online_loss(policy: Policy, recipe: OnlineDPORecipe) -> LossFunction:
    """DPO's, at the temperature the answers were drawn at."""
    shared = {name: getattr(recipe, name) for name in ("model", "data", "loss", "beta", "label_smoothing")}
    return dpo_loss(policy, DPORecipe(**shared), recipe.sampling.temperature)


class PairPreparation:
    """From answers and rewards to optimizer steps: pairs, and the reference's log-probabilities of them."""

    def __init__(self, recipe: OnlineDPORecipe, rolling: Rolling, reference: Policy) -> None:
        self.recipe = recipe
        self.rolling = rolling
        self.reference = reference
        self.state: dict[str, Any] = {}

    def __call__(self, groups: Groups, rewards: Tensor, number: int) -> Update:
        """The optimizer steps of one rollout."""
        pairs = best_and_worst(rewards, groups.owners)
        metrics: Metrics = {"signal": len(pairs) / len(groups.contexts)}
        if not pairs:  # nothing is computed, so the KL is not measured
            return Update([], {**metrics, "kl": None})
        kept = paired(groups, pairs)
        temperature, tokens = self.recipe.sampling.temperature, self.rolling.micro_tokens
        reference = without_gradient(kept, tokens, lambda part: self.reference(part, temperature)[0])
        metrics["kl"] = float(answer_sums(kept.columns["sampled"] - reference, kept.mask).mean())
        kept = kept.with_columns(reference=reference)
        units = [[2 * pair, 2 * pair + 1] for pair in range(len(pairs))]
        return Update([kept.select(rows) for rows in dealt(self.recipe, units, number)], metrics)

    def veto(self, step: int, batch: Groups, metrics: Metrics) -> str | None:
        """No step is refused; in the first one the sampler's log-probabilities are the policy's own.

        Raises:
            SelfCheckError: they are not.
        """
        if step == 0:
            self.rolling.check(batch, metrics)
        return None

    def observe(self, metrics: Metrics) -> str | None:
        """Nothing adapts."""
        return None


def best_and_worst(rewards: Tensor, owners: Sequence[int]) -> list[tuple[int, int]]:
    """Of each question the first best and the first worst answer, as rows; none where all that are rated are alike."""
    found = []
    for owner in dict.fromkeys(owners):
        rows = [row for row, own in enumerate(owners) if own == owner and not bool(rewards[row].isnan())]
        values = [float(rewards[row]) for row in rows]
        if values and min(values) < max(values):
            found.append((rows[values.index(max(values))], rows[values.index(min(values))]))
    return found


def paired(groups: Groups, pairs: Sequence[tuple[int, int]]) -> Groups:
    """The chosen and the rejected answer of each pair, side by side, with dpo's columns."""
    kept, count = groups.select([row for pair in pairs for row in pair]), len(pairs)
    side, pair = torch.tensor([0, 1] * count), torch.arange(count).repeat_interleave(2)
    return kept.with_columns(side=side, pair=pair, weight=torch.ones(2 * count))

"""The gradient of an update does not depend on how it is cut into micro-batches (trap 12), for every algorithm.

Everything that a loss reads is drawn at random, so that clips act on some tokens and weights differ. Gradients are
compared after the division by the update's counts, in fp32, against one micro-batch that holds everything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smolt.config import (
    DecideRecipe,
    DistillRecipe,
    DPORecipe,
    GRPORecipe,
    KTORecipe,
    LoRA,
    OnlineDPORecipe,
    Optim,
    PPORecipe,
    RewardRecipe,
)
from smolt.models.groups import Groups, cut, from_answers
from smolt.models.rendering.decision_prompts import MOST
from smolt.models.roles import CRITIC, Policy, Scorer, score_head
from smolt.training.algorithms.decide import decide_loss
from smolt.training.algorithms.distill import distill_loss
from smolt.training.algorithms.dpo import imitation_column
from smolt.training.algorithms.grpo import grpo_loss
from smolt.training.algorithms.kto import kto_loss
from smolt.training.algorithms.online_dpo import best_and_worst, online_loss, paired
from smolt.training.algorithms.ppo import ppo_loss
from smolt.training.algorithms.reward_model import reward_loss
from smolt.training.fit import Learner, LossFunction, accumulate
from smolt.training.offline import dpo_loss, sft_loss
from smolt.training.optimizers.parameter_groups import Role
from tests import tiny_models
from tests.invariance.conftest import Models
from tests.tiny_models import apart

pytestmark = pytest.mark.usefixtures("kept_or_recomputed")

TOLERANCE = 1e-6
WHOLE = 10**9
GIVEN: dict[str, Any] = {"model": "(in memory)", "data": "(in memory)"}
ROLLED: dict[str, Any] = {**GIVEN, "reward": "gsm8k"}


@dataclass(frozen=True)
class Case:
    """An algorithm's loss on one update."""

    loss: LossFunction
    roles: dict[str, Role]
    groups: Groups

    def step(self, micro_tokens: int) -> tuple[dict[str, Tensor], dict[str, float], dict[str, float]]:
        """Divided gradients, gradient norms and metrics of the update, cut at so many tokens."""
        learner = Learner(self.roles, Optim(), 1)
        learner.forget()
        tally, counts = accumulate(self.groups, self.loss, micro_tokens)
        norms = learner.divide(counts)
        gradients = {
            f"{role}/{name}": parameter.grad.clone()
            for role, part in self.roles.items()
            for name, parameter in part.parameters.items()
            if parameter.grad is not None
        }
        return gradients, norms, tally.means()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def answers_to(contexts: int, each: int) -> Groups:
    """Contexts of 1 to 9 tokens with answers of 1 to 12 tokens."""
    ids = torch.randint(1, tiny_models.VOCABULARY, (4000,), generator=torch.Generator().manual_seed(3)).tolist()
    take = iter(ids)
    sizes = [[1 + (5 * owner + 7 * number) % 12 for number in range(each)] for owner in range(contexts)]
    return from_answers(
        [[next(take) for _ in range(1 + 4 * owner % 9)] for owner in range(contexts)],
        [[[next(take) for _ in range(size)] for size in group] for group in sizes],
    )


def pairs() -> Groups:
    """Five pairs, two of them with soft labels."""
    groups = answers_to(5, 2)
    return groups.with_columns(
        side=torch.tensor([0, 1] * 5),
        pair=torch.arange(5).repeat_interleave(2),
        weight=torch.tensor([1.0, 1.0, 0.7, 1.0, 0.2]).repeat_interleave(2),
        reference=-3 + draw(*groups.mask.shape),
    )


def rollout(policy: Policy) -> Groups:
    """Four contexts with three answers; the old policy is near the new one, so ratios lie around 1."""
    groups = answers_to(4, 3)
    with torch.no_grad():
        logprobs, _ = policy(groups)
    shape = groups.mask.shape
    return groups.with_columns(
        sampled=logprobs,
        old=logprobs + 0.3 * draw(*shape, seed=1),
        reference=logprobs + 0.5 * draw(*shape, seed=2),
        values=draw(*shape, seed=4),
        returns=draw(*shape, seed=5),
        advantages=draw(*shape, seed=6),
    )


def policy_of(folder: Path, lora: bool) -> Policy:
    policy = tiny_models.open_adapted(folder) if lora else tiny_models.open_full(folder)
    tiny_models.shake(policy, width=0.05)
    return policy


def scorer_beside(policy: Policy, folder: Path) -> Scorer:
    """A critic: an adapter on the policy's trunk, or a trunk of its own where the policy trains all weights."""
    if policy.adapter is None:
        return tiny_models.open_full_scorer(folder)
    policy.trunk.add_adapter(CRITIC, LoRA(rank=4, alpha=8.0))
    policy.trunk.train_adapter(CRITIC)
    scorer = Scorer(policy.trunk, CRITIC, score_head(policy.trunk.width, 7, torch.device("cpu")))
    tiny_models.shake(scorer, seed=2, width=0.05)
    return scorer


def sft_case(folder: Path, lora: bool) -> Case:
    policy = policy_of(folder, lora)
    return Case(sft_loss(policy), {"policy": Role(policy.parameters())}, answers_to(7, 1))


def reward_case(folder: Path, lora: bool) -> Case:
    policy = policy_of(folder, lora)
    scorer = Scorer(policy.trunk, policy.adapter, score_head(policy.trunk.width, 7, torch.device("cpu")))
    recipe = RewardRecipe.model_validate({**GIVEN, "margin": 0.1})
    return Case(reward_loss(scorer, recipe), {"reward": Role(scorer.parameters())}, pairs())


def dpo_case(folder: Path, lora: bool, **fields: Any) -> Case:
    policy = policy_of(folder, lora)
    recipe = DPORecipe.model_validate({**GIVEN, **fields})
    return Case(dpo_loss(policy, recipe), {"policy": Role(policy.parameters())}, imitation_column(pairs()))


def kto_case(folder: Path, lora: bool) -> Case:
    """Seven answers, three of them undesirable; the KL is a constant of the update."""
    policy, groups = policy_of(folder, lora), answers_to(7, 1)
    groups = groups.with_columns(
        desirable=torch.arange(7) % 2 == 0, reference=-3 + draw(*groups.mask.shape), kl=torch.full((7,), 0.7)
    )
    recipe = KTORecipe.model_validate({**GIVEN, "undesirable_weight": 1.5})
    return Case(kto_loss(policy, recipe), {"policy": Role(policy.parameters())}, groups)


def decide_case(folder: Path, lora: bool, **fields: Any) -> Case:
    """Four states with three questions of two to four options."""
    policy, groups = policy_of(folder, lora), answers_to(4, 3)
    labels, shares = torch.full((12, MOST), -1), torch.zeros(12, MOST)
    for row in range(12):
        size = 2 + row % 3
        labels[row, :size] = torch.arange(5 * row + 1, 5 * row + 1 + size)
        shares[row, :size] = torch.softmax(draw(size, seed=row), dim=0)
    groups = groups.with_columns(labels=labels[:, :, None], expected=shares[:, :, None])
    recipe = DecideRecipe.model_validate({**GIVEN, **fields})
    return Case(decide_loss(policy, recipe), {"policy": Role(policy.parameters())}, groups)


def ppo_case(folder: Path, lora: bool) -> Case:
    policy = policy_of(folder, lora)
    critic = scorer_beside(policy, folder)
    recipe = PPORecipe.model_validate({**ROLLED, "critic": {"clip": 0.5}})
    roles = {"policy": Role(policy.parameters()), "critic": Role(critic.parameters())}
    return Case(ppo_loss(policy, critic, recipe), roles, rollout(policy))


def joint_ppo_case(folder: Path, lora: bool) -> Case:
    """The critic is a head on the policy's states."""
    policy = policy_of(folder, lora)
    critic = Scorer(policy.trunk, policy.adapter, score_head(policy.trunk.width, 5, torch.device("cpu")))
    recipe = PPORecipe.model_validate({**ROLLED, "critic": {"clip": 0.5, "trunk": "policy"}})
    roles = {"policy": Role(policy.parameters()), "critic": Role(critic.head_parameters())}
    return Case(ppo_loss(policy, critic, recipe), roles, rollout(policy))


def grpo_case(folder: Path, lora: bool, several: bool = True, **fields: Any) -> Case:
    policy = policy_of(folder, lora)
    groups = rollout(policy).with_columns(advantages=draw(12, seed=7))
    loss = grpo_loss(policy, GRPORecipe.model_validate({**ROLLED, **fields}), several)
    return Case(loss, {"policy": Role(policy.parameters())}, groups)


def distill_case(folder: Path, lora: bool, **fields: Any) -> Case:
    """Four contexts with three answers; the teacher is the policy before it was shaken."""
    policy, teacher = policy_of(folder, lora), tiny_models.open_full(folder)
    recipe = DistillRecipe.model_validate({**GIVEN, "teacher": "(in memory)", **fields})
    return Case(distill_loss(policy, teacher, recipe), {"policy": Role(policy.parameters())}, answers_to(4, 3))


def online_dpo_case(folder: Path, lora: bool) -> Case:
    """Of three answers to each of four questions the best and the worst, drawn at temperature 0.7."""
    policy = policy_of(folder, lora)
    groups = rollout(policy)
    kept = paired(groups, best_and_worst(draw(12, seed=8), groups.owners))
    recipe = OnlineDPORecipe.model_validate({**ROLLED, "sampling": {"temperature": 0.7}})
    return Case(online_loss(policy, recipe), {"policy": Role(policy.parameters())}, kept)


CASES: dict[str, Callable[[Path, bool], Case]] = {
    "sft": sft_case,
    "reward": reward_case,
    "dpo": dpo_case,
    **{name: partial(dpo_case, loss=name) for name in ("ipo", "simpo", "orpo", "cpo")},
    "kto": kto_case,
    "decide": decide_case,
    "decide_brier": partial(decide_case, loss="brier"),
    "ppo": ppo_case,
    "ppo with one trunk": joint_ppo_case,
    "grpo": grpo_case,
    "online_dpo": online_dpo_case,
    "distill": distill_case,
    "distill_jsd": partial(distill_case, beta=0.3),
}


def assert_cut_does_not_matter(case: Case) -> None:
    """Cut at 1, 30 and 60 tokens: gradients to 1e-6 of the largest entry, norms and metrics to 1e-5."""
    whole, norms, metrics = case.step(WHOLE)
    assert all(bool(gradient.any()) for gradient in whole.values())
    scale = max(float(gradient.abs().max()) for gradient in whole.values())
    for micro_tokens in (1, 30, 60):
        assert len(list(cut(case.groups, micro_tokens))) > 1
        found, found_norms, found_metrics = case.step(micro_tokens)
        assert found.keys() == whole.keys()
        assert max(apart(found[name], whole[name]) for name in whole) <= TOLERANCE * max(1.0, scale)
        assert found_norms == pytest.approx(norms, rel=1e-5)
        assert found_metrics == pytest.approx(metrics, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("lora", [True, False], ids=["adapter", "full"])
@pytest.mark.parametrize("algorithm", CASES)
def test_the_cut_never_changes_the_gradient(algorithm: str, lora: bool, models: Models) -> None:
    """Every algorithm (DPO with all five losses), with adapters and with all weights."""
    assert_cut_does_not_matter(CASES[algorithm](models("llama"), lora))


@pytest.mark.parametrize("algorithm", ["sft", "dpo", "grpo", "distill"])
def test_the_cut_never_changes_the_gradient_of_a_padded_model(algorithm: str, models: Models) -> None:
    """GPT-Neo, whose rows are padded to another width in every micro-batch."""
    assert_cut_does_not_matter(CASES[algorithm](models("gpt_neo"), False))


@pytest.mark.parametrize("reduction", ["token", "answer", "constant"])
@pytest.mark.parametrize("surrogate", ["clip", "sequence", "cispo"])
def test_every_reduction_and_surrogate_of_grpo(reduction: str, surrogate: str, models: Models) -> None:
    """3 x 3 combinations, with k3's KL."""
    choice: dict[str, Any] = {"surrogate": {"name": surrogate}, "kl": {"estimator": "k3", "beta": 0.1}}
    assert_cut_does_not_matter(grpo_case(models("llama"), True, reduction=reduction, **choice))


def test_the_entropy_bonus_of_grpo(models: Models) -> None:
    """With and without a frozen head: its gradient goes through the chunks of the vocabulary."""
    for lora in (True, False):
        assert_cut_does_not_matter(grpo_case(models("llama"), lora, surrogate={"entropy": 0.5}))


def test_grpo_with_one_step_a_rollout(models: Models) -> None:
    """The old policy is this one: the ratio is 1 and the sampler's log-probabilities are only compared."""
    case = grpo_case(models("llama"), True, several=False)
    assert_cut_does_not_matter(case)
    _, _, metrics = case.step(30)
    assert metrics["ratio_error"] == 0
    assert metrics["mismatch"] <= 1e-5


def test_the_order_of_answers_never_changes_the_gradient(models: Models) -> None:
    """PPO's update with its answers in reverse order."""
    case = ppo_case(models("llama"), True)
    turned = Case(case.loss, case.roles, case.groups.select(list(reversed(range(len(case.groups))))))
    first, _, _ = case.step(WHOLE)
    second, _, _ = turned.step(40)
    scale = max(float(gradient.abs().max()) for gradient in first.values())
    assert max(apart(first[name], second[name]) for name in first) <= TOLERANCE * max(1.0, scale)


def test_a_mean_of_micro_batch_means_would_be_seen(models: Models) -> None:
    """The mistake this file looks for moves SFT's gradient by over 1e-3 here: the micro-batches are of unequal size."""
    case = sft_case(models("llama"), False)
    whole, _, _ = case.step(WHOLE)
    parts = list(cut(case.groups, 30))
    wrong = {name: torch.zeros_like(gradient) for name, gradient in whole.items()}
    for part in parts:
        gradients, _, _ = Case(case.loss, case.roles, part).step(WHOLE)
        for name, gradient in gradients.items():
            wrong[name] += gradient / len(parts)
    assert max(apart(wrong[name], whole[name]) for name in whole) > 1e-3


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
def test_one_forward_for_policy_and_values_has_the_gradient_of_both(models: Models, lora: bool) -> None:
    """That of two forwards, one for each, added up; the two losses are told apart all the same."""
    joint = joint_ppo_case(models("llama"), lora)
    policy = policy_of(models("llama"), lora)
    critic = Scorer(policy.trunk, policy.adapter, score_head(policy.trunk.width, 5, torch.device("cpu")))
    recipe = PPORecipe.model_validate({**ROLLED, "critic": {"clip": 0.5}})
    roles = {"policy": Role(policy.parameters()), "critic": Role(critic.head_parameters())}
    two = Case(ppo_loss(policy, critic, recipe), roles, joint.groups)
    (found, norms, means), (expected, other_norms, other_means) = joint.step(WHOLE), two.step(WHOLE)
    assert found.keys() == expected.keys()
    assert max(apart(found[name], expected[name]) for name in found) < TOLERANCE
    assert norms == pytest.approx(other_norms, abs=TOLERANCE)
    assert means == pytest.approx(other_means, abs=TOLERANCE)

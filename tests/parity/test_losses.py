"""smolt's losses and gradients equal the peers' to 1e-5, on fixed rows (golden files; no peer is needed here).

The peers pad and run each answer with its own copy of the context; smolt packs each context once. Where the two agree,
positions, masks, temperature, sums and counts agree too.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from smolt.config import DistillRecipe, DPORecipe, KTORecipe, OnlineDPORecipe
from smolt.models.groups import Groups, answer_sums, from_answers, masked_sum
from smolt.models.roles import Policy
from smolt.training import objectives
from smolt.training.algorithms.distill import distill_loss
from smolt.training.algorithms.dpo import imitation_column
from smolt.training.algorithms.kto import kl_column, kto_loss, mismatched
from smolt.training.algorithms.online_dpo import best_and_worst, online_loss, paired
from smolt.training.offline import dpo_loss, reference_column
from tests.parity import tiny
from tests.parity.capture import golden
from tests.parity.cases import (
    CPO_CASES,
    DPO_CASES,
    GKD_CASES,
    GRPO_CASES,
    KTO_CASES,
    ONLINE_DPO_CASES,
    ONLINE_DPO_REWARDS,
    ORPO_CASES,
    REWARD_CASES,
)
from tests.parity.conftest import Roles

pytestmark = pytest.mark.usefixtures("kept_or_recomputed")

TOLERANCE = 1e-5


def assert_equal(case: dict[str, Any], loss: Tensor, network: torch.nn.Module) -> None:
    """The loss to 1e-5 of its size, and every parameter's gradient (norm and one projection) to 1e-5 of the largest."""
    assert loss.item() == pytest.approx(case["loss"], rel=TOLERANCE, abs=TOLERANCE)
    loss.backward()
    ours, theirs = tiny.gradients(network), case["gradients"]
    assert sorted(ours) == sorted(theirs)
    largest = max(abs(value) for values in theirs.values() for value in values)
    for name, expected in theirs.items():
        assert ours[name] == pytest.approx(expected, abs=TOLERANCE * largest), name


def pairs() -> Groups:
    """Three contexts with their chosen and rejected answers: rows 0, 2, 4 are chosen, 1, 3, 5 rejected."""
    return from_answers(tiny.CONTEXTS, [list(pair) for pair in zip(tiny.CHOSEN, tiny.REJECTED, strict=True)])


def test_sft_equals_transformers(roles: Roles) -> None:
    """Sum of -log pi over the answer tokens divided by their number = transformers' loss with labels -100 elsewhere."""
    case = golden("sft")["cases"]["chosen"]
    policy = roles.policy()
    groups = from_answers(tiny.CONTEXTS, [[answer] for answer in tiny.CHOSEN])
    logprobs, _ = policy(groups)
    for row, expected in zip(logprobs.tolist(), case["logprobs"], strict=True):
        assert row[: len(expected)] == pytest.approx(expected, abs=TOLERANCE)
        assert not any(row[len(expected) :])
    assert_equal(case, -masked_sum(logprobs, groups.mask) / groups.mask.sum(), policy.trunk.network)


@pytest.mark.parametrize("name", REWARD_CASES)
def test_reward_model_equals_trl(name: str, roles: Roles) -> None:
    """Scores at the stop token, and the mean Bradley-Terry loss, plain, with centering 0.01, with margin 0.5."""
    case = golden("reward_model")["cases"][name]
    scorer, settings = roles.scorer(), case["settings"]
    scores = scorer.verdicts(pairs())
    chosen, rejected = scores[0::2], scores[1::2]
    assert torch.cat([chosen, rejected]).tolist() == pytest.approx(case["scores"], abs=TOLERANCE)
    centering = settings["center_rewards_coefficient"] or 0.0
    terms = objectives.bradley_terry(chosen, rejected, torch.ones(3), settings.get("margin", 0.0), centering)
    assert_equal(case, terms.mean(), scorer.trunk.network)


@pytest.mark.parametrize("name", DPO_CASES)
def test_dpo_equals_trl(name: str, roles: Roles) -> None:
    """Sigmoid at beta 0.1 and 0.5, label smoothing 0.2, and IPO (averages per token), against a moved reference."""
    case = golden("dpo")["cases"][name]
    settings, policy, groups = case["settings"], roles.policy(), pairs()
    ratios = answer_sums(policy(groups)[0] - roles.logprobs("reference", groups), groups.mask)
    if settings["loss_type"] == ["ipo"]:
        ratios = ratios / groups.lengths
    lead, weight = ratios[0::2] - ratios[1::2], torch.ones(3)
    if settings["loss_type"] == ["ipo"]:
        terms = objectives.ipo(lead, settings["beta"], weight)
    else:
        terms = objectives.dpo_sigmoid(lead, settings["beta"], weight, settings["label_smoothing"])
    assert_equal(case, terms.mean(), policy.trunk.network)


def reference_free(policy: Policy, contexts: list[list[int]], **fields: Any) -> Tensor:
    """The loss of the three pairs as the dpo stage computes it, divided by their number."""
    recipe = DPORecipe.model_validate({"model": "(in memory)", "data": "(in memory)", **fields})
    answers = [list(pair) for pair in zip(tiny.CHOSEN, tiny.REJECTED, strict=True)]
    groups = from_answers(contexts, answers).with_columns(side=torch.tensor([0, 1] * 3), weight=torch.ones(6))
    (loss,) = dpo_loss(policy, recipe)(imitation_column(groups))
    return loss.total / loss.count


@pytest.mark.parametrize("name", CPO_CASES)
def test_cpo_and_simpo_equal_trl(name: str, roles: Roles) -> None:
    """CPO with its NLL, smoothed with half of it; SimPO (means per token, gamma) alone and with the NLL."""
    case = golden("cpo")["cases"][name]
    settings, policy = case["settings"], roles.policy()
    fields = {"beta": settings["beta"], "nll": settings["cpo_alpha"], "label_smoothing": settings["label_smoothing"]}
    if settings["loss_type"] == "simpo":
        fields |= {"loss": "simpo", "gamma": settings["simpo_gamma"]}
    else:
        fields |= {"loss": "cpo"}
    assert_equal(case, reference_free(policy, tiny.CONTEXTS, **fields), policy.trunk.network)


@pytest.mark.parametrize("name", ORPO_CASES)
def test_orpo_equals_trl(name: str, roles: Roles) -> None:
    """NLL and odds ratio together where contexts have one token, the odds ratio alone elsewhere (see capture)."""
    case = golden("orpo")["cases"][name]
    settings, policy = case["settings"], roles.policy()
    fields = {"loss": "orpo", "beta": settings["beta"], "nll": float(settings["nll"])}
    assert_equal(case, reference_free(policy, case["contexts"], **fields), policy.trunk.network)


@pytest.mark.parametrize("name", KTO_CASES)
def test_kto_equals_trl(name: str, roles: Roles) -> None:
    """Three desirable and three undesirable answers, a moved reference: the KL of mismatched answers, the loss."""
    case = golden("kto")["cases"][name]
    settings, policy, reference = case["settings"], roles.policy(), Policy(roles.open("reference"), None)
    answers = [[answer] for answer in (*tiny.CHOSEN, *tiny.REJECTED)]
    groups = from_answers(tiny.CONTEXTS * 2, answers).with_columns(desirable=torch.arange(6) < 3)
    groups = reference_column(reference, 1000, groups)
    groups = kl_column(policy, reference, mismatched(groups, 64), 30, groups)
    assert groups.columns["kl"].tolist() == pytest.approx([case["kl"]] * 6, abs=TOLERANCE)
    named = {key: settings[key] for key in ("beta", "desirable_weight", "undesirable_weight")}
    recipe = KTORecipe.model_validate({"model": "(in memory)", "data": "(in memory)", **named})
    (loss,) = kto_loss(policy, recipe)(groups)
    assert_equal(case, loss.total / loss.count, policy.trunk.network)


@pytest.mark.parametrize("name", GKD_CASES)
def test_gkd_equals_trl(name: str, roles: Roles) -> None:
    """KL of the teacher to the student, of the student to the teacher, and Jensen-Shannon between, over all tokens."""
    case = golden("gkd")["cases"][name]
    policy, teacher = roles.policy(), Policy(roles.open("reference"), None)
    given = {"model": "(in memory)", "data": "(in memory)", "teacher": "(in memory)"}
    recipe = DistillRecipe.model_validate({**given, "beta": case["settings"]["beta"]})
    (loss,) = distill_loss(policy, teacher, recipe)(from_answers(tiny.CONTEXTS, [[answer] for answer in tiny.CHOSEN]))
    assert_equal(case, loss.total / loss.count, policy.trunk.network)


@pytest.mark.parametrize("name", ONLINE_DPO_CASES)
def test_online_dpo_equals_trl(name: str, roles: Roles) -> None:
    """Two answers to each of three contexts, the second one the better of the second: paired by their rewards."""
    case = golden("online_dpo")["cases"][name]
    settings, policy, reference = case["settings"], roles.policy(), Policy(roles.open("reference"), None)
    rewards = torch.tensor([value for pair in ONLINE_DPO_REWARDS for value in pair])
    found = best_and_worst(rewards, pairs().owners)
    assert found == [(0, 1), (3, 2), (4, 5)]
    groups = reference_column(reference, 1000, paired(pairs(), found))
    given = {"model": "(in memory)", "data": "(in memory)", "reward": "gsm8k"}
    (loss,) = online_loss(policy, OnlineDPORecipe.model_validate({**given, "beta": settings["beta"]}))(groups)
    assert_equal(case, loss.total / loss.count, policy.trunk.network)


REDUCTIONS: dict[str, objectives.Reduction] = {
    "dapo": "token",
    "cispo": "token",
    "grpo": "answer",
    "dr_grpo": "constant",
}
"""TRL's loss_type -> our reduction."""


def surrogate_of(settings: dict[str, Any]) -> tuple[objectives.Surrogate, float, float]:
    """Our surrogate and its clip range; TRL clips CISPO's ratio from above only, at epsilon_high itself."""
    if settings["loss_type"] == "cispo":
        return "cispo", 1.0, settings["epsilon_high"] - 1
    sequence = settings["importance_sampling_level"] == "sequence"
    return "sequence" if sequence else "clip", settings["epsilon"], settings["epsilon_high"]


@pytest.mark.parametrize("name", GRPO_CASES)
def test_grpo_equals_trl(name: str, roles: Roles) -> None:
    """Surrogate, reduction and KL are independent choices here; each combination gives TRL's number."""
    case = golden("grpo")["cases"][name]
    settings, policy = case["settings"], roles.policy()
    groups = from_answers(tiny.CONTEXTS[:2], tiny.ANSWERS)
    logprobs, entropy = policy(groups, settings["temperature"])
    old = torch.tensor(case["old_per_token_logps"]) if "old_per_token_logps" in case else logprobs.detach()
    advantages = torch.tensor(tiny.ADVANTAGES)
    terms, _ = objectives.surrogate_loss(logprobs, old, advantages, groups.mask, *surrogate_of(settings))
    if settings["beta"]:
        estimator: objectives.Estimator = "k3_weighted" if settings["use_bias_correction_kl"] else "k3"
        reference = torch.tensor(case["ref_per_token_logps"])
        terms = terms + settings["beta"] * objectives.kl(logprobs, reference, estimator)
    if settings["entropy_coef"]:
        terms = terms - settings["entropy_coef"] * entropy
    reduction = REDUCTIONS[settings["loss_type"]]
    keep = torch.ones(len(groups), dtype=torch.bool)
    total, count = objectives.reduce_tokens(terms, groups.mask, reduction, settings["max_completion_length"], keep)
    assert_equal(case, total / count, policy.trunk.network)


def test_clipping_acts_in_the_goldens() -> None:
    """The GRPO rows exercise the clip: some ratios of the golden lie outside [0.8, 1.28], some inside."""
    case = golden("grpo")["cases"]["token_mean"]
    answers = [
        (context, answer) for context, group in zip(tiny.CONTEXTS, tiny.ANSWERS, strict=False) for answer in group
    ]
    ratios = []
    for (context, answer), old in zip(answers, case["old_per_token_logps"], strict=True):
        now = tiny.logprobs(tiny.policy(), context, answer)
        ratios += torch.tensor(now).sub(torch.tensor(old[: len(now)])).exp().tolist()
    outside = [ratio for ratio in ratios if not 0.8 <= ratio <= 1.28]
    assert len(ratios) == 32
    assert 5 <= len(outside) <= 27

"""What sampler and trainer differ by: the figures, their limits in each precision, rounding told from a fault."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smolt.errors import SelfCheckError
from smolt.models.groups import Groups, from_answers
from smolt.models.roles import Policy
from smolt.training.mismatch import check_first_ratio, check_mismatch, mismatch
from smolt.training.objectives import truncated_weights
from tests import tiny_models
from tests.deep import deep_model

MASK = torch.tensor([[True, True, True], [True, False, False]])
HALF = [torch.bfloat16, torch.float16]


class Answering:
    """A policy that gives set log-probabilities, others in fp32."""

    def __init__(self, dtype: torch.dtype, here: Tensor, exact: Tensor) -> None:
        self.trunk = Standing(dtype)
        self.here, self.exact = here, exact

    def __call__(self, groups: Groups, temperature: float) -> tuple[Tensor, Tensor]:
        held = self.exact if self.trunk.exact else self.here
        return held[: len(groups), : groups.mask.shape[1]], held


class Standing:
    """What a policy's trunk says of its precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.precision: Any = type("Precision", (), {"dtype": dtype})
        self.exact = False

    def in_full_precision(self) -> "Standing":
        return self

    def __enter__(self) -> None:
        self.exact = True

    def __exit__(self, *_: object) -> None:
        self.exact = False


def answers(tokens: int, sampled: Tensor) -> Groups:
    return from_answers([[1]], [[[2] * tokens]]).with_columns(sampled=sampled)


def test_figures_of_four_tokens() -> None:
    """|0.1|, |-0.2|, 0 and |0.3| on real tokens: mean 0.15, maximum 0.3; k3 = e^-d - 1 + d summed by hand."""
    sampled = torch.tensor([[0.1, -0.2, 0.0], [0.3, 9.0, math.nan]])
    found = mismatch(sampled, torch.zeros(2, 3), MASK)
    k3 = sum(math.exp(-d) - 1 + d for d in (0.1, -0.2, 0.0, 0.3)) / 4
    expected = {"mismatch": 0.15, "mismatch_max": 0.3, "mismatch_kl": k3}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    # Linear between the sorted values 0.2 and 0.3, at places 0.99 * 3 and 0.999 * 3.
    assert (found["mismatch_99"], found["mismatch_999"]) == pytest.approx((0.297, 0.2997), rel=1e-5)


def test_fp32_is_held_to_1e_4_at_every_token() -> None:
    """One token of 200 at 2e-4 is a fault; all at 9e-5 is rounding."""
    sampled = torch.zeros(1, 200)
    groups = answers(200, sampled)
    policy: Any = Answering(torch.float32, sampled, sampled)
    check_mismatch(policy, groups, mismatch(sampled, sampled - 9e-5, groups.mask), 1.0)
    one = sampled.clone()
    one[0, 7] = 2e-4
    with pytest.raises(SelfCheckError, match=r"2.0e-04 at most in fp32 \(allowed 1.0e-04\): template, temperature"):
        check_mismatch(policy, groups, mismatch(sampled, one, groups.mask), 1.0)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_a_number_never_passes(dtype: torch.dtype, bad: float) -> None:
    sampled = torch.zeros(1, 200)
    groups = answers(200, sampled)
    wrong = sampled.clone()
    wrong[0, 3] = bad
    policy: Any = Answering(dtype, wrong, sampled)
    with pytest.raises(SelfCheckError):
        check_mismatch(policy, groups, mismatch(sampled, wrong, groups.mask), 1.0)


@pytest.mark.parametrize("dtype", HALF)
def test_one_token_far_off_is_no_fault_in_half_precision(dtype: torch.dtype) -> None:
    """0.5 at 1 of 200 tokens (seen on a real model) passes: the mean is 0.0025 and the KL 0.0005."""
    sampled = torch.zeros(1, 200)
    groups = answers(200, sampled)
    other = sampled.clone()
    other[0, 5] = -0.5
    policy: Any = Answering(dtype, other, sampled)
    check_mismatch(policy, groups, mismatch(sampled, other, groups.mask), 1.0)


def test_few_tokens_get_room() -> None:
    """One token of 20 off by 0.5 (KL 0.0053) is within 0.004 * (1 + 64 / 20); one of 4 (0.027) within 0.004 * 17."""
    for tokens in (20, 4):
        sampled = torch.zeros(1, tokens)
        groups, other = answers(tokens, sampled), torch.zeros(1, tokens)
        other[0, 1] = -0.5
        policy: Any = Answering(torch.bfloat16, other, sampled)
        check_mismatch(policy, groups, mismatch(sampled, other, groups.mask), 1.0)


def test_rounding_is_told_from_a_fault() -> None:
    """Sampler and trainer 0.2 apart: rounding where the trainer is 0.15 off fp32, a fault where it is 0.01 off."""
    sampled = torch.zeros(1, 300)
    groups, here = answers(300, sampled), torch.full((1, 300), 0.2)
    figures = mismatch(sampled, here, groups.mask)
    rounding: Any = Answering(torch.bfloat16, here, torch.full((1, 300), 0.05))
    with pytest.raises(SelfCheckError, match=r"in bf16 .*rounding in half precision, not a fault.*model\.dtype=fp32"):
        check_mismatch(rounding, groups, figures, 1.0)
    fault: Any = Answering(torch.bfloat16, here, torch.full((1, 300), 0.19))
    with pytest.raises(SelfCheckError, match=r"in bf16 .*a fault, not rounding.*template, temperature"):
        check_mismatch(fault, groups, figures, 1.0)


def test_a_real_network_that_rounds_much(tmp_path: Path) -> None:
    """24 layers with wide weights: bf16 moves log-probabilities by over 0.1, and the check says that it is that."""
    policy = tiny_models.open_adapted(deep_model(tmp_path / "deep", layers=24, spread=0.12), dtype="bf16")
    groups = from_answers([list(range(5, 25))], [[list(range(5 * n, 5 * n + 60)) for n in range(1, 9)]])
    with torch.no_grad(), policy.trunk.in_full_precision():
        sampled = policy(groups)[0]
    with torch.no_grad():
        here = policy(groups)[0]
    figures = mismatch(sampled, here, groups.mask)
    assert figures["mismatch"] > 0.1
    with pytest.raises(SelfCheckError, match="not a fault"):
        check_mismatch(policy, groups.with_columns(sampled=sampled), figures, 1.0)


def test_the_first_ratio_names_its_precision() -> None:
    with pytest.raises(SelfCheckError, match=r"off 1 by 2.0e-02 on average in bf16 \(allowed 1e-02\)"):
        check_first_ratio(0, {"ratio_error": 2e-2}, torch.bfloat16)


def test_truncated_weights() -> None:
    """pi_train / pi_sampler: e^0.5, e^-0.5 and e^3 cut at 2; no gradient goes through them."""
    old = torch.tensor([[-1.0, -2.0, -1.0]], requires_grad=True)
    weights = truncated_weights(old, torch.tensor([[-1.5, -1.5, -4.0]]), 2.0)
    assert weights.tolist() == [pytest.approx([math.exp(0.5), math.exp(-0.5), 2.0])]
    assert not weights.requires_grad


def test_the_precision_comes_back(tmp_path: Path) -> None:
    """After a moment in fp32 the stored weights are bit for bit the same and log-probabilities equal."""
    policy: Policy = tiny_models.open_adapted(deep_model(tmp_path / "deep", layers=2), dtype="bf16")
    groups = from_answers([[5, 6]], [[[7, 8, 9]]])
    with torch.no_grad():
        before = policy(groups)[0]
        with policy.trunk.in_full_precision():
            assert not torch.equal(policy(groups)[0], before)
        assert torch.equal(policy(groups)[0], before)

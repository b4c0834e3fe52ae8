"""The arithmetic of numerics against values derived by hand in each docstring. log 2 = 0.6931472 throughout."""

import math

import pytest
import torch
from torch import Tensor

from smolt.models.groups import answer_sums, masked_sum
from smolt.training import objectives

NAN = float("nan")
LOG2 = math.log(2)


def logs(*ratios: float) -> Tensor:
    """Log-ratios [1, T] with the given ratios."""
    return torch.tensor([ratios], dtype=torch.float64).log()


def everything(values: Tensor) -> Tensor:
    """A mask without padding."""
    return torch.ones_like(values, dtype=torch.bool)


# --- sums -------------------------------------------------------------------------------------------------------------


def test_padding_contributes_exactly_zero() -> None:
    """1 + 2 on the first answer, 4 on the second; NaN and infinity stand on padding: total 7, answers 3 and 4."""
    values = torch.tensor([[1.0, 2.0, NAN], [4.0, float("inf"), NAN]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_sum(values, mask).item() == 7.0
    assert answer_sums(values, mask).tolist() == [3.0, 4.0]


def test_padding_gets_no_gradient() -> None:
    """d(sum)/d(value) is 1 on real tokens and exactly 0 on padding, where the value is NaN."""
    values = torch.tensor([[1.0, NAN]], requires_grad=True)
    masked_sum(values, torch.tensor([[True, False]])).backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[1.0, 0.0]]


def test_whiten_over_real_tokens() -> None:
    """Real tokens 1, 2, 3: mean 2, unbiased variance 1, so -1, 0, 1; the 100 on padding plays no part and becomes 0."""
    mask = torch.tensor([[True, True], [True, False]])
    whitened = objectives.whiten(torch.tensor([[1.0, 2.0], [3.0, 100.0]]), mask)
    assert whitened.flatten().tolist() == pytest.approx([-1.0, 0.0, 1.0, 0.0], abs=1e-6)


def test_whiten_leaves_a_single_token_alone() -> None:
    """One token has no deviation: it stays 5, its padding becomes 0."""
    assert objectives.whiten(torch.tensor([[5.0, 9.0]]), torch.tensor([[True, False]])).tolist() == [[5.0, 0.0]]


# --- preferences ------------------------------------------------------------------------------------------------------


def test_bradley_terry() -> None:
    """Scores chosen 2, 0, rejected 2 - log 3, 0: leads log 3 and 0.

    sigmoid(log 3) = 3/4, so the losses are log(4/3) and log 2.
    """
    chosen, rejected = torch.tensor([2.0, 0.0]), torch.tensor([2.0 - math.log(3), 0.0])
    losses = objectives.bradley_terry(chosen, rejected, torch.ones(2))
    assert losses.tolist() == pytest.approx([math.log(4 / 3), LOG2], abs=1e-6)


def test_bradley_terry_margin_weight_and_centering() -> None:
    """Lead log 3: with margin log 3 the loss is log 2.

    With weight 1/4: 1/4 log(4/3) + 3/4 log 4 = 0.0719205 + 1.0397208 = 1.1116413.
    Centering 0.01 on scores log 3 and 0 adds 0.01 (log 3)^2 = 0.0120695 to log(4/3).
    """
    chosen, rejected, one = torch.tensor([math.log(3)]), torch.zeros(1), torch.ones(1)
    assert objectives.bradley_terry(chosen, rejected, one, margin=math.log(3)).item() == pytest.approx(LOG2, abs=1e-6)
    assert objectives.bradley_terry(chosen, rejected, one / 4).item() == pytest.approx(1.1116413, abs=1e-6)
    centered = objectives.bradley_terry(chosen, rejected, one, centering=0.01)
    assert centered.item() == pytest.approx(math.log(4 / 3) + 0.0120695, abs=1e-6)


def test_dpo_sigmoid() -> None:
    """Lead 2 log 3 at beta 1/2: h = log 3, sigmoid 3/4, loss log(4/3).

    Label smoothing 1/5: 4/5 log(4/3) + 1/5 log 4 = 0.2301457 + 0.2772589 = 0.5074046. A hard label the wrong way round
    (weight 0) costs log 4. Smoothing a weight of 1/2 changes nothing: (log(4/3) + log 4) / 2.
    """
    lead, one = torch.tensor([2 * math.log(3)]), torch.ones(1)
    assert objectives.dpo_sigmoid(lead, 0.5, one).item() == pytest.approx(math.log(4 / 3), abs=1e-6)
    assert objectives.dpo_sigmoid(lead, 0.5, one, 0.2).item() == pytest.approx(0.5074046, abs=1e-6)
    assert objectives.dpo_sigmoid(lead, 0.5, 0 * one).item() == pytest.approx(math.log(4), abs=1e-6)
    even = (math.log(4 / 3) + math.log(4)) / 2
    assert objectives.dpo_sigmoid(lead, 0.5, one / 2, 0.3).item() == pytest.approx(even, abs=1e-6)


def test_dpo_gradient_at_the_start() -> None:
    """Policy = reference: lead 0, loss log 2, gradient -beta sigmoid(0) = -beta / 2."""
    lead = torch.zeros(1, requires_grad=True)
    loss = objectives.dpo_sigmoid(lead, 0.1, torch.ones(1))
    loss.sum().backward()
    assert loss.item() == pytest.approx(LOG2, abs=1e-7)
    assert lead.grad is not None
    assert lead.grad.item() == pytest.approx(-0.05, abs=1e-8)


def test_kahneman_tversky() -> None:
    """Beta 1/2, KL 1: ratio 1 + 2 log 3 leads by h = log 3: a desirable answer costs 1 - 3/4, an undesirable one 3/4.

    Weights 2 and 4: 0.5 and 3. At the KL itself each costs half its weight, and the gradients are -+ weight beta / 4.
    """
    ratio, kl = torch.tensor([1 + 2 * math.log(3)] * 2), torch.ones(2)
    kinds = torch.tensor([True, False])
    assert objectives.kahneman_tversky(ratio, kl, kinds, 0.5, 2.0, 4.0).tolist() == pytest.approx([0.5, 3.0])
    start = torch.ones(2, requires_grad=True)
    losses = objectives.kahneman_tversky(start, kl, kinds, 0.5, 2.0, 4.0)
    losses.sum().backward()
    assert losses.tolist() == [1.0, 2.0]
    assert start.grad is not None
    assert start.grad.tolist() == pytest.approx([-0.25, 0.5])


def test_ipo() -> None:
    """Beta 0.1: target 5. h = 2 costs (2 - 5)^2 = 9; weight 3/4: 3/4 * 9 + 1/4 * (-2 - 5)^2 = 6.75 + 12.25 = 19."""
    lead = torch.tensor([2.0, 2.0])
    assert objectives.ipo(lead, 0.1, torch.tensor([1.0, 0.75])).tolist() == pytest.approx([9.0, 19.0])


def test_simpo() -> None:
    """Beta 2, gamma log 3, lead log 3 a token: 2 log 3 - log 3 = log 3, sigmoid 3/4, loss log(4/3).

    The wrong way round (weight 0): -2 log 3 - log 3 = log(1/27), sigmoid 1/28, loss log 28; so is the pair turned.
    """
    lead, one, gamma = torch.tensor([math.log(3)]), torch.ones(1), math.log(3)
    assert objectives.simpo(lead, 2.0, gamma, one).item() == pytest.approx(math.log(4 / 3), abs=1e-6)
    assert objectives.simpo(lead, 2.0, gamma, 0 * one).item() == pytest.approx(math.log(28), abs=1e-5)
    assert objectives.simpo(-lead, 2.0, gamma, one).item() == pytest.approx(math.log(28), abs=1e-5)


def test_log_odds() -> None:
    """P = 3/4 has odds 3, 1/2 odds 1, 1e-30 odds 1e-30; certainty (log 1) stays finite, and so does its gradient."""
    logs_of = torch.tensor([0.75, 0.5, 1e-30, 1.0]).log().requires_grad_()
    odds = objectives.log_odds(logs_of)
    assert odds[:3].tolist() == pytest.approx([math.log(3), 0.0, math.log(1e-30)], abs=1e-5)
    assert odds[3].item() > 16
    odds.sum().backward()
    assert logs_of.grad is not None
    assert bool(logs_of.grad.isfinite().all())


# --- KL and actor-critic ----------------------------------------------------------------------------------------------


def test_kl_estimators() -> None:
    """Policy twice as sure as the reference (lr = log 2), then half (lr = -log 2).

    k1 = +-0.6931472; k2 = 0.2402265 both; k3 = 1/2 - 1 + log 2 = 0.1931472, then 2 - 1 - log 2 = 0.3068528.
    The weighted k3 has k3's value.
    """
    policy, reference = logs(0.5, 0.25), logs(0.25, 0.5)
    expected: dict[objectives.Estimator, list[float]] = {
        "k1": [LOG2, -LOG2],
        "k2": [0.2402265, 0.2402265],
        "k3": [0.1931472, 0.3068528],
        "k3_weighted": [0.1931472, 0.3068528],
    }
    for estimator, values in expected.items():
        assert objectives.kl(policy, reference, estimator)[0].tolist() == pytest.approx(values, abs=1e-7)


def test_token_rewards_put_the_score_on_the_last_real_token() -> None:
    """Coefficient 0.1, k1 = 1, 2, 3 and score 10 on an answer of three tokens; k1 = 4 and score -1 on one of one.

    -0.1, -0.2, 10 - 0.3 and -1 - 0.4, then exactly 0 where padding holds NaN. Row sums = score - 0.1 KL.
    """
    logprobs = torch.tensor([[1.0, 2.0, 3.0], [4.0, NAN, NAN]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    rewards = objectives.token_rewards(torch.tensor([10.0, -1.0]), logprobs, torch.zeros(2, 3), mask, 0.1)
    assert rewards[0].tolist() == pytest.approx([-0.1, -0.2, 9.7], abs=1e-6)
    assert rewards[1].tolist() == pytest.approx([-1.4, 0.0, 0.0], abs=1e-6)


def test_clipped_policy_loss() -> None:
    """Ratios 1.5, 0.5, 1.5, 0.5, 1 with advantages 2, 2, -2, -2, 2 and clip 0.2 / 0.28.

    min(3, 2.56) = 2.56 (clipped); min(1, 1.6) = 1 (not: the ratio is already worse); min(-3, -2.56) = -3 (not);
    min(-1, -1.6) = -1.6 (clipped); 2. The loss is the negative.
    """
    ratios = logs(1.5, 0.5, 1.5, 0.5, 1.0)
    advantages = torch.tensor([[2.0, 2.0, -2.0, -2.0, 2.0]])
    loss, clipped = objectives.clipped_policy_loss(ratios, torch.zeros_like(ratios), advantages, 0.2, 0.28)
    assert loss[0].tolist() == pytest.approx([-2.56, -1.0, 3.0, 1.6, -2.0], abs=1e-6)
    assert clipped[0].tolist() == [True, False, False, True, False]


def test_a_clipped_token_gets_no_gradient() -> None:
    """Ratio 1.5, advantage 2, clip at 1.28: gradient 0. Ratio 1: gradient -ratio * advantage = -2."""
    logprobs = logs(1.5, 1.0).requires_grad_()
    advantages = torch.full((1, 2), 2.0, dtype=torch.float64)
    loss, _ = objectives.clipped_policy_loss(logprobs, torch.zeros(1, 2), advantages, 0.2, 0.28)
    loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad[0].tolist() == pytest.approx([0.0, -2.0])


def test_value_loss() -> None:
    """V = 3, R = 1: 0.5 * 4 = 2. Clipped to 0.5 around the old value 0: (0.5 - 1)^2 = 0.25 < 4, so still 2.

    V = 1, old 3, R = 1, clip 0.5: plain 0, clipped value 2.5, 0.5 * 2.25 = 1.125.
    """
    values, old, returns = torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0, 1.0]])
    assert objectives.value_loss(values, old, returns, None).tolist() == [[2.0, 0.0]]
    assert objectives.value_loss(values, old, returns, 0.5).tolist() == [[2.0, 1.125]]


def test_adapted_coefficient() -> None:
    """Target 6, gain 0.1. KL 6: unchanged. KL 6.6: error 0.1, x 1.01. KL 60: clipped to 0.2, x 1.02. KL 0: x 0.98."""
    found = [objectives.adapted_coefficient(0.5, observed, 6.0, 0.1) for observed in (6.0, 6.6, 60.0, 0.0)]
    assert found == pytest.approx([0.5, 0.505, 0.51, 0.49])


# --- groups -----------------------------------------------------------------------------------------------------------

REWARDS = torch.tensor([1.0, 0.0, 0.0, 1.0, 5.0, 1.0, 3.0])
OWNERS = torch.tensor([0, 0, 0, 0, 1, 1, 1])


def test_group_advantages_with_the_mean_of_the_group() -> None:
    """Means 1/2 and 3: 0.5, -0.5, -0.5, 0.5 and 2, -2, 0."""
    advantages, keep = objectives.group_advantages(REWARDS, OWNERS)
    assert advantages.tolist() == [0.5, -0.5, -0.5, 0.5, 2.0, -2.0, 0.0]
    assert keep.all()


def test_group_advantages_leave_one_out() -> None:
    """First of group 0: 1 - mean(0, 0, 1) = 2/3. First of group 1: 5 - mean(1, 3) = 3; then 1 - 4 = -3, 3 - 3 = 0."""
    advantages, _ = objectives.group_advantages(REWARDS, OWNERS, baseline="leave_one_out")
    assert advantages.tolist() == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3, 3.0, -3.0, 0.0])


def test_group_advantages_scaled() -> None:
    """Unbiased deviations: group 0 sqrt(4 * 0.25 / 3) = 0.5773503, group 1 sqrt(8 / 2) = 2.

    Batch: mean 11/7, sum of squares 37 - 121/7 = 19.7142857, deviation sqrt(19.7142857 / 6) = 1.8126539. eps 0 here.
    """
    by_group, _ = objectives.group_advantages(REWARDS, OWNERS, scale="group", eps=0.0)
    assert by_group[[0, 4, 5]].tolist() == pytest.approx([0.5 / 0.5773503, 1.0, -1.0], abs=1e-6)
    by_batch, _ = objectives.group_advantages(REWARDS, OWNERS, scale="batch", eps=0.0)
    assert by_batch[[0, 4]].tolist() == pytest.approx([0.5 / 1.8126539, 2.0 / 1.8126539], abs=1e-6)


def test_groups_without_signal_are_dropped() -> None:
    """Group 0: two equal rewards, dropped (kept with advantage 0 when asked). Group 1: one abstains, 2 and 4 remain.

    Group 2: only one valid reward is left, so it is dropped even then. The abstaining answer is never kept.
    """
    rewards, owners = torch.tensor([1.0, 1.0, 2.0, NAN, 4.0, 7.0, NAN]), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    advantages, keep = objectives.group_advantages(rewards, owners)
    assert advantages.tolist() == [0.0, 0.0, -1.0, 0.0, 1.0, 0.0, 0.0]
    assert keep.tolist() == [False, False, True, False, True, False, False]
    _, kept = objectives.group_advantages(rewards, owners, keep_empty=True)
    assert kept.tolist() == [True, True, True, False, True, False, False]


def test_sequence_surrogate() -> None:
    """Ratios 2 and 1/2 on one answer: geometric mean 1, so every token costs -A = -3. Alone, 2 is clipped to 1.28."""
    ratios = torch.tensor([[2.0, 0.5], [2.0, NAN]], dtype=torch.float64).log()
    mask = torch.tensor([[True, True], [True, False]])
    old = torch.zeros_like(ratios)
    loss, clipped = objectives.surrogate_loss(ratios, old, torch.tensor([3.0, 3.0]), mask, "sequence", 0.2, 0.28)
    assert loss[0].tolist() == pytest.approx([-3.0, -3.0])
    assert loss[1, 0].item() == pytest.approx(-3.84)
    assert clipped[:, 0].tolist() == [False, True]


def test_sequence_surrogate_gradient() -> None:
    """Two tokens at ratio 1, A = 3, summed over tokens: each token's loss moves each log-prob by -3/2, so -3 in all."""
    logprobs = torch.zeros(1, 2, requires_grad=True)
    mask = everything(logprobs)
    loss, _ = objectives.surrogate_loss(logprobs, torch.zeros(1, 2), torch.tensor([3.0]), mask, "sequence", 0.2, 0.28)
    loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-3.0, -3.0]]


def test_cispo_surrogate() -> None:
    """Ratio 2 clipped to 1.28 and detached: the loss is -1.28 A log pi and its gradient -1.28 A = -3.84, not 0."""
    logprobs = logs(0.5).requires_grad_()
    old, advantages = logs(0.25), torch.tensor([3.0], dtype=torch.float64)
    loss, clipped = objectives.surrogate_loss(logprobs, old, advantages, everything(logprobs), "cispo", 0.2, 0.28)
    loss.sum().backward()
    assert loss.item() == pytest.approx(3.84 * LOG2)
    assert bool(clipped.all())
    assert logprobs.grad is not None
    assert logprobs.grad.item() == pytest.approx(-3.84)


TERMS = torch.tensor([[1.0, 2.0, 3.0], [8.0, NAN, NAN], [50.0, 60.0, NAN]])
TERM_MASK = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
KEEP = torch.tensor([True, True, False])


@pytest.mark.parametrize(
    ("reduction", "total", "count"),
    [("token", 14.0, 4.0), ("answer", 10.0, 2.0), ("constant", 1.4, 2.0)],
)
def test_reduce_tokens(reduction: objectives.Reduction, total: float, count: float) -> None:
    """Answers 1, 2, 3 and 8 are kept, the third is dropped from both total and count; the limit is 10 tokens.

    token: 14 over 4 tokens. answer: 2 + 8 over 2 answers. constant: 14 / 10 over 2 answers.
    """
    found = objectives.reduce_tokens(TERMS, TERM_MASK, reduction, longest=10, keep=KEEP)
    assert found[0].item() == pytest.approx(total)
    assert found[1] == count


@pytest.mark.parametrize("reduction", ["token", "answer", "constant"])
def test_nothing_kept_counts_nothing(reduction: objectives.Reduction) -> None:
    """All answers dropped: total 0 and count 0, no NaN."""
    total, count = objectives.reduce_tokens(TERMS, TERM_MASK, reduction, 10, torch.zeros(3, dtype=torch.bool))
    assert (total.item(), count) == (0.0, 0.0)

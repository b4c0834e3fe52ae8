"""The arithmetic of every objective, as pure functions on tensors.

Notation: B answers, T answer tokens, P pairs; `mask` is bool [B, T], true on real answer tokens. Formulas and their
sources are listed in docs/why/sources.md; nothing here knows of models, streams or files.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from smolt.models.groups import answer_sums, masked_sum

Baseline = Literal["mean", "leave_one_out"]
Scale = Literal["none", "group", "batch"]
Reduction = Literal["token", "answer", "constant"]
Surrogate = Literal["clip", "sequence", "cispo"]
Estimator = Literal["k1", "k2", "k3", "k3_weighted"]


def distribution(name: str, values: Tensor) -> dict[str, float]:
    """Mean, 99 % and 99.9 % quantile and maximum of some values, at least one: `name`, `name_99`, `name_999`, ..."""
    high, higher = torch.quantile(values.float(), torch.tensor([0.99, 0.999], device=values.device)).tolist()
    mean, most = float(values.mean()), float(values.max())
    return {name: mean, f"{name}_99": high, f"{name}_999": higher, f"{name}_max": most}


def whiten(values: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Zero mean and unit (unbiased) variance over the real tokens of the whole batch; padding becomes zero."""
    real = values[mask]
    if real.numel() < 2:
        return values.masked_fill(~mask, 0.0)
    scaled = (values - real.mean()) * torch.rsqrt(real.var() + eps)
    return scaled.masked_fill(~mask, 0.0)


def bradley_terry(
    chosen: Tensor, rejected: Tensor, weight: Tensor, margin: float = 0.0, centering: float = 0.0
) -> Tensor:
    """Reward-model loss of each pair, [P] (2203.02155 eq. 1, soft labels by `weight`; centering: 2312.09244).

    Args:
        chosen: scores of the chosen answers, [P].
        rejected: scores of the rejected answers, [P].
        weight: probability that chosen is better, [P] in [0, 1].
        margin: what the chosen answer should lead by.
        centering: coefficient of (chosen + rejected)^2.
    """
    lead = chosen - rejected - margin
    loss = -(weight * logsigmoid(lead) + (1 - weight) * logsigmoid(-lead))
    return loss + centering * (chosen + rejected) ** 2


def dpo_sigmoid(lead: Tensor, beta: float, weight: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """DPO loss of each pair, [P] (2305.18290 eq. 7; label smoothing as in conservative DPO).

    Of leads without a reference it is CPO's (2401.08417 eq. 3), of log odds with beta 1 ORPO's (2403.07691 eq. 7).

    Args:
        lead: (log pi - log ref)(chosen) - (log pi - log ref)(rejected), token SUMS, [P].
        beta: strength of the implicit KL penalty, > 0.
        weight: probability that chosen is better, [P].
        label_smoothing: probability in [0, 0.5) that a label is flipped.
    """
    right = weight * (1 - label_smoothing) + (1 - weight) * label_smoothing
    return -(right * logsigmoid(beta * lead) + (1 - right) * logsigmoid(-beta * lead))


def simpo(average_lead: Tensor, beta: float, gamma: float, weight: Tensor) -> Tensor:
    """SimPO loss of each pair, [P] (2405.14734 eq. 6): beta times the lead is to exceed gamma.

    Args:
        average_lead: mean log pi of a token of the chosen answer minus that of the rejected one, [P].
        beta: scale of the means, > 0.
        gamma: target margin, >= 0.
        weight: probability that chosen is better, [P].
    """
    lead = beta * average_lead
    return -(weight * logsigmoid(lead - gamma) + (1 - weight) * logsigmoid(-lead - gamma))


def log_odds(average: Tensor) -> Tensor:
    """Log of p / (1 - p), [any], of p = exp(mean log pi of an answer token) (2403.07691 eq. 4)."""
    return average - torch.log(-torch.expm1(average.clamp(max=-1e-7)))


def kahneman_tversky(
    ratio: Tensor, kl: Tensor, desirable: Tensor, beta: float, desirable_weight: float, undesirable_weight: float
) -> Tensor:
    """KTO loss of each answer, [B] (2402.01306 eq. 7): its weight times (1 - the value that people would give it).

    Args:
        ratio: log pi - log ref of the answer, token SUMS, [B].
        kl: estimate of KL(policy || reference), >= 0, a constant, [B].
        desirable: bool [B].
        beta: how quickly the value of a better answer levels off, > 0.
        desirable_weight: of a desirable answer.
        undesirable_weight: of an undesirable answer.
    """
    lead = torch.where(desirable, ratio - kl, kl - ratio)
    return torch.where(desirable, desirable_weight, undesirable_weight) * torch.sigmoid(-beta * lead)


def cross_entropy(logprobs: Tensor, expected: Tensor) -> Tensor:
    """-sum over options of e log p of each question, in nats, [B]: the log score (Good 1952).

    Args:
        logprobs: of each question's options, [B, L]; -inf where it has no further one.
        expected: probabilities, [B, L]; 0 there.
    """
    return -(expected * logprobs.masked_fill(expected == 0, 0.0)).sum(dim=1)


def brier(logprobs: Tensor, expected: Tensor) -> Tensor:
    """Sum over options of (p - e)^2 of each question, 0 to 2, [B] (Brier 1950); arguments as of `cross_entropy`."""
    return ((logprobs.exp() - expected) ** 2).sum(dim=1)


def ipo(average_lead: Tensor, beta: float, weight: Tensor) -> Tensor:
    """IPO loss of each pair, [P] (2310.12036 eq. 17): (h - 1/(2 beta))^2 with h of per-token AVERAGES, without beta."""
    target = 1 / (2 * beta)
    return weight * (average_lead - target) ** 2 + (1 - weight) * (-average_lead - target) ** 2


def kl(logprobs: Tensor, reference: Tensor, estimator: Estimator = "k1") -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens the policy sampled, [B, T].

    k1 = log pi - log ref (unbiased, signed); k2 = k1^2 / 2, whose gradient is the reverse-KL gradient on-policy;
    k3 = exp(-k1) - 1 + k1 (unbiased, >= 0); k3_weighted = k3 times the ratio pi / pi.detach(), whose gradient is the
    reverse-KL gradient while plain k3's is not (http://joschu.net/blog/kl-approx.html).
    """
    difference = logprobs - reference
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference**2 / 2
    k3 = torch.exp(-difference) - 1 + difference
    return k3 if estimator == "k3" else k3 * torch.exp(logprobs - logprobs.detach())


def token_rewards(scores: Tensor, logprobs: Tensor, reference: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """-coefficient * k1 on every token plus the score on the LAST REAL answer token, [B, T] (1909.08593)."""
    rewards = (-coefficient * kl(logprobs, reference)).masked_fill(~mask, 0.0)
    last = mask.sum(dim=1) - 1
    return rewards.scatter_add(1, last[:, None], scores[:, None].to(rewards.dtype))


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns, both [B, T] (1506.02438 eq. 16); the value after the last real token is zero.

    Args:
        rewards: [B, T].
        values: value of the state BEFORE answer token t, [B, T].
        mask: bool [B, T].
        gamma: discount in [0, 1].
        lam: GAE's lambda in [0, 1].
    """
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(rewards)
    following_value = torch.zeros_like(rewards[:, 0])
    following_advantage = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * following_value - values[:, t]
        following_advantage = (delta + gamma * lam * following_advantage) * mask[:, t]
        following_value = values[:, t]
        advantages[:, t] = following_advantage
    return advantages, advantages + values


def clipped_policy_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A) per token and where the clip acts, both [B, T] (1707.06347 eq. 7)."""
    ratio = torch.exp(logprobs - old)
    plain, clipped = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    return -torch.minimum(plain, clipped), clipped < plain


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """0.5 (V - R)^2 per token, [B, T]; with `clip` the larger of it and the clipped one (1909.08593, 2403.17031)."""
    plain = (values - returns) ** 2
    if clip is None:
        return 0.5 * plain
    clipped = (old + (values - old).clamp(-clip, clip) - returns) ** 2
    return 0.5 * torch.maximum(plain, clipped)


def adapted_coefficient(coefficient: float, sequence_kl: float, target: float, gain: float) -> float:
    """Next KL coefficient (1909.08593 section 2.2): e = clip(KL / target - 1, +-0.2); coefficient * (1 + gain * e)."""
    error = min(max(sequence_kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + gain * error)


def group_advantages(
    rewards: Tensor,
    owners: Tensor,
    baseline: Baseline = "mean",
    scale: Scale = "none",
    keep_empty: bool = False,
    eps: float = 1e-4,
) -> tuple[Tensor, Tensor]:
    """Advantage of each answer against its group and which answers to learn from, both [B].

    A_i = r_i - mean of the group (2402.03300), or minus the mean of the OTHERS (RLOO, 2402.14740); divided by
    (std + eps) of the group or of the batch (unbiased) if asked. Answers whose reward is NaN abstained: they have no
    advantage. A group with fewer than two valid rewards is dropped, and so is one whose rewards are all equal unless
    `keep_empty`.

    Args:
        rewards: [B], NaN where the rater abstained.
        owners: group of each answer, int64 [B].
        baseline: what is subtracted.
        scale: what divides.
        keep_empty: keep groups without signal (their advantage is zero).
        eps: added to the standard deviation.
    """
    advantages = torch.zeros_like(rewards)
    keep = torch.zeros_like(rewards, dtype=torch.bool)
    valid = ~torch.isnan(rewards)
    batch_std = rewards[valid].std() if int(valid.sum()) > 1 else rewards.new_tensor(0.0)
    for owner in owners.unique():
        rows = (owners == owner) & valid
        n = int(rows.sum())
        if n < 2:
            continue
        group = rewards[rows]
        if not keep_empty and bool((group == group[0]).all()):
            continue
        centred = group - group.mean()
        if baseline == "leave_one_out":
            centred = centred * n / (n - 1)
        if scale != "none":
            centred = centred / ((group.std() if scale == "group" else batch_std) + eps)
        advantages[rows] = centred
        keep |= rows
    return advantages, keep


def surrogate_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, surrogate: Surrogate, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """Policy loss per token and where the clip acts, both [B, T].

    clip: PPO's, per token (1707.06347); sequence: the ratio of the whole answer, its geometric mean per token (GSPO,
    2507.18071); cispo: the clipped ratio, detached, weighs a REINFORCE term (2506.13585).

    Args:
        logprobs: of the policy being trained, [B, T].
        old: of the policy that sampled, [B, T].
        advantages: one for each answer, [B].
        mask: bool [B, T].
        surrogate: which ratio and which clip.
        low: the ratio is clipped from below at 1 - low.
        high: and from above at 1 + high.
    """
    advantages = advantages[:, None].expand_as(logprobs)
    if surrogate == "cispo":
        ratio = torch.exp(logprobs - old).detach()
        weight = ratio.clamp(1 - low, 1 + high)
        return -weight * advantages * logprobs, weight != ratio
    if surrogate == "sequence":
        mean = answer_sums(logprobs - old, mask) / mask.sum(dim=1)
        logprobs, old = mean[:, None].expand_as(logprobs), torch.zeros_like(logprobs)
    return clipped_policy_loss(logprobs, old, advantages, low, high)


def truncated_weights(old: Tensor, sampled: Tensor, cap: float) -> Tensor:
    """min(pi_train / pi_sampler, cap) of each token, detached, [B, T]: truncated importance sampling.

    It corrects for tokens having been drawn by a sampler whose probabilities are not the training forward's
    (https://fengyao.notion.site/off-policy-rl; truncation: Ionides 2008); 1 where the two agree.

    Args:
        old: the training forward's log-probabilities before the first step, [B, T].
        sampled: the sampler's, [B, T].
        cap: >= 1, the largest weight.
    """
    return torch.exp(old - sampled).clamp(max=cap).detach()


def reduce_tokens(
    terms: Tensor, mask: Tensor, reduction: Reduction, longest: int, keep: Tensor
) -> tuple[Tensor, float]:
    """Total and count of per-token terms; the loss is the sum of totals over the sum of counts of a whole update.

    token: mean over all real tokens (DAPO, 2503.14476). answer: mean over answers of their token means (2402.03300,
    biased by length). constant: sum over tokens / (answers x longest) (Dr. GRPO, 2503.20783).

    Args:
        terms: [B, T].
        mask: bool [B, T].
        reduction: one of the three.
        longest: the sampling limit in tokens, used by `constant`.
        keep: bool [B], the answers to learn from; the others leave both total and count.
    """
    mask = mask & keep[:, None]
    if reduction == "token":
        return masked_sum(terms, mask), float(mask.sum())
    sums, answers = answer_sums(terms, mask), float(keep.sum())
    if reduction == "answer":
        return (sums / mask.sum(dim=1).clamp(min=1)).sum(), answers
    return sums.sum() / longest, answers

"""Rollout mismatch: what the sampler's log-probabilities and the training forward's differ by.

They are of the same tokens under the same weights, computed in another order. In fp32 that is 1e-5, and anything above
1e-4 is a fault. In half precision a state that is rounded the other way in an early layer moves every later one: single
tokens differ by 0.5 on a real model without any fault, so what is held there is the mean and the KL divergence per
token, and where a limit is exceeded the same answers are computed in fp32 to tell rounding from a fault.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from smolt.errors import SelfCheckError
from smolt.models.forward.precision import NAMES
from smolt.models.groups import Groups, answer_sums, masked_sum, without_gradient
from smolt.models.roles import Policy
from smolt.training.fit import Metrics
from smolt.training.objectives import distribution, kl

# Largest difference of one token in fp32; in half precision mean difference and KL(sampler, trainer) of a token in
# nats. Measured on SmolLM2-135M over 100 updates of GRPO and PPO: bench/results/2026-11-29-rollout-mismatch.md.
EXACT = {"mismatch_max": 1e-4}
HALF = {"mismatch": 0.08, "mismatch_kl": 0.004}
FEW = 64  # tokens that the limits of half precision are loosened by: one unlucky token is no fault of a short update
# Mean |ratio - 1| allowed before the first step of a rollout, whose old log-probabilities are computed with its cut.
FIRST_RATIO = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
ASKED_AGAIN = 8  # answers that are computed in fp32 when a limit is exceeded
AT_A_TIME = 4096  # tokens of a forward that looks for a cause
ROUNDING = 3.0  # times its own distance from fp32 that a forward in half precision is off another one by rounding


def mismatch(sampled: Tensor, recomputed: Tensor, mask: Tensor) -> Metrics:
    """The distribution of |sampled - recomputed| over real tokens, and their KL divergence per token.

    Args:
        sampled: log-probabilities that the sampler drew by, [B, T].
        recomputed: the training forward's of the same tokens, [B, T].
        mask: bool [B, T].

    Returns:
        `mismatch` (mean), `mismatch_99`, `mismatch_999`, `mismatch_max` and `mismatch_kl` (k3, nats a token).
    """
    apart = (sampled - recomputed).abs()[mask]
    return {
        **distribution("mismatch", apart),
        "mismatch_kl": float(kl(sampled, recomputed, "k3")[mask].mean()),
    }


def mismatch_parts(
    sampled: Tensor | None, recomputed: Tensor, mask: Tensor
) -> tuple[dict[str, Tensor], dict[str, tuple[float | Tensor, float]]]:
    """The same of a micro-batch, as a Loss takes it: the differences, and the KL's sum and count; nothing of None."""
    if sampled is None:
        return {}, {}
    apart = masked_sum(kl(sampled, recomputed, "k3"), mask)
    return {"mismatch": (sampled - recomputed).abs()[mask]}, {"mismatch_kl": (apart, float(mask.sum()))}


def check_mismatch(policy: Policy, groups: Groups, metrics: Mapping[str, float], temperature: float) -> None:
    """The sampler drew from the distribution that training recomputes, but for rounding.

    Args:
        policy: who answered; asked again in fp32 where a limit is exceeded.
        groups: the answers, with the column `sampled`.
        metrics: of them, as `mismatch` gives them.
        temperature: they were sampled at.

    Raises:
        SelfCheckError: names the precision, the figure, its limit, and whether it is rounding or a fault.
    """
    dtype = policy.trunk.precision.dtype
    limits = EXACT if dtype == torch.float32 else HALF
    room = 1.0 if dtype == torch.float32 else 1 + FEW / int(groups.mask.sum())
    for name, limit in limits.items():
        if not metrics[name] <= limit * room:
            figure = {"mismatch": "on average", "mismatch_kl": "in KL per token", "mismatch_max": "at most"}[name]
            raise SelfCheckError(
                f"sampled and recomputed log-probabilities differ by {metrics[name]:.1e} {figure} in {NAMES[dtype]} "
                f"(allowed {limit * room:.1e}): {_cause(policy, groups, temperature)}"
            )


def check_served(groups: Groups, metrics: Mapping[str, float], server: str) -> None:
    """A server drew from the distribution that training recomputes, but for rounding in its precision and in ours.

    It is held to the limits of half precision, for it may compute in one.

    Args:
        groups: its answers under the policy's weights of now, with the column `sampled`.
        metrics: of them, as `mismatch` gives them.
        server: for the message.

    Raises:
        SelfCheckError: names the figure, its limit, and the likely causes.
    """
    room = 1 + FEW / int(groups.mask.sum())
    for name, limit in HALF.items():
        if not metrics[name] <= limit * room:
            figure = {"mismatch": "on average", "mismatch_kl": "in KL per token"}[name]
            raise SelfCheckError(
                f"log-probabilities of {server} and recomputed ones differ by {metrics[name]:.1e} {figure} (allowed "
                f"{limit * room:.1e}): it computes another model than the recipe's, rounds its weights more coarsely "
                "(8 or 4 bits), or tells log-probabilities from before sampling.temperature (vLLM: --logprobs-mode "
                "processed_logprobs)"
            )


def _cause(policy: Policy, groups: Groups, temperature: float) -> str:
    """Rounding or a fault: some of the answers computed again, and in fp32.

    Two forwards in half precision that round differently are each about as far from fp32 as from one another; with
    another template, temperature, mask or target the training forward is near fp32, and the sampler far from both.
    """
    fault = "template, temperature, padding, dropout or targets differ between sampler and training"
    trunk = policy.trunk
    if trunk.precision.dtype == torch.float32:
        return fault
    few = _worst(policy, groups, temperature)
    with torch.no_grad():
        here, again = (policy(few, temperature)[0].cpu() for _ in range(2))
        with trunk.in_full_precision():
            exact = policy(few, temperature)[0].cpu()
    if not torch.equal(here, again):
        return "the same forward gives other numbers each time: dropout is on"
    apart, rounding = (float((side - here).abs()[few.mask].mean()) for side in (few.columns["sampled"], exact))
    measured = f"(of {len(few)} answers: training is {rounding:.1e} off fp32, the sampler {apart:.1e} off training)"
    if apart <= ROUNDING * rounding:
        return f"this model's rounding in half precision, not a fault {measured}; model.dtype=fp32 gets on"
    return f"a fault, not rounding {measured}: {fault}. model.dtype=fp32 shows it at a limit of 1e-4"


def _worst(policy: Policy, groups: Groups, temperature: float) -> Groups:
    """The answers in which sampler and training differ most, by their mean over tokens."""
    here = without_gradient(groups, AT_A_TIME, lambda part: policy(part, temperature)[0])
    apart = answer_sums((groups.columns["sampled"] - here).abs(), groups.mask) / groups.lengths
    return groups.select(apart.argsort(descending=True)[:ASKED_AGAIN].tolist())


def check_first_ratio(step: int, metrics: Mapping[str, float], dtype: torch.dtype) -> None:
    """Before the first optimizer step of a rollout the ratio is 1 and the clip does not act.

    Args:
        step: index of the optimizer step within the rollout.
        metrics: of the step, with `ratio_error`, the mean of |ratio - 1|.
        dtype: what the forward computes in.

    Raises:
        SelfCheckError: it is not.
    """
    if step == 0 and metrics.get("ratio_error", 0.0) > FIRST_RATIO[dtype]:
        raise SelfCheckError(
            f"the ratio before the first step of a rollout is off 1 by {metrics['ratio_error']:.1e} on average in "
            f"{NAMES[dtype]} (allowed {FIRST_RATIO[dtype]:.0e}): dropout is on, or old and new log-probabilities come "
            "from different forwards; they are computed with the same weights and the same cut, so rounding is no cause"
        )

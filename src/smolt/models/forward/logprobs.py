"""Log-probabilities of chosen tokens without ever holding all logits.

On a small model the vocabulary IS the memory (49,152 x 576 against 30 layers of 576 x 576): the head runs only on the
states that predict answer tokens, some rows at a time. The gradient of a log-probability with respect to its state is
the target's row of the head minus the expected row; while the head itself is frozen the forward pass computes that as
well and the backward pass only scales it: two products instead of three. A trained head is run again instead.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ENTRIES = 8 * 2**20  # logits computed at a time: 32 MiB in fp32; shorter products are slower


class _ChosenLogprobs(torch.autograd.Function):
    """(states [M, h], head [V, h], targets [M], temperature) -> (logprobs [M], entropy [M]), both fp32."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        needs_states, needs_head = ctx.needs_input_grad[:2]
        slopes = torch.empty_like(states) if needs_states and not needs_head else None
        normalizer = torch.empty(len(states), dtype=torch.float32, device=states.device)
        logprobs, entropy = torch.empty_like(normalizer), torch.empty_like(normalizer)
        for rows in _chunks(len(states), len(head)):
            logits = _logits(states[rows], head, temperature)
            distribution = torch.softmax(logits, dim=-1)
            normalizer[rows] = log_normalizer(logits, distribution)
            logprobs[rows] = logits.gather(1, targets[rows, None])[:, 0] - normalizer[rows]
            entropy[rows] = normalizer[rows] - logits.mul_(distribution).sum(dim=-1)
            if slopes is not None:
                expected = distribution.to(states.dtype) @ head
                torch.sub(head[targets[rows]], expected, out=slopes[rows])
        ctx.save_for_backward(states, head, targets, entropy, normalizer, slopes)
        ctx.temperature = temperature
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        states, head, targets, entropy, normalizer, slopes = ctx.saved_tensors
        pull = torch.zeros_like(entropy) if grad_logprobs is None else grad_logprobs / ctx.temperature
        if slopes is not None and grad_entropy is None:
            return torch.mul(slopes, pull[:, None], out=torch.empty_like(slopes)), None, None, None
        needs_states, needs_head = ctx.needs_input_grad[:2]
        grad_states = torch.empty_like(states) if needs_states else None
        grad_head = torch.zeros(head.shape, dtype=torch.float32, device=head.device) if needs_head else None
        for rows in _chunks(len(states), len(head)):
            distribution = _logits(states[rows], head, ctx.temperature).sub_(normalizer[rows, None])
            if grad_entropy is None:
                grad = distribution.exp_().mul_(-pull[rows, None])
            else:
                weight = grad_entropy[rows, None] / ctx.temperature
                grad = distribution.exp() * (-pull[rows, None] - weight * (distribution + entropy[rows, None]))
            grad = grad.scatter_add_(1, targets[rows, None], pull[rows, None]).to(states.dtype)
            if grad_states is not None:
                torch.mm(grad, head, out=grad_states[rows])
            if grad_head is not None:
                grad_head += grad.T @ states[rows]
        return grad_states, None if grad_head is None else grad_head.to(head.dtype), None, None


def log_normalizer(logits: Tensor, distribution: Tensor) -> Tensor:
    """The logarithm of the sum of exponentials, [rows], from [rows, V] logits and their softmax.

    The largest probability is at least 1 / V, so its logarithm is exact where another token's may not be.
    """
    return logits.amax(dim=-1) - distribution.amax(dim=-1).log_()


def exact_logits(states: Tensor, head: Tensor) -> Tensor:
    """States @ head.T in fp32, [rows, h] x [V, h] -> [rows, V], whatever the precision of the two.

    A product in bf16 is summed in fp32 and then rounded to 8 bits: 0.06 for a logit of 16, the largest part of the
    difference between a sampler and a trainer (2506.13585 section 3.2). What the rounding took is a second product
    less the first, and small enough to be exact to 3e-4; both are faster than one product in fp32.
    """
    rounded = states @ head.T
    if rounded.dtype == torch.float32:
        return rounded
    return rounded.float().add_(torch.addmm(rounded, states, head.T, beta=-1))


def _logits(states: Tensor, head: Tensor, temperature: float) -> Tensor:
    logits = exact_logits(states, head)
    return logits if temperature == 1 else logits.div_(temperature)


def _chunks(rows: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_ENTRIES // vocabulary)
    return [slice(start, start + size) for start in range(0, rows, size)]


def chosen_logprobs(states: Tensor, head: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probability of each target under softmax(states @ head.T / temperature), and that distribution's entropy.

    Args:
        states: [M, h], the final hidden states that predict the targets.
        head: [V, h]; cast to the states' dtype.
        targets: int64 [M].
        temperature: > 0, the same for policy, sampler and reference.

    Returns:
        (logprobs, entropy), both fp32 [M] in nats, both differentiable.
    """
    apply: Callable[..., tuple[Tensor, Tensor]] = _ChosenLogprobs.apply
    return apply(states, head.to(states.dtype), targets, temperature)


def divergences(states: Tensor, head: Tensor, other_states: Tensor, other_head: Tensor) -> Tensor:
    """KL(p || q) of each row's two distributions over the whole vocabulary, in nats; at least 0 but for rounding.

    Args:
        states: [M, h], of p.
        head: [V, h], of p.
        other_states: [M, h'], of q.
        other_head: [V, h'], of q.

    Returns:
        fp32 [M], without a gradient.
    """
    found = torch.empty(len(states), dtype=torch.float32, device=states.device)
    with torch.no_grad():
        for rows in _chunks(len(states), len(head)):
            p = torch.log_softmax(exact_logits(states[rows], head.to(states.dtype)), dim=-1)
            q = torch.log_softmax(exact_logits(other_states[rows], other_head.to(other_states.dtype)), dim=-1)
            found[rows] = (p.exp() * (p - q)).sum(dim=-1)
    return found

"""Log-probabilities of chosen tokens without ever holding all logits.

On a small model the vocabulary IS the memory (49,152 x 576 against 30 layers of 576 x 576): the head runs only on the
states that predict answer tokens, some rows at a time, and runs again in the backward pass instead of being kept.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ENTRIES = 4 * 2**20  # logits computed at a time: 16 MiB in fp32, which a processor's last cache holds


class _ChosenLogprobs(torch.autograd.Function):
    """(states [M, h], head [V, h], targets [M], temperature) -> (logprobs [M], entropy [M]), both fp32."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        logprobs = torch.empty(len(states), dtype=torch.float32, device=states.device)
        entropy, normalizer = torch.empty_like(logprobs), torch.empty_like(logprobs)
        for rows in _chunks(len(states), len(head)):
            logits = _logits(states[rows], head, temperature)
            distribution = torch.log_softmax(logits, dim=-1)
            chosen = distribution.gather(1, targets[rows, None])[:, 0]
            normalizer[rows] = logits.gather(1, targets[rows, None])[:, 0] - chosen
            logprobs[rows] = chosen
            chance = torch.exp(distribution, out=logits)
            entropy[rows] = -(chance[:, None] @ distribution[:, :, None])[:, 0, 0]
        ctx.save_for_backward(states, head, targets, entropy, normalizer)
        ctx.temperature = temperature
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        states, head, targets, entropy, normalizer = ctx.saved_tensors
        needs_states, needs_head = ctx.needs_input_grad[:2]
        grad_states = torch.empty_like(states) if needs_states else None
        grad_head = torch.zeros(head.shape, dtype=torch.float32, device=head.device) if needs_head else None
        pull = torch.zeros_like(entropy) if grad_logprobs is None else grad_logprobs / ctx.temperature
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


def _logits(states: Tensor, head: Tensor, temperature: float) -> Tensor:
    logits = (states @ head.T).float()
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

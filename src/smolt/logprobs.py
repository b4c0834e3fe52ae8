"""Log-probabilities of chosen tokens without ever holding all logits.

On a small model the vocabulary IS the memory (49,152 x 576 against 30 layers of 576 x 576): the head runs only on the
states that predict answer tokens, some rows at a time, and runs again in the backward pass instead of being kept.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ENTRIES = 16 * 2**20  # logits computed at a time: 64 MiB in fp32


class _ChosenLogprobs(torch.autograd.Function):
    """(states [M, h], head [V, h], targets [M], temperature) -> (logprobs [M], entropy [M]), both fp32."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(states), dtype=torch.float32, device=states.device)
        entropy = torch.empty_like(logprobs)
        for rows in _chunks(len(states), len(head)):
            distribution = torch.log_softmax((states[rows] @ head.T).float() / temperature, dim=-1)
            logprobs[rows] = distribution.gather(1, targets[rows, None])[:, 0]
            entropy[rows] = -(distribution.exp() * distribution).sum(dim=-1)
        ctx.save_for_backward(states, head, targets, entropy)
        ctx.temperature = temperature
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        states, head, targets, entropy = ctx.saved_tensors
        needs_states, needs_head = ctx.needs_input_grad[:2]
        grad_states = torch.empty_like(states) if needs_states else None
        grad_head = torch.zeros(head.shape, dtype=torch.float32, device=head.device) if needs_head else None
        with_entropy = bool(grad_entropy.any())
        for rows in _chunks(len(states), len(head)):
            distribution = torch.log_softmax((states[rows] @ head.T).float() / ctx.temperature, dim=-1)
            chance = distribution.exp()
            grad = -chance * grad_logprobs[rows, None]
            grad.scatter_add_(1, targets[rows, None], grad_logprobs[rows, None])
            if with_entropy:
                grad -= grad_entropy[rows, None] * chance * (distribution + entropy[rows, None])
            grad = (grad / ctx.temperature).to(states.dtype)
            if grad_states is not None:
                grad_states[rows] = grad @ head
            if grad_head is not None:
                grad_head += grad.T @ states[rows]
        return grad_states, None if grad_head is None else grad_head.to(head.dtype), None, None


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

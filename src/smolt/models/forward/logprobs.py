"""Log-probabilities of chosen tokens without ever holding all logits.

On a small model the vocabulary IS the memory (49,152 x 576 against 30 layers of 576 x 576): the head runs only on the
states that predict answer tokens, some rows at a time. The gradient of a log-probability with respect to its state is
the target's row of the head minus the expected row; while the head itself is frozen the forward pass computes that as
well and the backward pass only scales it: two products instead of three. A trained head is run again instead.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ENTRIES = 8 * 2**20  # logits computed at a time: 32 MiB in fp32; shorter products are slower
DISTRIBUTIONS = 4  # of two models' whole distributions fewer rows at a time: so many are held side by side


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


def jensen_shannon(p: Tensor, q: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Generalised Jensen-Shannon divergence of rows of log-probabilities (2306.13649 eq. 1), and its slope.

    beta KL(q || m) + (1 - beta) KL(p || m) with m = beta q + (1 - beta) p; as in the paper 0 stands for KL(q || p) and
    1 for KL(p || q), the limits after division by beta and by 1 - beta.

    Args:
        p: of who learns, [M, V].
        q: of whom it learns from, [M, V].
        beta: 0 to 1.

    Returns:
        The divergence in nats, [M], and its derivative by the logits of p, [M, V].
    """
    own = p.exp()
    if beta == 0:
        other = q.exp()
        return (other * (q - p)).sum(dim=-1), own - other
    mixed = q if beta == 1 else torch.logaddexp(q + math.log(beta), p + math.log1p(-beta))
    lead = p - mixed
    inner = (own * lead).sum(dim=-1)
    slope = own * (lead - inner[:, None])
    if beta == 1:
        return inner, slope
    return beta * (q.exp() * (q - mixed)).sum(dim=-1) + (1 - beta) * inner, (1 - beta) * slope


class _Divergences(torch.autograd.Function):
    """(states [M, h], head [V, h] or None, the same of another, beta, temperature) -> (divergence, entropy), both [M].

    Without a head the states are logits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        head: Tensor | None,
        other: Tensor,
        other_head: Tensor | None,
        beta: float,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        found = torch.empty(len(states), dtype=torch.float32, device=states.device)
        entropy = torch.empty_like(found)
        slopes = torch.empty_like(states) if ctx.needs_input_grad[0] and not ctx.needs_input_grad[1] else None
        for rows in _chunks(len(states), DISTRIBUTIONS * len(states[0] if head is None else head)):
            p, q = _log_softmax(states[rows], head, temperature), _log_softmax(other[rows], other_head, temperature)
            entropy[rows] = -(p.exp() * p).sum(dim=-1)
            found[rows], slope = jensen_shannon(p, q, beta)
            if slopes is not None:
                slope = slope.div_(temperature).to(states.dtype)
                slopes[rows] = slope if head is None else slope @ head
        ctx.mark_non_differentiable(entropy)
        ctx.save_for_backward(states, head, other, other_head, slopes)
        ctx.beta, ctx.temperature = beta, temperature
        return found, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        states, head, other, other_head, slopes = ctx.saved_tensors
        if slopes is not None:
            return slopes * grad[:, None].to(slopes.dtype), None, None, None, None, None
        grad_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        grad_head = torch.zeros(head.shape, dtype=torch.float32, device=head.device)
        for rows in _chunks(len(states), DISTRIBUTIONS * len(head)):
            p = _log_softmax(states[rows], head, ctx.temperature)
            _, slope = jensen_shannon(p, _log_softmax(other[rows], other_head, ctx.temperature), ctx.beta)
            slope = slope.mul_(grad[rows, None] / ctx.temperature).to(states.dtype)
            if grad_states is not None:
                torch.mm(slope, head, out=grad_states[rows])
            grad_head += slope.T @ states[rows]
        return grad_states, grad_head.to(head.dtype), None, None, None, None


def _log_softmax(states: Tensor, head: Tensor | None, temperature: float) -> Tensor:
    logits = states.float() / temperature if head is None else _logits(states, head, temperature)
    return torch.log_softmax(logits, dim=-1)


def divergences(
    states: Tensor,
    head: Tensor | None,
    other_states: Tensor,
    other_head: Tensor | None,
    beta: float = 1.0,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """How far each row's two distributions over the whole vocabulary are apart: KL(p || q), or see `jensen_shannon`.

    Args:
        states: [M, h], of p, who learns; its logits, [M, V], where it has no head.
        head: [V, h], of p; cast to the states' dtype.
        other_states: [M, h'], of q, or its logits; a constant.
        other_head: [V, h'], of q.
        beta: which divergence.
        temperature: > 0, divides both logits.

    Returns:
        (divergence, entropy of p), both fp32 [M] in nats; at least 0 but for rounding. The first is differentiable.
    """
    heads = [
        None if matrix is None else matrix.to(own.dtype) for matrix, own in ((head, states), (other_head, other_states))
    ]
    apply: Callable[..., tuple[Tensor, Tensor]] = _Divergences.apply
    return apply(states, heads[0], other_states.detach(), heads[1], beta, temperature)

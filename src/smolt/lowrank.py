"""A frozen linear layer with its adapter as one function, in fewer passes over memory than peft's module takes.

The module casts its input to the adapter's fp32 and back, scales and adds in passes of their own, and keeps the cast
input of every layer. Here the low-rank product is added to the output in place, and what is kept is the input itself,
which layers with one input share.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


class _Adapted(torch.autograd.Function):
    """(x [N, in], W [out, in], b [out] or None, A [rank, in], B [out, rank], s) -> x W' + b + s (x A') B'."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        down, up = down.to(states.dtype), up.to(states.dtype)
        reduced = linear(states, down)
        ctx.save_for_backward(states, weight, down, up, reduced)
        ctx.scaling = scaling
        return linear(states, weight, bias).addmm_(reduced, up.T, alpha=scaling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, down, up, reduced = ctx.saved_tensors
        narrow = (grad @ up).mul_(ctx.scaling)
        grad_states = (grad @ weight).addmm_(narrow, down) if ctx.needs_input_grad[0] else None
        grad_down, grad_up = narrow.T @ states, (grad.T @ reduced).mul_(ctx.scaling)
        return grad_states, None, None, grad_down.float(), grad_up.float(), None


adapted = cast(Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor, float], Tensor], _Adapted.apply)


def project(module: nn.Module, states: Tensor) -> Tensor:
    """What a linear layer makes of states, [N, in] -> [N, out], with the adapter that is switched on.

    Where it is not computed here (all weights are trained, dropout, another kind of adapter), the module does it.
    """
    term = _term(module, states)
    if term is None:
        product: Tensor = module(states)
        return product
    base, name = term
    if name is None:
        return linear(states, base.weight, base.bias)
    lora: Any = module
    return adapted(
        states, base.weight, base.bias, lora.lora_A[name].weight, lora.lora_B[name].weight, lora.scaling[name]
    )


def _term(module: nn.Module, states: Tensor) -> tuple[nn.Linear, str | None] | None:
    """The frozen layer below an adapter and the adapter's name, None where it is off; None where that is not all."""
    if not isinstance(module, LoraLinear):
        return None
    base = module.get_base_layer()
    names = [] if module.disable_adapters else [name for name in module.active_adapters if name in module.lora_A]
    plain = type(base) is nn.Linear and not base.weight.requires_grad and base.weight.dtype == states.dtype
    if not plain or module.merged or len(names) > 1:
        return None
    if not names:
        return base, None
    dropout = module.lora_dropout[names[0]]
    dropping = dropout.training and not isinstance(dropout, nn.Identity)
    return None if dropping or not is_plain(module, names[0]) else (base, names[0])


def is_plain(module: LoraLinear, adapter: str) -> bool:
    """Whether this adapter is nothing but a low-rank product that stands beside the weight."""
    return not (module.merged or adapter in module.lora_variant or module.lora_bias.get(adapter))

"""The packed forward of a known family with fewer passes over memory: norm and rotation as one step each.

On a small model a training pass spends more time reading and writing states than multiplying them. The linear layers
are the network's own modules; between them stand two functions that compute what the modules compute, in fewer passes
forward and with a closed form backward.

A frozen linear layer with its adapter is one function too: peft's module casts its input to the adapter's fp32 and
back, scales and adds in passes of their own, and keeps the cast input of every layer. Here the low-rank product is
added to the output in place, and what is kept is the input itself, which layers with one input share.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu
from transformers import PreTrainedModel

from smolt.models.forward.gradient_checkpointing import call
from smolt.models.forward.packed_attention import Layout, packed_attention, window_of_layer


def normed_and_scale(states: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Root mean square norm in the states' dtype, and what it multiplied each state with, fp32 [.., 1]."""
    scale = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=torch.float32)
    scale = scale.square_().div_(states.shape[-1]).add_(eps).rsqrt_()
    return torch.mul(states, scale, out=torch.empty_like(states)).mul_(weight.to(states.dtype)), scale


class _Norm(torch.autograd.Function):
    """(states [N, h], weight [h], eps) -> weight * states / sqrt(mean(states^2) + eps), fp32 inside."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed, scale = normed_and_scale(states, weight, eps)
        ctx.save_for_backward(states, weight, scale)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, scale = ctx.saved_tensors
        product = grad * states
        along = (product @ weight.to(product.dtype)).float()[..., None]
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (scale.flatten().to(product.dtype) @ product.flatten(0, -2)).to(weight.dtype)
        shrink = along.mul_(scale**3).div_(-states.shape[-1])
        grad_states = torch.mul(grad * weight.to(grad.dtype), scale, out=torch.empty_like(states))
        if states.dtype == torch.float32:
            grad_states.addcmul_(states, shrink)
        else:
            grad_states.add_(states * shrink.to(states.dtype))
        return grad_states, grad_weight, None


class _Rotation(torch.autograd.Function):
    """(vectors [N, heads, d], cosine [N, 1, d / 2], sine [N, 1, d / 2]) -> vectors turned, halves paired."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _turned(vectors, cosine, sine, -1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine = ctx.saved_tensors
        return _turned(grad, cosine, sine, 1.0), None, None


def _turned(vectors: Tensor, cosine: Tensor, sine: Tensor, sign: float) -> Tensor:
    first, second = vectors.chunk(2, dim=-1)
    turned = torch.empty(vectors.shape, dtype=vectors.dtype, device=vectors.device)
    new_first, new_second = turned.chunk(2, dim=-1)
    torch.mul(first, cosine, out=new_first).addcmul_(second, sine, value=sign)
    torch.mul(second, cosine, out=new_second).addcmul_(first, sine, value=-sign)
    return turned


norm = cast(Callable[[Tensor, Tensor, float], Tensor], _Norm.apply)
rotation = cast(Callable[[Tensor, Tensor, Tensor], Tensor], _Rotation.apply)


def packed_states(network: PreTrainedModel, layout: Layout, around: Callable[..., Any] = call) -> Tensor:
    """Final hidden states of a packed row, [N, h], under the caller's autocast; for the families of `decode_step`.

    Args:
        network: the network.
        layout: the row.
        around: what each layer goes through, called with the layer, a function and its arguments.
    """
    backbone: Any = network.base_model
    states: Tensor = backbone.embed_tokens(layout.ids[0])
    cosine, sine = backbone.rotary_emb(states, layout.positions)
    half = cosine.shape[-1] // 2
    cosine, sine = cosine[0][:, None, :half].contiguous(), sine[0][:, None, :half].contiguous()
    for layer in backbone.layers:
        states = around(layer, _layer, states, layer, layout, cosine, sine)
    return _normed(backbone.norm, states)


def _layer(states: Tensor, layer: Any, layout: Layout, cosine: Tensor, sine: Tensor) -> Tensor:
    states = states + _attended(layer.self_attn, _normed(layer.input_layernorm, states), layout, cosine, sine)
    return states + _fed_forward(layer.mlp, _normed(layer.post_attention_layernorm, states))


def _fed_forward(mlp: Any, states: Tensor) -> Tensor:
    return project(mlp.down_proj, silu(project(mlp.gate_proj, states)) * project(mlp.up_proj, states))


def _normed(module: Any, states: Tensor) -> Tensor:
    if states.dtype != module.weight.dtype:  # promotion is the module's business
        normed: Tensor = module(states)
        return normed
    return norm(states, module.weight, module.variance_epsilon)


def _attended(attention: Any, states: Tensor, layout: Layout, cosine: Tensor, sine: Tensor) -> Tensor:
    shape = (len(states), -1, attention.head_dim)
    query, key = project(attention.q_proj, states).view(shape), project(attention.k_proj, states).view(shape)
    value = project(attention.v_proj, states).view(shape)
    if hasattr(attention, "q_norm"):
        query, key = _normed(attention.q_norm, query), _normed(attention.k_norm, key)
    attended, _ = packed_attention(
        attention,
        rotation(query, cosine, sine).transpose(0, 1)[None],
        rotation(key, cosine, sine).transpose(0, 1)[None],
        value.transpose(0, 1)[None],
        None,
        scaling=attention.scaling,
        layout=layout,
        sliding_window=window_of_layer(attention),
    )
    return project(attention.o_proj, attended.reshape(len(states), -1))


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

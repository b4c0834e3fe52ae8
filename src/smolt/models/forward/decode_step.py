"""One decoding step straight over the weights of a known family, without the modules between them.

A step of the Hugging Face modules spends much of its time on small products and on Python. Here queries, keys and
values are one product, and so are gate and up; a role's adapter is added in fp32 to copies of the weights it changes,
or, in half precision, where that would lose it, stays a low-rank term of its own. The network's own weights are only
read. What stands between the products is compiled where it can be (`kernels`), and so are products of very few rows,
which may be of weights in int8 where nothing is learned from the answers.
`Trunk.choose_forward` compares the states with the network's own before any of this is used.
"""

import platform
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, silu
from transformers import PreTrainedModel

from smolt.models.forward.kernels import Int8, Kernels, kernels
from smolt.models.forward.kv_cache import Cache
from smolt.models.forward.logprobs import exact_logits
from smolt.models.forward.packed_attention import window_of_layer
from smolt.models.forward.packed_forward import is_plain, normed_and_scale

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
ROWS = 64  # answers that oneDNN should reckon with when it chooses an order
FEW = 2  # answers for which reading the weights is all the work, and their order does not matter
FEW_INT8 = 4  # answers for which weights that are kept in int8 are read so; for more, products take longer than memory
ROTARY = ("default", "linear", "llama3")  # angles that depend on the position alone


@dataclass(frozen=True)
class Affine:
    """y = x W' + b, and the low-rank term that is not merged.

    Attributes:
        weight: [out, in], or in the order in which oneDNN reads it; a term's first matrix [rank, in] stands below it.
        bias: [out] or None; zero for the rows of a term.
        up: [rank, out], a term's second matrix, scaled; None without one.
        ordered: whether the weight is in oneDNN's order.
        parts: the same as the network's own weights and biases, one beside the other; empty where it is not.
        int8: the same in int8, of which the weight is then what it stands for; None where it is not kept so.
    """

    weight: Tensor
    bias: Tensor | None
    up: Tensor | None = None
    ordered: bool = False
    parts: tuple[tuple[Tensor, Tensor | None], ...] = ()
    int8: Int8 | None = None

    def __call__(self, states: Tensor) -> Tensor:
        """[rows, in] -> [rows, out]."""
        if self.ordered:
            product: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")
        else:
            product = linear(states, self.weight, self.bias)
        if self.up is None:
            return product
        out = self.up.shape[1]
        return product[:, :out].addmm_(product[:, out:], self.up)

    def exact(self, states: Tensor) -> Tensor:
        """The same in fp32, without a term: see `smolt.models.forward.logprobs.exact_logits`."""
        if not self.ordered:
            return exact_logits(states, self.weight)
        rounded = self(states)
        if rounded.dtype == torch.float32:
            return rounded
        rest = torch.ops.mkldnn._linear_pointwise.binary(states, rounded, self.weight, self.bias, "sub")
        return rounded.float().add_(rest)


def ordered(affine: Affine) -> Affine:
    """The same with its weight put in oneDNN's order once.

    In bf16 a step would do so at every product. In fp32 it would take MKL's product, half as fast for few rows on an
    AMD EPYC (docs/why/performance.md).
    """
    weight = affine.weight
    if weight.device.type != "cpu" or not _has_order(weight.dtype):
        return affine
    return replace(affine, weight=torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS), ordered=True)


def _has_order(dtype: torch.dtype) -> bool:
    """Whether oneDNN has an order of its own for weights of this kind here."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:  # a processor without AVX-512, say, has none
        supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return supported
    return dtype == torch.float32 and platform.machine() in ("x86_64", "AMD64")


@dataclass(frozen=True)
class Layer:
    """One decoder layer."""

    before_attention: Any
    attention: Any
    queries_keys_values: Affine
    out: Affine
    before_mlp: Any
    gate_up: Affine
    down: Affine

    @property
    def products(self) -> tuple[Affine, Affine, Affine, Affine]:
        """All of them."""
        return self.queries_keys_values, self.out, self.gate_up, self.down

    @property
    def norms(self) -> tuple[Tensor | None, Tensor | None, float]:
        """Weights of queries' and keys' own norms, None without, and their eps."""
        if not hasattr(self.attention, "q_norm"):
            return None, None, 0.0
        query, key = self.attention.q_norm, self.attention.k_norm
        return query.weight, key.weight, query.variance_epsilon


class LeanDecoder:
    """The decoding step of one role, over weights as they are now: make a new one after they have changed.

    Args:
        network: of a family in FAMILIES.
        adapter: the role's adapter, None for the bare network.
        dtype: what products are computed in.
        window: positions it will be asked for.
        int8: round the weights of its products to int8. Few answers are then decoded from these, and more of them from
            what they stand for: an answer does not depend on how many are decoded beside it.

    Raises:
        NotImplementedError: the network or its adapter holds something that is not computed here.
    """

    def __init__(
        self, network: PreTrainedModel, adapter: str | None, dtype: torch.dtype, window: int, int8: bool = False
    ) -> None:
        reason = objection(network)
        if reason:
            raise NotImplementedError(reason)
        backbone: Any = network.base_model
        self.dtype = dtype
        self.embedding: Tensor = backbone.embed_tokens.weight
        self.norm: Any = backbone.norm
        head = network.get_output_embeddings() or backbone.embed_tokens  # a classifier has none, and draws no tokens
        weight = head.weight.to(self.embedding.dtype)
        self.head = _in_int8(weight, None, dtype) if int8 else ordered(Affine(weight, None, parts=((weight, None),)))
        self.layers = [_layer(part, adapter, dtype, int8) for part in backbone.layers]
        attention: Any = backbone.layers[0].self_attn
        config: Any = network.config
        self.d = int(attention.head_dim)
        self.heads, self.key_heads = int(config.num_attention_heads), int(config.num_key_value_heads)
        places = torch.arange(window, device=self.embedding.device)[None]
        cosine, sine = backbone.rotary_emb(torch.empty(0, dtype=dtype, device=self.embedding.device), places)
        half = self.d // 2
        self.cosine = cosine[0][:, None]
        self.sine = torch.cat([-sine[0][:, :half], sine[0][:, half:]], dim=-1)[:, None]
        self.kernels = kernels(dtype) if self._uniform(dtype) else None
        if int8 and self.kernels is None:
            missing = "no C compiler (CC, else cc), SMOLT_COMPILE=0, or weights of several precisions"
            raise NotImplementedError(f"its products in int8 are compiled, and here they cannot be: {missing}")

    def _uniform(self, dtype: torch.dtype) -> bool:
        """Whether states, norms and products have one precision, and the processor computes them."""
        norms = [self.norm, *(norm for layer in self.layers for norm in (layer.before_attention, layer.before_mlp))]
        heads = [getattr(self.layers[0].attention, name, self.norm) for name in ("q_norm", "k_norm")]
        held = [self.embedding, *(norm.weight for norm in (*norms, *heads))]
        return self.embedding.device.type == "cpu" and all(tensor.dtype == dtype for tensor in held)

    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Feed each slot's newest token; the final states, [slots, h].

        Args:
            tokens: int64 [slots].
            cache: whose slots they are; their keys and values are written there.
        """
        cache.begin_step()
        positions = torch.tensor(cache.positions, device=tokens.device)
        angles = self.cosine[positions], self.sine[positions]
        states = (self._through_torch if self.kernels is None else self._compiled)(
            self.embedding[tokens], angles, cache
        )
        cache.end_step()
        return states

    def _compiled(self, states: Tensor, angles: tuple[Tensor, Tensor], cache: Cache) -> Tensor:
        """The layers, their products alone through torch."""
        own, more = cast(Kernels, self.kernels), None
        for number, layer in enumerate(self.layers):
            normed = own.norm(states, more, layer.before_attention.weight, layer.before_attention.variance_epsilon)
            mixed = self._product(layer.queries_keys_values, normed)
            scaling, window = layer.attention.scaling, window_of_layer(layer.attention)
            attended = cache.attend_compiled(own, number, mixed, angles, layer.norms, scaling, window)
            more = self._product(layer.out, attended)
            normed = own.norm(states, more, layer.before_mlp.weight, layer.before_mlp.variance_epsilon)
            more = self._product(layer.down, own.gate(self._product(layer.gate_up, normed)))
        return own.norm(states, more, self.norm.weight, self.norm.variance_epsilon)

    def _product(self, affine: Affine, states: Tensor) -> Tensor:
        if self.kernels is not None and affine.int8 is not None and len(states) <= FEW_INT8:
            return self.kernels.product_of_bytes(states, affine.int8, affine.bias)
        if self.kernels is None or not affine.parts or len(states) > FEW:
            return affine(states)
        return self.kernels.product(states, affine.parts)

    def _through_torch(self, states: Tensor, angles: tuple[Tensor, Tensor], cache: Cache) -> Tensor:
        """The layers."""
        (cosine, sine), turned = angles, self.heads + self.key_heads
        for number, layer in enumerate(self.layers):
            mixed = layer.queries_keys_values(_normed(layer.before_attention, states).to(self.dtype))
            mixed = mixed.view(len(states), -1, self.d)
            rotary, values = mixed[:, :turned], mixed[:, turned:]
            if hasattr(layer.attention, "q_norm"):
                rotary = torch.cat(
                    [
                        _normed(layer.attention.q_norm, rotary[:, : self.heads]),
                        _normed(layer.attention.k_norm, rotary[:, self.heads :]),
                    ],
                    dim=1,
                )
            rotary = (rotary * cosine).addcmul_(rotary.roll(self.d // 2, dims=-1), sine)
            attended = cache.attend(
                number,
                rotary[:, : self.heads],
                rotary[:, self.heads :],
                values,
                layer.attention.scaling,
                window_of_layer(layer.attention),
            )
            states = states + layer.out(attended)
            gate, up = layer.gate_up(_normed(layer.before_mlp, states).to(self.dtype)).chunk(2, dim=-1)
            states = states + layer.down(silu(gate) * up)
        return _normed(self.norm, states)

    def share(self, network: PreTrainedModel) -> None:
        """Let the network's linear layers hold parts of the stacked weights in place of their own: each number once.

        For a network that only answers. Layers with adapters, and weights in another order or precision, keep theirs.
        """
        backbone: Any = network.base_model
        for layer, part in zip(self.layers, backbone.layers, strict=True):
            attention, mlp = part.self_attn, part.mlp
            _share(layer.queries_keys_values, [attention.q_proj, attention.k_proj, attention.v_proj])
            _share(layer.gate_up, [mlp.gate_proj, mlp.up_proj])

    @property
    def int8_bytes(self) -> int:
        """What its weights in int8 take."""
        held = [self.head, *(part for one in self.layers for part in one.products)]
        return sum(affine.int8.nbytes for affine in held if affine.int8 is not None)

    def logits(self, states: Tensor) -> Tensor:
        """Final states [slots, h] -> fp32 logits [slots, V], as training computes them."""
        if self.kernels is not None and self.head.int8 is not None and len(states) <= FEW_INT8:
            return self.kernels.product_of_bytes(states, self.head.int8, None, exact=True)
        if self.kernels is not None and self.head.parts and len(states) <= FEW:
            return self.kernels.product(states, self.head.parts, exact=True)
        return self.head.exact(states)


def objection(network: PreTrainedModel) -> str | None:
    """Why this network's step cannot be computed here, or None."""
    config: Any = network.config
    if config.model_type not in FAMILIES:
        return f"no lean step for {config.model_type}"
    if config.hidden_act != "silu":
        return f"no lean step with {config.hidden_act}"
    rotary = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return None if rotary in ROTARY else f"no lean step with {rotary} positions"


def _normed(norm: Any, states: Tensor) -> Tensor:
    """Root mean square norm as the module computes it: fp32 inside, then its weight."""
    weight: Tensor = norm.weight
    if states.dtype != weight.dtype:
        normed: Tensor = norm(states)
        return normed
    if states.dtype == torch.float32:
        return rms_norm(states, weight.shape, weight, norm.variance_epsilon)
    return normed_and_scale(states, weight, norm.variance_epsilon)[0]


def _layer(part: Any, adapter: str | None, dtype: torch.dtype, int8: bool) -> Layer:
    attention, mlp = part.self_attn, part.mlp

    def stacked(*modules: nn.Module) -> Affine:
        return _stacked(list(modules), adapter, dtype, int8)

    return Layer(
        before_attention=part.input_layernorm,
        attention=attention,
        queries_keys_values=stacked(attention.q_proj, attention.k_proj, attention.v_proj),
        out=stacked(attention.o_proj),
        before_mlp=part.post_attention_layernorm,
        gate_up=stacked(mlp.gate_proj, mlp.up_proj),
        down=stacked(mlp.down_proj),
    )


def _stacked(modules: list[nn.Module], adapter: str | None, dtype: torch.dtype, int8: bool) -> Affine:
    """Linear layers with one input as one."""
    plain = [_plain(module) for module in modules]
    terms = [_term(module, adapter) for module in modules]
    biases = [module.bias for module in plain]
    bias = None
    if any(held is not None for held in biases):
        made = [torch.zeros(len(m.weight)) if m.bias is None else m.bias for m in plain]
        bias = torch.cat([part.to(plain[0].weight.device, dtype) for part in made])
    parts = () if any(terms) else _parts(plain, dtype)
    if dtype == torch.float32 or int8:
        merged = [
            module.weight if term is None else module.weight.float() + term[1] @ term[0]
            for module, term in zip(plain, terms, strict=True)
        ]
        weight = torch.cat(merged) if len(merged) > 1 else merged[0]
        return _in_int8(weight, bias, dtype) if int8 else ordered(Affine(weight, bias, parts=parts))
    weight = torch.cat([module.weight for module in plain]) if len(plain) > 1 else plain[0].weight
    if all(term is None for term in terms):
        return ordered(Affine(weight.to(dtype), bias, parts=parts))
    down = torch.cat([term[0] for term in terms if term is not None])
    up = torch.zeros(len(down), len(weight), device=weight.device)
    row = column = 0
    for module, term in zip(plain, terms, strict=True):
        if term is not None:
            up[row : row + len(term[0]), column : column + len(module.weight)] = term[1].T
            row += len(term[0])
        column += len(module.weight)
    if bias is not None:
        bias = torch.cat([bias, bias.new_zeros(len(down))])
    return ordered(Affine(torch.cat([weight.to(dtype), down.to(dtype)]), bias, up.to(dtype)))


def _in_int8(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Affine:
    """A weight in int8, and what it stands for in the order of a product."""
    held = Int8.of(weight)
    return ordered(Affine(held.restored(dtype), bias, int8=held))


def _parts(modules: list[nn.Linear], dtype: torch.dtype) -> tuple[tuple[Tensor, Tensor | None], ...]:
    """Weights and biases as they stand in the network; none where their precision is another."""
    held = tuple((module.weight.detach(), module.bias) for module in modules)
    return held if all(tensor is None or tensor.dtype == dtype for pair in held for tensor in pair) else ()


def _share(stacked: Affine, modules: list[nn.Module]) -> None:
    own = [module for module in modules if type(module) is nn.Linear]
    if stacked.up is not None or stacked.int8 is not None or stacked.ordered or len(own) < len(modules):
        return
    if all(module.weight.dtype == stacked.weight.dtype for module in own):
        parts = stacked.weight.split([len(module.weight) for module in own])
        for module, part in zip(own, parts, strict=True):
            module.weight = nn.Parameter(part, requires_grad=False)


def _plain(module: nn.Module) -> nn.Linear:
    base = module.base_layer if isinstance(module, LoraLinear) else module
    if type(base) is not nn.Linear:
        raise NotImplementedError(f"no lean step with {type(base).__name__}")
    return base


def _term(module: nn.Module, adapter: str | None) -> tuple[Tensor, Tensor] | None:
    """(A [rank, in], scaled B [out, rank]) of an adapter on a layer, fp32; None without one."""
    if not isinstance(module, LoraLinear) or adapter is None or adapter not in module.lora_A:
        return None
    if not is_plain(module, adapter):
        raise NotImplementedError("no lean step with this kind of adapter")
    down: Any = module.lora_A[adapter]
    up: Any = module.lora_B[adapter]
    return down.weight.float(), module.scaling[adapter] * up.weight.float()

"""An architecture's parameters and weights under the names, and in the order, that llama.cpp computes with.

Where llama.cpp has a choice built in (an activation, a scale), a model that was trained with another one is refused:
it would run and answer something else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gguf
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from smolt.errors import UserError

Change = Callable[[str, Tensor, Any], Tensor]
"""Name in the file, weight and configuration -> the weight as the file holds it."""


def _as_it_is(name: str, weight: Tensor, config: Any) -> Tensor:
    return weight


def _pairs_together(name: str, weight: Tensor, config: Any) -> Tensor:
    """Rows of rotated projections with the two halves of each rotated pair side by side."""
    heads = {".attn_q.": config.num_attention_heads, ".attn_k.": config.num_key_value_heads}
    for part, count in heads.items():
        if part in name:
            halves = weight.reshape(count, 2, -1, *weight.shape[1:])
            return halves.transpose(1, 2).reshape(weight.shape)
    return weight


def _rows_first(name: str, weight: Tensor, config: Any) -> Tensor:
    """GPT-2 keeps the matrices of its blocks as [in, out]."""
    inside = name.startswith("blk.") and weight.dim() == 2
    return weight.T if inside else weight


def _queries_first(name: str, weight: Tensor, config: Any) -> Tensor:
    """GPT-NeoX has query, key and value head by head: all queries first, then keys, then values."""
    if ".attn_qkv." not in name:
        return weight
    heads = weight.reshape(config.num_attention_heads, 3, -1, *weight.shape[1:])
    return heads.transpose(0, 1).reshape(weight.shape)


def _norms_from_one(name: str, weight: Tensor, config: Any) -> Tensor:
    """Gemma's norms hold what they differ from 1 by."""
    return weight + 1 if name.endswith("norm.weight") else weight


@dataclass(frozen=True)
class Architecture:
    """What llama.cpp calls a model type, and what it takes for granted about it.

    Attributes:
        kind: its number in the gguf package.
        change: from a weight as transformers has it to one as llama.cpp has it.
        fixed: fields of the configuration that llama.cpp computes with one value only, and that value or several that
            are the same to it.
        rotary: whether positions are rotations.
        head: whether an output head of its own is needed where the embedding is the head.
    """

    kind: gguf.MODEL_ARCH
    change: Change = _as_it_is
    fixed: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    rotary: bool = True
    head: bool = False


GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
"""Names of the one GELU that llama.cpp computes, by tanh."""

ARCHITECTURES = {
    "llama": Architecture(gguf.MODEL_ARCH.LLAMA, _pairs_together, {"hidden_act": ("silu",)}),
    "mistral": Architecture(gguf.MODEL_ARCH.LLAMA, _pairs_together, {"hidden_act": ("silu",)}),
    "qwen2": Architecture(gguf.MODEL_ARCH.QWEN2, fixed={"hidden_act": ("silu",)}),
    "qwen3": Architecture(gguf.MODEL_ARCH.QWEN3, fixed={"hidden_act": ("silu",), "attention_bias": (False,)}),
    "gpt2": Architecture(
        gguf.MODEL_ARCH.GPT2,
        _rows_first,
        {
            "activation_function": GELU,
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
        rotary=False,
    ),
    "gpt_neox": Architecture(
        gguf.MODEL_ARCH.GPTNEOX,
        _queries_first,
        {"hidden_act": ("gelu", *GELU), "attention_bias": (True,)},
        head=True,
    ),
    "gemma3_text": Architecture(
        gguf.MODEL_ARCH.GEMMA3,
        _norms_from_one,
        {
            "hidden_activation": GELU,
            "attention_bias": (False,),
            "final_logit_softcapping": (None,),
            "attn_logit_softcapping": (None,),
            "use_bidirectional_attention": (False, None),
        },
    ),
}
"""`model_type` of a configuration -> architecture."""

EXACT_GELU = "gelu"
ROPES = ("default", "linear", "llama3")
FREQUENCIES = "rope_freqs.weight"


def architecture_of(config: Any, place: str) -> Architecture:
    """The architecture of a configuration.

    Raises:
        UserError: it is none of ARCHITECTURES, or a field has a value that llama.cpp does not compute with.
    """
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise UserError(f"{place}: model_type: {kind} is not written as GGUF; known: {', '.join(ARCHITECTURES)}")
    found = ARCHITECTURES[kind]
    for name, allowed in found.fixed.items():
        value = getattr(config, name, allowed[0])
        if value not in allowed:
            raise UserError(f"{place}: {name}: {value!r}: llama.cpp computes {kind} with {allowed[0]!r} only")
    rope = _rope(config)
    if found.rotary and rope["rope_type"] not in ROPES[: 3 if found.kind is gguf.MODEL_ARCH.LLAMA else 2]:
        raise UserError(f"{place}: rope_parameters: rope_type: {rope['rope_type']}: is not written as GGUF here")
    if kind == "gemma3_text":
        _refuse_uneven(config, place)
    return found


def _rope(config: Any) -> dict[str, Any]:
    """Rotary parameters, of the layers with full attention where there are two kinds."""
    rope = getattr(config, "rope_parameters", None) or {}
    return {"rope_type": "default", **rope.get("full_attention", rope)}


def _refuse_uneven(config: Any, place: str) -> None:
    """Gemma 3 in llama.cpp scales by the head's own width, and has every n-th layer look further than the window.

    Raises:
        UserError: the model does otherwise.
    """
    if config.query_pre_attn_scalar != config.head_dim:
        raise UserError(
            f"{place}: query_pre_attn_scalar: {config.query_pre_attn_scalar}: llama.cpp scales attention by head_dim, "
            f"{config.head_dim}"
        )
    if period(config.layer_types) is None:
        raise UserError(f"{place}: layer_types: llama.cpp knows one full_attention layer after every n sliding ones")
    local = config.rope_parameters.get("sliding_attention", {})
    if local.get("rope_type", "default") != "default":
        raise UserError(
            f"{place}: rope_parameters: sliding_attention: rope_type: {local['rope_type']}: must be default"
        )


def period(layers: list[str]) -> int | None:
    """The n of which every n-th layer is one of full attention, the others sliding; None where there is none."""
    for length in range(1, len(layers) + 2):
        pattern = ["full_attention" if (at + 1) % length == 0 else "sliding_attention" for at in range(len(layers))]
        if layers == pattern:
            return length
    return None


def context_length(config: Any) -> int:
    """Positions that llama.cpp computes as the model does: no more than an attention window it knows nothing of."""
    positions: int = config.max_position_embeddings
    window = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None) or ["sliding_attention"]
    if config.model_type == "gemma3_text" or window is None or "sliding_attention" not in layers:
        return positions
    return min(positions, int(window))


def notes_on(config: Any) -> list[str]:
    """What of the model llama.cpp computes otherwise, in sentences; nearly always nothing."""
    found = []
    if getattr(config, "hidden_act", None) == EXACT_GELU:
        found.append("llama.cpp computes GELU by tanh, this model's is exact: log-probabilities differ by about 0.001")
    length = context_length(config)
    if length < config.max_position_embeddings:
        found.append(
            f"llama.cpp knows no attention window in this architecture: the context ends with it, at {length:,}"
        )
    return found


def write_parameters(writer: gguf.GGUFWriter, config: Any, rows: int) -> None:
    """The architecture's fields of the header.

    Args:
        writer: of the file.
        config: of the network.
        rows: of the embedding.
    """
    heads, width = config.num_attention_heads, config.hidden_size
    writer.add_context_length(context_length(config))
    writer.add_embedding_length(width)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(heads)
    writer.add_vocab_size(rows)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * width)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    head = getattr(config, "head_dim", None) or width // heads
    _write_rope(writer, config, head)
    if config.model_type == "gpt_neox":
        writer.add_parallel_residual(config.use_parallel_residual)
        writer.add_layer_norm_eps(config.layer_norm_eps)
        return
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(head)
    writer.add_value_length(head)
    if config.model_type == "gemma3_text" and "sliding_attention" in config.layer_types:
        every = period(config.layer_types)
        assert every is not None  # architecture_of refused the others
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern(every)
        writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])


def _write_rope(writer: gguf.GGUFWriter, config: Any, head: int) -> None:
    rope = _rope(config)
    writer.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def tensors_of(network: PreTrainedModel, architecture: Architecture) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the file, in fp32, one after the other; a head that is the embedding stands once.

    Raises:
        UserError: the network has a weight that llama.cpp has no name for.
    """
    config = network.config
    names = gguf.get_tensor_name_map(architecture.kind, config.num_hidden_layers)
    if _rope(config)["rope_type"] == "llama3":
        yield FREQUENCIES, frequency_factors(config)
    found = set()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            place = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if place is None:
                raise UserError(f"{config.model_type}: llama.cpp knows no weight {name}")
            found.add(place)
            yield place, architecture.change(place, weight.detach().float(), config).contiguous()
        if architecture.head and "output.weight" not in found:
            yield "output.weight", network.get_output_embeddings().weight.detach().float()


def frequency_factors(config: Any) -> Tensor:
    """By what llama.cpp divides each rotary frequency, fp32 [head_dim / 2], for Llama 3's stretched positions."""
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    width = 2 * len(scaled)
    plain = _rope(config)["rope_theta"] ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    return torch.as_tensor(plain / scaled)

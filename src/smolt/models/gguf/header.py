"""What a GGUF file says of its model and transformers does not read: stretched positions, weights without a place."""

import math
from typing import Any

import gguf
import torch
from torch import Tensor
from transformers import PreTrainedModel

from smolt.errors import UserError
from smolt.models.gguf.tensors import ARCHITECTURES, FREQUENCIES, frequency_factors, write_parameters

CURE = "take the model's directory instead of its GGUF file"
NOT_COMPUTED_WITH = ("context_length", "vocab_size")
"""Fields that move no number."""


def field(reader: gguf.GGUFReader, name: str) -> Any:
    """A field of the header; None where there is none."""
    found = reader.get_field(name)
    return None if found is None else found.contents()


def complete(config: Any, network: PreTrainedModel, reader: gguf.GGUFReader, place: str) -> None:
    """Give `config` the positions of the file, and see that nothing else of it is lost.

    Args:
        config: of the network, as transformers made it of the header; its rotary parameters are put right.
        network: as transformers read it.
        reader: of the file.
        place: names the file in errors.

    Raises:
        UserError: the file says what `config` cannot, or holds numbers that `network` has no place for.
    """
    held = sum(int(tensor.n_elements) for tensor in reader.tensors if tensor.name != FREQUENCIES)
    read = sum({weight.data_ptr(): weight.numel() for weight in network.state_dict().values()}.values())
    if held > read:
        raise UserError(
            f"{place}: {held - read:,} of its {held:,} numbers have no place in what transformers makes of it "
            f"(attention biases, for one): {CURE}"
        )
    _stretch(config, reader, place)
    if config.model_type in ARCHITECTURES:
        _refuse_others(config, reader, network.get_input_embeddings().weight.shape[0], place)


def _stretch(config: Any, reader: gguf.GGUFReader, place: str) -> None:
    """Rotary parameters as llama.cpp reads them of the header and of a tensor of factors.

    Raises:
        UserError: they are stretched in a way that is not known here.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    if rope.get("rope_type", "default") != "default":
        return
    prefix = f"{field(reader, 'general.architecture')}.rope"
    kind = field(reader, f"{prefix}.scaling.type") or "linear"
    factor = field(reader, f"{prefix}.scaling.factor") or field(reader, f"{prefix}.scale_linear") or 1.0
    if kind not in ("linear", "none") and factor != 1:
        raise UserError(f"{place}: its positions are stretched by {kind!r}, which is not read from GGUF here: {CURE}")
    if kind == "linear" and factor != 1:
        rope |= {"rope_type": "linear", "factor": float(factor)}
    factors = next((tensor.data for tensor in reader.tensors if tensor.name == FREQUENCIES), None)
    if factors is not None:
        rope |= _llama3(config, torch.from_numpy(factors.copy()), place)


def _llama3(config: Any, factors: Tensor, place: str) -> dict[str, Any]:
    """The parameters of Llama 3 whose rotary frequencies the factors are, fp32 [head_dim / 2].

    Raises:
        UserError: they are none of Llama 3's.
    """
    before = config.rope_parameters
    for original in (8192, *(2**power for power in range(5, 20))):
        found = {
            "rope_type": "llama3",
            "factor": float(factors.max()),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": original,
        }
        config.rope_parameters = {**before, **found}
        made = frequency_factors(config)
        config.rope_parameters = before
        if made.shape == factors.shape and torch.allclose(made, factors, rtol=1e-4):
            return found
    raise UserError(f"{place}: its {FREQUENCIES} are none that Llama 3's stretch of positions makes: {CURE}")


def _refuse_others(config: Any, reader: gguf.GGUFReader, rows: int, place: str) -> None:
    """See that a file of this configuration would have the header that this file has.

    Raises:
        UserError: a field of both differs.
    """
    kind = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config.model_type].kind]
    writer = gguf.GGUFWriter(None, kind)
    write_parameters(writer, config, rows)
    for name, ours in writer.kv_data[0].items():
        theirs = field(reader, name)
        if not isinstance(theirs, int | float) or name.rpartition(".")[2] in NOT_COMPUTED_WITH:
            continue
        if not math.isclose(theirs, ours.value, rel_tol=1e-6):
            raise UserError(f"{place}: {name} is {theirs:g}, but transformers makes {ours.value:g} of it: {CURE}")

"""What memory depends on, read from a network that holds no weights, and from the lengths of a batch."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from smolt.config import LoRA
from smolt.models.forward import decode_step
from smolt.models.forward.gradient_checkpointing import layers_of
from smolt.models.forward.packed_attention import SHORT
from smolt.models.forward.precision import Precision
from smolt.models.forward.quiet import hush, read_by_library
from smolt.models.forward.token_budget import Room
from smolt.models.groups import Groups, PaddedTokens, cut_rows
from smolt.models.locating import Located
from smolt.training.memory.footprint import Batch, Linear, Network, Way, kept_for_backward

COMPOSED = {"gelu_new": 4, "gelu_fast": 4, "quick_gelu": 2}
"""Activation functions of several operations, and how many of these keep their numbers; the others are one."""
HEADS = ("q_norm", "k_norm")
CAPS = ("attn_logit_softcapping", "final_logit_softcapping")


def empty_network(located: Located, classifier: bool = False) -> PreTrainedModel:
    """The network at a path as `smolt.models.forward.trunk.load_trunk` reads it, without its weights.

    Raises:
        UserError: its configuration cannot be read.
    """
    hush()
    kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    extra = {"num_labels": 1} if classifier else {}
    with read_by_library(f"model.path: {located.base}"), torch.device("meta"):
        config = AutoConfig.from_pretrained(located.base, trust_remote_code=False, **extra)
        network: PreTrainedModel = kind.from_config(config, trust_remote_code=False)
    return network


def is_packed(network: PreTrainedModel) -> bool:
    """Whether `Trunk.choose_forward` will find that the packed forward serves it."""
    capped = any(getattr(network.config, name, None) for name in CAPS)
    return bool(getattr(network, "_supports_attention_backend", False)) and not capped


def shape_of(network: PreTrainedModel) -> Network | None:
    """The shape of a network; None where it is not made of like transformer blocks."""
    config: Any = network.config
    blocks, packed = layers_of(network), is_packed(network)
    if blocks is None:
        return None
    block, room = blocks[0], Room.of(network, 0, packed)
    head = int(getattr(config, "head_dim", None) or room.width // room.heads)
    keys = int(getattr(config, "num_key_value_heads", None) or room.heads) * head
    lean = packed and decode_step.objection(network) is None
    linears, norms = tuple(_linears(block)), _norms(block, room.heads * head, keys)
    layer_norms = any(isinstance(module, nn.LayerNorm) for module in block.modules())  # of one operation
    activation = str(getattr(config, "hidden_act", None) or getattr(config, "activation_function", ""))
    operations = COMPOSED.get(activation, 1)
    gated = any(linear.name == "gate_proj" for linear in linears)
    return Network(
        width=room.width,
        layers=room.layers,
        heads=room.heads,
        queries=room.heads * head,
        keys=keys,
        vocabulary=int(config.vocab_size),
        linears=linears,
        norms=sum(norms.values()),
        # The lean forward's norms are one operation too, but for those of heads.
        scaled=0 if layer_norms else sum(size for name, size in norms.items() if not lean or name in HEADS),
        gates=room.mlp * (operations + 2 * gated),
        dropped=room.mlp if operations > 1 else 0,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        buffers=sum(buffer.nbytes for buffer in network.buffers()),
        file=(getattr(config, "dtype", None) or torch.float32).itemsize,
        packed=packed,
        lean=lean,
    )


def _linears(block: nn.Module) -> Iterator[Linear]:
    for name, module in block.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Linear):
            yield Linear(last, module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            yield Linear(last, *module.weight.shape)


def _norms(block: nn.Module, queries: int, keys: int) -> dict[str, int]:
    """Numbers a token that go into each norm of a block; those of heads are named q_norm and k_norm."""
    found = {}
    for name, module in block.named_modules():
        weight = getattr(module, "weight", None)
        if "Norm" in type(module).__name__ and weight is not None:
            last = name.rpartition(".")[2]
            found[last] = {"q_norm": queries, "k_norm": keys}.get(last, weight.numel())
    return found


def way_of(precision: Precision, lora: LoRA | None, optimizer: str = "adamw") -> Way:
    """How a network is trained at a precision, with adapters or without, by an optimizer (adamw or muon)."""
    half = precision.dtype != torch.float32
    if lora is None:
        return Way(half, 0, muon=optimizer == "muon")
    targets = None if isinstance(lora.targets, str) else frozenset(lora.targets)
    return Way(half, lora.rank, targets, dora=lora.dora)


def room_of(network: PreTrainedModel, way: Way) -> Room:
    """What decides the tokens of a micro-batch, as the loaded network will say."""
    return Room.of(network, way.number, is_packed(network))


def largest(updates: Iterable[Groups], limit: int, shape: Network, way: Way) -> tuple[Batch, Batch | None]:
    """Of the micro-batches that updates are cut into, the first and the later one that hold most."""
    first, later, short = [], list[Batch](), short_keys(way)
    for groups in updates:
        parts = [sizes(groups.select(rows), limit, short) for rows in cut_rows(groups, limit)]
        first.append(parts[0])
        later += parts[1:]

    def held(batch: Batch) -> int:
        return kept_for_backward(shape, way, batch)

    return max(first, key=held), max(later, key=held, default=None)


def short_keys(way: Way) -> int:
    """Keys up to which attention keeps its weights."""
    return SHORT.get(torch.bfloat16 if way.half else torch.float32, 0)


def sizes(groups: Groups, limit: int, short: int) -> Batch:
    """The sizes of one micro-batch.

    Args:
        groups: its answers.
        limit: what `Trunk.micro_tokens` says: whether rows are packed or padded.
        short: keys up to which attention keeps its weights.
    """
    lengths = groups.lengths.tolist()
    whole = [len(groups.contexts[owner]) + length for owner, length in zip(groups.owners, lengths, strict=True)]
    if isinstance(limit, PaddedTokens):
        rows, width = len(groups), max(whole)
        return Batch(rows * width, rows * width, rows * width**2, sum(lengths))
    seen: set[int] = set()
    tokens = scores = 0
    for owner, length, key in zip(groups.owners, lengths, whole, strict=True):
        queries = length if owner in seen else key
        seen.add(owner)
        tokens += queries
        scores += queries * key if key <= short else 0
    return Batch(tokens, sum(whole), scores, sum(lengths))

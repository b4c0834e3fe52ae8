"""What two forwards of a network are compared on, and in which precision."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from smolt.models.forward.kv_cache import Cache
from smolt.models.forward.packed_attention import Layout, lay_out
from smolt.models.groups import Groups, from_answers

NARROW = 4  # tokens of a window while forwards are compared, so that every row of the probe is longer


@contextmanager
def in_float32(network: nn.Module) -> Iterator[None]:
    """The same module computing in fp32 for a moment; its stored weights come back bit for bit."""
    dtypes = {name: parameter.dtype for name, parameter in network.named_parameters()}
    if all(dtype == torch.float32 for dtype in dtypes.values()):
        yield
        return
    kept = {name: parameter.data for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for name, parameter in network.named_parameters():
            parameter.data = kept[name]


def probe(vocabulary: int) -> Groups:
    """Two contexts of unequal length with three answers, 16 answer tokens, for comparing forwards."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (40,), generator=draw).tolist()
    return from_answers([ids[:5], ids[5:14]], [[ids[14:22], ids[22:23]], [ids[23:30]]])


def window_settings(network: PreTrainedModel) -> list[str]:
    """The names under which its configuration keeps how far back a layer sees."""
    fields = network.config.to_dict()
    if set(fields.get("layer_types") or ["sliding_attention"]) == {"full_attention"}:
        return []
    named = (name for name in fields if "window" in name or name == "attention_chunk_size")
    return [name for name in named if name != "max_window_layers" and type(fields[name]) is int and fields[name] > 0]


@contextmanager
def narrowed(network: PreTrainedModel, settings: list[str]) -> Iterator[None]:
    """The network with windows of NARROW tokens for a moment, wherever it reads them: configuration or modules."""
    holders: list[Any] = [network.config, *network.modules()]
    held = [(holder, name) for holder in holders for name in settings if type(getattr(holder, name, None)) is int]
    before = [getattr(holder, name) for holder, name in held]
    try:
        for holder, name in held:
            setattr(holder, name, NARROW)
        yield
    finally:
        for (holder, name), value in zip(held, before, strict=True):
            setattr(holder, name, value)


def alone(network: PreTrainedModel, groups: Groups, device: torch.device) -> Tensor:
    """The truth: states of the eager forward, one row at a time, in the order of `Trunk.states` with last tokens."""
    states, last, backbone = [], [], network.base_model
    implementation = network.config._attn_implementation
    network.set_attn_implementation("eager")
    for row, answer in zip(groups.rows, groups.answers, strict=True):
        hidden = backbone(input_ids=row[None].to(device), use_cache=False).last_hidden_state[0]
        states.append(hidden[-1 - len(answer) : -1])
        last.append(hidden[-1:])
    network.set_attn_implementation(implementation)
    return torch.cat([*states, *last])


def stepped(
    run: Callable[[Layout], Tensor], step: Callable[[Tensor, Cache], Tensor], groups: Groups, device: torch.device
) -> Tensor:
    """The states that predict each answer's tokens but its first: contexts run at once, answers fed token by token."""
    layout = lay_out(Groups(groups.contexts, (), (), torch.empty(0, dtype=torch.bool)), device, with_last=False)
    layout.kept = {}
    run(layout)
    contexts = layout.keys_and_values(groups.contexts)
    longest = max(len(context) for context in groups.contexts)
    cache = Cache(contexts[0], len(contexts), len(groups), longest, int(groups.lengths.max()))
    for pairs in contexts:
        cache.add_context(pairs)
    cache.add_slots(groups.owners)
    fed = torch.nn.utils.rnn.pad_sequence(list(groups.answers)).to(device)
    states = torch.stack([step(tokens, cache) for tokens in fed[:-1]], dim=1)
    return torch.cat([row[: len(answer) - 1] for row, answer in zip(states, groups.answers, strict=True)])


def row_limit(config: Any) -> int | None:
    """Most tokens of a row whose rotary angles depend on the position alone; None where they always do."""
    settings = getattr(config, "rope_parameters", None) or {}
    by_layer = [settings, *(held for held in settings.values() if isinstance(held, dict))]
    growing = [held for held in by_layer if re.search("dynamic|longrope", str(held.get("rope_type")))]
    return min(
        (held.get("original_max_position_embeddings") or config.max_position_embeddings for held in growing),
        default=None,
    )

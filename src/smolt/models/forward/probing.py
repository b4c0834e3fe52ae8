"""What two forwards of a network are compared on, and in which precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

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

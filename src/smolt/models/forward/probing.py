"""What two forwards of a network are compared on, and in which precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from smolt.models.groups import Groups, from_answers


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

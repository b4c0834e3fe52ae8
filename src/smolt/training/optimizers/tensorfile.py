"""Tensors in the safetensors format, byte for byte as its library writes them, without a copy of them in memory.

The library's own `save` builds the whole file twice before the first byte is written: with AdamW's moments of a model
whose weights are all trained, several times the model. Here a file is its header and views of the tensors themselves.
"""

import json
from collections.abc import Mapping

import torch
from torch import Tensor

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""The kinds of what is trained and of its moments, the widest first."""


def file_parts(tensors: Mapping[str, Tensor]) -> list[bytes | memoryview]:
    """The parts of a safetensors file, in order: what they say is what the tensors hold when they are written.

    Args:
        tensors: by name; of the kinds in NAMES.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, views, end = dict[str, object](), list[bytes | memoryview](), 0
    for name in order:
        tensor = tensors[name].detach().cpu().contiguous()
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        views.append(tensor.flatten().view(torch.uint8).numpy().data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *views]

"""Tensors in files: the same bytes as the library that everybody reads them with, and none of them copied."""

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from smolt.training.optimizers.tensorfile import file_parts

TENSORS = {
    "policy/b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "policy/a/step": torch.tensor(3.0),
    'policy/é"': torch.ones(3, dtype=torch.bfloat16),
    "policy/turned": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
    "policy/none": torch.zeros(0, 4),
}


@pytest.mark.parametrize("chosen", [list(TENSORS), ["policy/b"], ['policy/é"', "policy/a/step"], []])
def test_the_bytes_are_the_librarys(chosen: list[str]) -> None:
    tensors = {name: TENSORS[name] for name in chosen}
    found = b"".join(file_parts(tensors))
    assert found == save({name: tensor.contiguous() for name, tensor in tensors.items()})
    assert all(bool((load(found)[name] == tensor).all()) for name, tensor in tensors.items())


def test_nothing_is_copied() -> None:
    """A weight that is written to after the parts were made shows in them."""
    weight = nn.Parameter(torch.zeros(4))
    parts = file_parts({"weight": weight})
    before = bytes(parts[-1])
    with torch.no_grad():
        weight.fill_(1.0)
    assert before == bytes(16)
    assert bytes(parts[-1]) == b"\x00\x00\x80?" * 4


def test_a_kind_that_is_never_trained_is_an_error() -> None:
    tensors: dict[str, Tensor] = {"counts": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(KeyError):
        file_parts(tensors)

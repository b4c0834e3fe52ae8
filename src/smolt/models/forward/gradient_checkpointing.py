"""Gradient checkpointing: of each layer only the input is kept, its inside is computed again in the backward pass.

It costs a second forward pass and saves most of what is kept (1604.06174). The same operations run on the same numbers
and, in an adapter's dropout, with the same draws, so that no bit of a loss or a gradient changes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

Call = Callable[..., Any]


def call(module: nn.Module, forward: Call, *arguments: object) -> Any:
    """A layer as it is, which keeps what its backward pass needs."""
    return forward(*arguments)


class Shelf:
    """One block of memory for the gradients of a network, which are moved there as they are made, bit for bit."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.block: Tensor | None = None
        self.filled = 0

    def take(self, module: nn.Module) -> None:
        """Move the gradients of a module that lie alone."""
        for parameter in module.parameters():
            gradient = parameter.grad
            if gradient is None or gradient.untyped_storage().nbytes() != gradient.nbytes:
                continue
            if self.block is None:
                trained = (part for part in self.network.parameters() if part.requires_grad)
                self.block = gradient.new_empty(sum(part.numel() for part in trained))
            place = self.block[self.filled : self.filled + gradient.numel()]
            self.filled += gradient.numel()
            parameter.grad = place.view_as(gradient).copy_(gradient)


def again(used: Callable[[], object], network: nn.Module) -> Call:
    """What a layer goes through that keeps its input alone and is computed once more in the backward pass.

    The reentrant form: its first pass leaves no graph. The nodes of one would lie between intermediate results that are
    dropped at once, in holes that glibc then does not fill again, and most of what is saved would stay resident. For
    the same reason the gradients of a layer are moved side by side.

    Args:
        used: says what the layer computes with besides its arguments, an adapter; it must be the same then.
        network: whose layers they are.
    """
    before, shelf = used(), Shelf(network)

    def around(module: nn.Module, forward: Call, states: Tensor, *arguments: Any, **named: Any) -> Any:
        def inside(states: Tensor) -> Any:
            if used() != before:
                raise RuntimeError("a role's backward pass must come before another role's forward pass")
            return forward(states, *arguments, **named)

        if not states.requires_grad:  # frozen embeddings; the reentrant form looks at its inputs alone
            states = states.detach().requires_grad_()
        states.register_hook(lambda gradient: shelf.take(module))
        return checkpoint(inside, states, use_reentrant=True)

    return around


def layers_of(network: PreTrainedModel) -> nn.ModuleList | None:
    """Its transformer blocks; None where they do not stand in one list."""
    count = int(network.config.num_hidden_layers)
    lists = (module for module in network.modules() if isinstance(module, nn.ModuleList))
    return next((module for module in lists if len(module) == count), None)


@contextmanager
def each_layer(network: PreTrainedModel, around: Call) -> Iterator[None]:
    """Within, each layer's forward goes through `around(layer, forward, ...)`; afterwards the modules are as before.

    Hugging Face's own switch acts in training mode alone, in which a network's dropouts would act too.
    """
    layers: Any = () if around is call else layers_of(network) or ()
    for layer in layers:
        layer.forward = partial(around, layer, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward

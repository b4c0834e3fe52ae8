"""Gradient checkpointing: of each layer only the input is kept, its inside is computed again in the backward pass.

It costs a second forward pass and saves most of what is kept (1604.06174). The same operations run on the same numbers
and, in an adapter's dropout, with the same draws, so that no bit of a loss or a gradient changes.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from smolt.config import Budget
from smolt.errors import UserError
from smolt.groups import Groups, PaddedTokens, largest_atom

LEAST = 256  # tokens of a micro-batch, however little memory there is

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


@dataclass(frozen=True)
class Room:
    """What decides how many tokens fit into a memory.

    Attributes:
        layers, width, mlp, heads: of the network.
        number: bytes of a number that is computed.
        packed: whether its forward is packed.
        found: whether its layers are.
    """

    layers: int
    width: int
    mlp: int
    heads: int
    number: int
    packed: bool
    found: bool = True

    @classmethod
    def of(cls, network: PreTrainedModel, number: int, packed: bool) -> "Room":
        """A network's, from its configuration."""
        config: Any = network.config
        width = int(config.hidden_size)
        mlp = getattr(config, "intermediate_size", None) or 4 * width  # GPT-2 leaves it None
        layers, heads = int(config.num_hidden_layers), int(config.num_attention_heads)
        return cls(layers, width, int(mlp), heads, number, packed, layers_of(network) is not None)

    def tokens(self, memory: float, recomputed: bool = False, least: int = LEAST) -> int:
        """Tokens whose activations fit in `memory` GiB; rows of a padded forward weigh as much as they are long.

        Recomputed, a layer keeps its input, and one layer at a time its whole inside.
        """
        inside, scores = 24 * self.width + 6 * self.mlp, 3 * self.heads  # scores, shares, their dropout
        layers = 1 if recomputed else self.layers
        numbers = layers * inside + (self.layers * self.width if recomputed else 0)
        tokens = PaddedTokens(max(least, int(memory * 2**30 / (numbers * self.number))))
        tokens.square = layers * scores / numbers
        return int(tokens) if self.packed else tokens

    def largest(self, items: Iterable[Groups]) -> float:
        """Tokens of the largest rows that cannot be cut apart, of a forward that keeps everything."""
        limit = self.tokens(1.0)
        return max((largest_atom(groups, limit) for groups in items), default=0.0)

    def reason(self, budget: Budget, largest: float) -> str:
        """Why layers are recomputed, empty where they are not: the same for the same recipe, model and data.

        Args:
            budget: the recipe's.
            largest: what `largest` says of all rows that may have to be learned from.

        Raises:
            UserError: the layers are not found that are always to be recomputed.
        """
        again = "each layer is computed again in the backward pass"
        if budget.checkpointing == "always":
            if not self.found:
                raise UserError("budget.checkpointing: the layers of this network are not found; write auto or never")
            return f"{again} (budget.checkpointing: always)"
        if budget.checkpointing == "never" or not self.found or largest <= self.tokens(budget.memory, least=0):
            return ""
        return f"{again}: the longest rows alone do not fit into budget.memory ({budget.memory:g} GiB) otherwise"

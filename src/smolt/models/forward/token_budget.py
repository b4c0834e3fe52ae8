"""How many tokens fit into a memory, from a network's shape alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from smolt.config import Budget
from smolt.errors import UserError
from smolt.models.forward.gradient_checkpointing import layers_of
from smolt.models.groups import Groups, PaddedTokens, largest_atom

LEAST = 256  # tokens of a micro-batch, however little memory there is


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

"""Prompts that were read, kept for what begins alike: the next turn of a conversation, the same question again.

Nothing is computed in another way because of them. A prompt longer than a piece is read piece by piece from its
beginning, so whole pieces that two of them share are the same numbers in both; a shorter one is kept for itself alone.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from torch import Tensor

from smolt.models.sampling.slots import Pairs

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class ReadPrompt:
    """Keys and values of a prompt's first tokens, and the logits after it, [V], where these are all of it."""

    pairs: Pairs
    after: Tensor | None = None

    @property
    def done(self) -> int:
        """Tokens that were read."""
        return len(self.pairs[0][0])

    @property
    def bytes(self) -> int:
        """What it takes."""
        kept = sum(keys.nbytes + values.nbytes for keys, values in self.pairs)
        return kept + (0 if self.after is None else self.after.nbytes)


@dataclass
class ReadPrompts:
    """The prompts that were asked for last, as many as fit.

    Attributes:
        most: bytes they may take together.
        piece: tokens that are read at a time of a prompt that is longer.
    """

    most: int
    piece: int
    _kept: OrderedDict[Tokens, ReadPrompt] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def keep(self, tokens: Tokens, pairs: Pairs, after: Tensor) -> None:
        """Remember a prompt that was read to its end; the longest unused ones go."""
        if tokens in self._kept:
            return
        own = [(keys.clone(), values.clone()) for keys, values in pairs]  # else a view holds all that was read with it
        read = ReadPrompt(own, after.clone())
        if read.bytes > self.most:
            return
        self._kept[tokens] = read
        self._bytes += read.bytes
        while self._bytes > self.most:
            self._bytes -= self._kept.popitem(last=False)[1].bytes

    def find(self, tokens: Tokens) -> ReadPrompt | None:
        """What need not be read again of this prompt."""
        if tokens in self._kept:
            self._kept.move_to_end(tokens)
            return self._kept[tokens]
        shared, nearest = max(((self._shared(tokens, other), other) for other in self._kept), default=(0, ()))
        if not shared:
            return None
        self._kept.move_to_end(nearest)
        return ReadPrompt([(keys[:shared], values[:shared]) for keys, values in self._kept[nearest].pairs])

    def _shared(self, tokens: Tokens, other: Tokens) -> int:
        """Tokens of the whole pieces that both begin with; one token at least is left to read."""
        pieces = (min(len(tokens) - 1, len(other)) // self.piece) if len(other) > self.piece else 0
        while pieces and tokens[: pieces * self.piece] != other[: pieces * self.piece]:
            pieces -= 1
        return pieces * self.piece

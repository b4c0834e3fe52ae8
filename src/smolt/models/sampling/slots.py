"""Answers decoded side by side: a finished one's slot goes to the next, and more may be added between two steps.

A rollout knows its contexts and limits before it begins, and its cache is made for them. A server does not: its cache
is made anew, larger or smaller, as contexts and answers come and go (`bounds` None).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smolt.models.forward.decode_step import LeanDecoder
from smolt.models.forward.kv_cache import COLUMNS, Cache
from smolt.models.forward.logprobs import exact_logits
from smolt.models.forward.packed_attention import lay_out, lay_out_after
from smolt.models.groups import Groups
from smolt.models.roles import Policy
from smolt.models.sampling.book import Book

PREFILL_TOKENS = 4096
SPARE = 4
"""A cache without bounds is made smaller where it is more than so many times too large."""

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of one context, one pair [tokens, key heads, d] a layer."""


@dataclass(frozen=True)
class Bounds:
    """What a cache is made for: contexts at a time, tokens of the longest, and steps an answer spends in its slot."""

    contexts: int
    longest: int
    steps: int


def prefill(policy: Policy, contexts: Sequence[Tensor]) -> tuple[list[list[tuple[Tensor, Tensor]]], Tensor]:
    """One packed forward over some contexts: keys and values of each, and the logits after each, [contexts, V]."""
    trunk = policy.trunk
    bare = Groups(tuple(contexts), (), (), torch.empty(0, dtype=torch.bool))
    layout = lay_out(bare, trunk.precision.device, with_last=False)
    layout.kept = {}
    states = trunk.run(layout)
    ends = torch.tensor([len(context) for context in contexts]).cumsum(0) - 1
    return layout.keys_and_values(contexts), head_logits(policy, states[ends.to(states.device)])


def prefill_further(policy: Policy, piece: Tensor, before: Pairs) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """One more piece of a context of which the beginning is known.

    Args:
        policy: who reads.
        piece: the next tokens, int64, at least one.
        before: keys and values of all tokens before; empty for the first piece.

    Returns:
        The keys and values of both, and the logits after the piece, [1, V].
    """
    trunk = policy.trunk
    layout = lay_out_after(piece, before, trunk.precision.device)
    states = trunk.run(layout)
    (new,) = layout.keys_and_values([piece])
    if before:
        new = [
            (torch.cat([keys, more_keys]), torch.cat([values, more_values]))
            for (keys, values), (more_keys, more_values) in zip(before, new, strict=True)
        ]
    return new, head_logits(policy, states[-1:])


def head_logits(policy: Policy, states: Tensor) -> Tensor:
    """fp32 logits of some states, [rows, h] -> [rows, V], as training computes them."""
    return exact_logits(states, policy.trunk.head.to(states.dtype))


class Slots:
    """The answers being decoded: which answer sits in which slot, over a cache that is made for the first of them.

    Args:
        policy: who answers.
        book: where it is written.
        size: most answers at a time.
        left: context number -> answers to it that are not over; counted down here, and at 0 the context goes.
        window: positions it will be asked for.
        bounds: of the cache; None lets it grow and shrink.
    """

    def __init__(
        self, policy: Policy, book: Book, size: int, left: dict[int, int], window: int, bounds: Bounds | None = None
    ) -> None:
        self.policy = policy
        self.book = book
        self.size = size
        self.left = left
        self.bounds = bounds
        self.rows: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.ready: dict[int, Tensor] = {}  # the logits after contexts that stand in the cache
        self.standing: list[int] = []  # the contexts in the cache, by row
        self.cache: Cache | None = None
        self.lean: LeanDecoder | None = None
        if policy.trunk.lean:
            self.lean = policy.decoder or policy.trunk.lean_decoder(policy.adapter, window)

    def read_whole(self, contexts: Sequence[Tensor]) -> list[tuple[Pairs, Tensor]]:
        """Some contexts in one forward: keys and values of each, and the logits after it, [V]."""
        pairs, logits = prefill(self.policy, contexts)
        return list(zip(pairs, logits, strict=True))

    def read(self, piece: Tensor, before: Pairs | None) -> tuple[Pairs, Tensor]:
        """One more piece of a context: keys and values of all that was read, and the logits after it, [V].

        Args:
            piece: the next tokens, int64.
            before: keys and values of the tokens before; None at the beginning.
        """
        pairs, logits = prefill_further(self.policy, piece, before or ())
        return pairs, logits[0]

    def size_of(self, held: Pairs) -> int:
        """Bytes of what was read."""
        return sum(keys.nbytes + values.nbytes for keys, values in held)

    def stand(self, number: int, held: Pairs, after: Tensor) -> None:
        """Take in a context that was prefilled, and the logits after it, [V]."""
        self._room(held).add_context(held)
        self.standing.append(number)
        self.ready[number] = after

    def admit(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Draw the first tokens of answers whose contexts stand; slots go to those that go on. Which are over."""
        owners = self.book.owners[rows].tolist()
        over = self.book.advance(rows, torch.stack([self.ready[owner] for owner in owners]))
        place = {number: row for row, number in enumerate(self.standing)}
        going = [place[owner] for owner, ended in zip(owners, over.tolist(), strict=True) if not ended]
        if self.cache is not None:
            self._fit(slots=len(self.rows) + len(going))
            self.cache.add_slots(going)
        self.rows = np.concatenate([self.rows, rows[~over]])
        self.release(rows[over])
        return over

    def step(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Feed each answer's newest token, draw the next, and take out what is over: the rows, and which are."""
        rows = self.rows
        if self.cache is None or not len(rows):
            return rows, np.zeros(len(rows), dtype=np.bool_)
        self._fit()
        trunk, newest = self.policy.trunk, self.book.newest(rows, self.policy.trunk.precision.device)
        if self.lean is None:
            logits = head_logits(self.policy, trunk.decode(newest, self.cache))
        else:
            logits = self.lean.logits(self.lean.step(newest, self.cache))
        over = self.book.advance(rows, logits)
        if over.any():
            self._free(over)
        return rows, over

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Take answers out that nobody waits for any more."""
        gone = np.isin(self.rows, rows)
        if gone.any():
            self._free(gone)

    def clear(self) -> None:
        """Forget all contexts and answers."""
        self.rows, self.ready, self.standing, self.cache = self.rows[:0], {}, [], None

    def _free(self, over: NDArray[np.bool_]) -> None:
        """Free the slots of these answers."""
        ended, self.rows = self.rows[over], self.rows.copy()
        if self.cache is not None:
            for source, target in self.cache.free_slots(over.nonzero()[0].tolist()):
                self.rows[target] = self.rows[source]
        self.rows = self.rows[: len(self.rows) - len(ended)]
        self.release(ended)

    def release(self, rows: NDArray[np.int64]) -> None:
        """Count answers that are over; contexts with none left go."""
        for owner in self.book.owners[rows].tolist():
            self.left[owner] -= 1
        gone = [row for row, number in enumerate(self.standing) if not self.left[number]]
        if not gone or self.cache is None:
            return
        for row in gone:
            del self.ready[self.standing[row]]
        for source, target in self.cache.free_contexts(gone):
            self.standing[target] = self.standing[source]
        self.standing = self.standing[: len(self.standing) - len(gone)]

    def _room(self, like: Pairs) -> Cache:
        """The cache with room for one more context; it stays while answers to it are left."""
        length = len(like[0][0])
        if self.cache is None and self.bounds is not None:
            bounds = self.bounds
            self.cache = Cache(like, bounds.contexts, self.size, bounds.longest, bounds.steps)
        elif self.cache is None:
            self.cache = Cache(like, 1, 1, length, COLUMNS)
        self._fit(contexts=len(self.standing) + 1, longest=length)
        return self.cache

    def _fit(self, contexts: int = 0, slots: int = 0, longest: int = 0) -> None:
        """Make a cache without bounds large enough for this and the next step, and smaller where much is spare."""
        cache = self.cache
        if cache is None or self.bounds is not None:
            return
        wanted = {
            "contexts": max(contexts, len(cache.context_lengths)),
            "slots": max(slots, len(cache.places)),
            "longest": max([longest, *cache.context_lengths]),
            "steps": cache.oldest + 1,
        }
        grown = {
            "contexts": _doubled(wanted["contexts"]),
            "slots": min(self.size, _doubled(wanted["slots"])),
            "longest": max(COLUMNS, wanted["longest"] * 5 // 4),
            "steps": max(COLUMNS, wanted["steps"] * 5 // 4),
        }
        held = cache.bounds
        kept = {name: held[name] for name in held if wanted[name] <= held[name] <= SPARE * grown[name]}
        if len(kept) < len(held):
            cache.refit(**{**grown, **kept})


def _doubled(size: int) -> int:
    """The power of 2 that is no less."""
    return 1 << max(0, size - 1).bit_length()


def by_tokens(
    contexts: Mapping[int, Tensor] | Sequence[Tensor], wanted: Sequence[int], most: int
) -> Iterator[list[int]]:
    """These contexts in order, in batches of so many tokens; a longer one alone."""
    batch: list[int] = []
    used = 0
    for number in wanted:
        if batch and used + len(contexts[number]) > most:
            yield batch
            batch, used = [], 0
        batch.append(number)
        used += len(contexts[number])
    if batch:
        yield batch

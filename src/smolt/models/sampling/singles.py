"""Answers decoded one by one, each over a cache of its own: for networks without the packed forward (GPT-Neo).

A rollout of such a network pads a batch, and the batch is over when its longest answer is. Answers that come and go
cannot be padded against each other, so here each takes its own step: slower, and with the same tokens.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smolt.models.roles import Policy
from smolt.models.sampling.book import Book
from smolt.models.sampling.slots import head_logits


class Singles:
    """Like `Slots`, a step for each answer.

    Args:
        policy: who answers.
        book: where it is written.
        size: most answers at a time.
        left: context number -> answers to it that are not over; counted down here, and at 0 the context goes.
    """

    def __init__(self, policy: Policy, book: Book, size: int, left: dict[int, int]) -> None:
        self.policy = policy
        self.book = book
        self.size = size
        self.left = left
        self.rows: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.ready: dict[int, Tensor] = {}
        self._contexts: dict[int, Any] = {}
        self._caches: dict[int, Any] = {}

    def read_whole(self, contexts: Sequence[Tensor]) -> list[tuple[Any, Tensor]]:
        """Some contexts: the cache of each, and the logits after it, [V]."""
        return [self.read(context, None) for context in contexts]

    def read(self, piece: Tensor, before: Any) -> tuple[Any, Tensor]:
        """One more piece of a context: the cache of all that was read, and the logits after it, [V].

        Args:
            piece: the next tokens, int64.
            before: the cache after the tokens before, which is written on; None at the beginning.
        """
        trunk, device = self.policy.trunk, self.policy.trunk.precision.device
        begin = 0 if before is None else int(before.get_seq_length())
        places = torch.arange(begin, begin + len(piece), device=device)[None]
        with trunk.precision.autocast():
            output = (trunk.backbone if trunk.own_head else trunk.network)(
                input_ids=piece[None].to(device),
                attention_mask=torch.ones(1, begin + len(piece), dtype=torch.int64, device=device),
                position_ids=places,
                past_key_values=before,
                use_cache=True,
            )
        if trunk.own_head:
            return output.past_key_values, head_logits(self.policy, output.last_hidden_state[:, -1])[0]
        return output.past_key_values, output.logits[0, -1]

    def size_of(self, held: Any) -> int:
        """Bytes of what was read."""
        return sum(int(layer.keys.nbytes + layer.values.nbytes) for layer in held.layers)

    def stand(self, number: int, held: Any, after: Tensor) -> None:
        """Take in a context that was read, and the logits after it, [V]."""
        self._contexts[number], self.ready[number] = held, after

    def admit(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Draw the first tokens of answers whose contexts stand; which are over."""
        owners = self.book.owners[rows].tolist()
        over = self.book.advance(rows, torch.stack([self.ready[owner] for owner in owners]))
        for row, owner, ended in zip(rows.tolist(), owners, over.tolist(), strict=True):
            if not ended:
                self._caches[row] = copy.deepcopy(self._contexts[owner])
        self.rows = np.concatenate([self.rows, rows[~over]])
        self.release(rows[over])
        return over

    def step(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Feed each answer's newest token, draw the next, and take out what is over: the rows, and which are."""
        rows, logits = self.rows, []
        if not len(rows):
            return rows, np.zeros(0, dtype=np.bool_)
        for row in rows.tolist():
            newest = self.book.newest(np.array([row]), torch.device("cpu"))
            self._caches[row], after = self.read(newest, self._caches[row])
            logits.append(after)
        over = self.book.advance(rows, torch.stack(logits))
        self.drop(rows[over])
        return rows, over

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Take answers out that are over, or that nobody waits for any more."""
        gone = np.isin(self.rows, rows)
        ended, self.rows = self.rows[gone], self.rows[~gone]
        for row in ended.tolist():
            del self._caches[row]
        self.release(ended)

    def clear(self) -> None:
        """Forget all contexts and answers."""
        self.rows, self.ready, self._contexts, self._caches = self.rows[:0], {}, {}, {}

    def release(self, rows: NDArray[np.int64]) -> None:
        """Count answers that are over; contexts with none left go."""
        for owner in self.book.owners[rows].tolist():
            self.left[owner] -= 1
            if not self.left[owner]:
                self._contexts.pop(owner, None)
                self.ready.pop(owner, None)

"""Keys and values of answers that are decoded side by side, and the attention of one decoding step over them.

A context's keys and values stand here once, whatever the number of its answers: their queries meet them in one product.
Each answer's own ones stand in its slot, behind a copy of its context's where these are few: small products cost as
much as larger ones. All slots write the same column in a step, the columns go round, and how many
steps ago a column was written says whether an answer has it: nothing is concatenated, and a slot that changes hands
need not be cleared. Products take a tensor whole, its unwritten columns hidden by the bias, since in half precision a
part of one would be copied first; so there are few columns at the beginning, and more when they are needed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from smolt.models.forward.kernels import Kernels

COPIED = 2000  # slots times context tokens up to which a copy for each slot is cheaper than products of their own
COLUMNS = 32  # fewest that the slots grow by


class Cache:
    """Slots 0 .. n-1 are in use, and so are context rows 0 .. c-1: a gap is filled from the end.

    Args:
        like: keys and values of one context, one pair [tokens, key heads, d] a layer: shapes and precision.
        contexts: most contexts at a time.
        slots: most answers at a time.
        longest: tokens of the longest context.
        steps: most steps that an answer spends in its slot.
    """

    def __init__(
        self, like: Sequence[tuple[Tensor, Tensor]], contexts: int, slots: int, longest: int, steps: int
    ) -> None:
        _, heads, d = like[0][0].shape
        self.steps, self.copied = steps, longest if slots * longest <= COPIED else 0
        self.context_lengths: list[int] = []
        self.places: list[int] = []  # context row of each slot
        self.born: list[int] = []  # step in which a slot was given away
        self.clock = 0
        # Keys stand as [d, tokens]: a product with transposed small matrices takes twice as long on a CPU.
        zeros, layers = like[0][0].new_zeros, range(len(like))
        self.shared_keys = [zeros(contexts, heads, d, longest) for _ in layers]
        self.shared_values = [zeros(contexts, heads, longest, d) for _ in layers]
        self.own_keys = [zeros(slots, heads, d, self.copied) for _ in layers]
        self.own_values = [zeros(slots, heads, self.copied, d) for _ in layers]
        self._columns = 0
        self._arranged = False

    @property
    def bounds(self) -> dict[str, int]:
        """What it was made for: contexts, slots, tokens of the longest context, and steps."""
        contexts, _, _, longest = self.shared_keys[0].shape
        return {"contexts": contexts, "slots": len(self.own_keys[0]), "longest": longest, "steps": self.steps}

    @property
    def oldest(self) -> int:
        """Steps that the answer which has been longest in its slot has spent there."""
        return max((self.clock - born for born in self.born), default=0)

    def refit(self, contexts: int, slots: int, longest: int, steps: int) -> None:
        """The same contexts and answers within other bounds, none below what is held; layer by layer, as in `_grow`."""
        rows, count, device = len(self.context_lengths), len(self.places), self.own_keys[0].device
        copied, places = longest if slots * longest <= COPIED else 0, torch.tensor(self.places, dtype=torch.int64)
        same = torch.arange(max(self.context_lengths, default=0), device=device)
        clocks = torch.arange(self.clock - self.oldest, self.clock, device=device)
        written = self.copied + clocks % self.steps, copied + clocks % steps
        for held, own, dim in ((self.shared_keys, self.own_keys, 3), (self.shared_values, self.own_values, 2)):
            for layer in range(len(held)):
                held[layer] = _relaid(held[layer], rows, (same, same), (contexts, longest), dim)
                own[layer] = _relaid(own[layer], count, written, (slots, copied + steps), dim)
                if copied:
                    own[layer][:count].narrow(dim, 0, copied).copy_(held[layer][places.to(device)])
        self.copied, self.steps, self._columns, self._arranged = copied, steps, steps, False

    def _grow(self) -> None:
        """More columns, a quarter of what there is; layer by layer, so that no two copies of all stand at a time."""
        more = min(max(COLUMNS, self._columns // 4), self.steps - self._columns)
        self._columns += more
        for held, end in ((self.own_keys, (0, more)), (self.own_values, (0, 0, 0, more))):
            for layer, tensor in enumerate(held):
                held[layer] = pad(tensor, end)

    def add_context(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> int:
        """Take a context in; its row."""
        row, length = len(self.context_lengths), len(pairs[0][0])
        for layer, (keys, values) in enumerate(pairs):
            self.shared_keys[layer][row, :, :, :length] = keys.permute(1, 2, 0)
            self.shared_values[layer][row, :, :length] = values.transpose(0, 1)
        self.context_lengths.append(length)
        return row

    def add_slots(self, places: Sequence[int]) -> None:
        """Give the next free slots to answers to the contexts in these rows."""
        if self.copied and places:
            slots, rows = slice(len(self.places), len(self.places) + len(places)), list(places)
            for own, shared in zip(self.own_keys, self.shared_keys, strict=True):
                own[slots, ..., : self.copied] = shared[rows]
            for own, shared in zip(self.own_values, self.shared_values, strict=True):
                own[slots, :, : self.copied] = shared[rows]
        self.places += places
        self.born += [self.clock] * len(places)
        self._arranged = False

    def free_slots(self, slots: Sequence[int]) -> list[tuple[int, int]]:
        """Take finished answers out; who moved, as (from, to)."""
        moves = _moves(len(self.places), slots)
        if moves:
            source, target = (torch.tensor(side, device=self.own_keys[0].device) for side in zip(*moves, strict=True))
            for held in (*self.own_keys, *self.own_values):
                held[target] = held[source]
        self.places, self.born = (_moved(held, moves, len(slots)) for held in (self.places, self.born))
        self._arranged = False
        return moves

    def free_contexts(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Take contexts out whose answers are all done; who moved, as (from, to)."""
        moves = _moves(len(self.context_lengths), rows)
        for source, target in moves:
            for held in (*self.shared_keys, *self.shared_values):
                held[target] = held[source]
        self.context_lengths = _moved(self.context_lengths, moves, len(rows))
        place = dict(moves)
        self.places = [place.get(row, row) for row in self.places]
        self._arranged = False
        return moves

    @property
    def positions(self) -> list[int]:
        """Position of the token that each slot is fed next."""
        lengths, clock = self.context_lengths, self.clock
        return [lengths[place] + clock - born for place, born in zip(self.places, self.born, strict=True)]

    def begin_step(self) -> None:
        """Before the layers of a step: which keys each slot sees."""
        if not self._arranged:
            self._arrange()
        self._column = self.clock % self.steps
        if self._column >= self._columns:
            self._grow()
        self._age = (self._column - torch.arange(self._columns, device=self._born.device)) % self.steps
        self._written = self.clock - self._born
        own = torch.zeros(len(self.places), self._columns, dtype=self._context_bias.dtype, device=self._born.device)
        own.masked_fill_(self._age[None] > self._written[:, None], self._blocked)
        self._bias: dict[int | None, Tensor] = {None: self._by_row(torch.cat([self._context_bias, own], dim=1))}

    def end_step(self) -> None:
        """After the layers of a step."""
        self.clock += 1

    def _arrange(self) -> None:
        """Where each slot's queries stand in the products with its context: [contexts, key heads, most answers]."""
        device, dtype = self.own_keys[0].device, self.own_keys[0].dtype
        count, contexts, heads = len(self.places), len(self.context_lengths), self.own_keys[0].shape[1]
        seen, numbers = [0] * contexts, []
        for place in self.places:
            numbers.append(seen[place])
            seen[place] += 1
        self._most = max(seen)
        self._alone = self.places == list(range(contexts))
        places, head = torch.tensor(self.places), torch.arange(heads)
        back = (places[:, None] * heads + head) * self._most + torch.tensor(numbers)[:, None]
        forth = torch.zeros(contexts * heads * self._most, dtype=torch.int64)
        forth[back.flatten()] = torch.arange(count * heads)
        self._back, self._forth = back.flatten().to(device), forth.to(device)
        self._blocked = torch.finfo(dtype).min
        needed, longest = max(self.context_lengths), self.shared_keys[0].shape[3]
        self._longest = needed if not self.copied and 2 * needed <= longest else longest
        lengths = torch.tensor(self.context_lengths)[places].to(device)
        beyond = torch.arange(self._longest, device=device)[None] >= lengths[:, None]
        self._context_bias = torch.zeros(beyond.shape, dtype=dtype, device=device).masked_fill_(beyond, self._blocked)
        self._lengths, self._born = lengths, torch.tensor(self.born, device=device)
        self._places = places.to(device)
        self._arranged = True

    def _by_row(self, bias: Tensor) -> Tensor:
        """Of each slot, [slots, keys], for each of its key heads, [slots * key heads, 1, keys]."""
        return bias.repeat_interleave(self.own_keys[0].shape[1], dim=0)[:, None]

    def _windowed(self, window: int) -> Tensor:
        """The bias of a layer that sees only so many keys back."""
        position = self._lengths + self._written
        far = torch.arange(self._longest, device=position.device)[None] <= position[:, None] - window
        old = (self._age >= window)[None].expand(len(position), -1)
        return self._bias[None].masked_fill(self._by_row(torch.cat([far, old], dim=1)), self._blocked)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Write this step's keys and values, then attend.

        Plain batched products: one-query scaled_dot_product_attention is several times slower on a CPU.

        Args:
            layer: whose keys and values.
            query: [slots, heads, d].
            key: [slots, key heads, d].
            value: like key.
            scaling: of the scores; None means d^-0.5.
            window: keys further back than this are not seen; None is no limit.

        Returns:
            [slots, heads * d].
        """
        (count, heads, d), kinds = query.shape, self.own_keys[0].shape[1]
        keys, values = self.own_keys[layer][:count], self.own_values[layer][:count]
        keys[..., self.copied + self._column] = key
        values[:, :, self.copied + self._column] = value
        keys, values = keys.view(count * kinds, d, -1), values.view(count * kinds, -1, d)
        bias, scaling = self._bias_of(window), d**-0.5 if scaling is None else scaling
        asked = query.reshape(count * kinds, -1, d).to(keys.dtype)
        if self.copied:
            weights = torch.baddbmm(bias, asked, keys, alpha=scaling).softmax(dim=-1)
            outputs = torch.bmm(weights, values)
        else:
            asked = asked * scaling
            scores = torch.cat(
                [self._over_contexts(asked, self.shared_keys[layer][..., : self._longest]), asked @ keys], -1
            )
            weights = scores.add_(bias).softmax(dim=-1)
            outputs = self._over_contexts(
                weights[..., : self._longest], self.shared_values[layer][:, :, : self._longest]
            )
            outputs += weights[..., self._longest :] @ values
        return outputs.view(count, heads * d).to(query.dtype)

    def attend_compiled(
        self,
        kernels: Kernels,
        layer: int,
        mixed: Tensor,
        angles: tuple[Tensor, Tensor],
        norms: tuple[Tensor | None, Tensor | None, float],
        scaling: float | None,
        window: int | None,
    ) -> Tensor:
        """`attend` in one call, of `mixed` as the product of queries, keys and values leaves it.

        Args:
            kernels: of the cache's precision.
            layer: as in `attend`.
            mixed: as `Kernels.attend` takes it.
            angles: likewise.
            norms: likewise.
            scaling: as in `attend`.
            window: likewise.
        """
        keys, values = self.own_keys[layer], self.own_values[layer]
        contexts = None if self.copied else (self.shared_keys[layer], self.shared_values[layer], self._longest)
        own = keys, values, self.copied + self._column
        scaling = keys.shape[2] ** -0.5 if scaling is None else scaling
        return kernels.attend(mixed, angles, norms, own, contexts, self._places, self._bias_of(window), scaling)

    def _bias_of(self, window: int | None) -> Tensor:
        if window not in self._bias and window is not None:
            self._bias[window] = self._windowed(window)
        return self._bias[window]

    def _over_contexts(self, rows: Tensor, matrices: Tensor) -> Tensor:
        """Each slot's rows [slots * key heads, group, x] times its context's matrix, of [contexts, key heads, x, y]."""
        matrices = matrices[: len(self.context_lengths)].flatten(0, 1)
        if self._alone:
            return rows @ matrices
        group = rows.shape[1]
        gathered = rows.index_select(0, self._forth).view(len(matrices), self._most * group, -1)
        return (gathered @ matrices).view(-1, group, matrices.shape[2]).index_select(0, self._back)


def _relaid(held: Tensor, rows: int, moved: tuple[Tensor, Tensor], shape: tuple[int, int], dim: int) -> Tensor:
    """The first rows of a tensor in another of so many rows and tokens; token moved[0][i] becomes moved[1][i]."""
    sizes = list(held.shape)
    sizes[0], sizes[dim] = shape
    made = held.new_zeros(sizes)
    made[:rows].index_copy_(dim, moved[1], held[:rows].index_select(dim, moved[0]))
    return made


def _moves(count: int, gone: Sequence[int]) -> list[tuple[int, int]]:
    """Which of `count` entries move where when some go and the rest stays dense."""
    left, out = count - len(gone), set(gone)
    gaps = sorted(place for place in out if place < left)
    return list(zip((place for place in range(left, count) if place not in out), gaps, strict=True))


def _moved(held: list[int], moves: Sequence[tuple[int, int]], gone: int) -> list[int]:
    """A list after these moves, its end cut off."""
    held = list(held)
    for source, target in moves:
        held[target] = held[source]
    return held[: len(held) - gone]

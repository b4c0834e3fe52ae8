"""Groups: contexts and their answers as tokens, the one batch type of smolt.

Notation: P contexts, B answers, T the longest answer. Every per-token tensor is [B, T] over ANSWER tokens and entry t
speaks of answer token t, its stop token included. The prompt has no entry anywhere, so no loss can be written on it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from smolt import processes
from smolt.runs.chunks import counted


@dataclass(frozen=True)
class Groups:
    """P contexts, each with its answers.

    Attributes:
        contexts: P tensors of token ids, int64, at least one token each.
        answers: B tensors of token ids, int64, at least one token each; the stop token is the last one if `stopped`.
        owners: for each answer the index of its context.
        stopped: bool [B], whether the answer ends with a stop token.
        columns: named tensors [B] or [B, T] that travel with the answers (old log-probabilities, advantages, pair ...);
            [B, n, 1] of what has n entries whatever the answer's length.
    """

    contexts: tuple[Tensor, ...]
    answers: tuple[Tensor, ...]
    owners: tuple[int, ...]
    stopped: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.answers) == len(self.owners) == len(self.stopped):
            raise ValueError("answers, owners and stopped must have one entry for each answer")
        if any(len(tokens) == 0 for tokens in (*self.contexts, *self.answers)):
            raise ValueError("a context or an answer has no token")

    def __len__(self) -> int:
        return len(self.answers)

    @cached_property
    def lengths(self) -> Tensor:
        """Answer lengths in tokens, int64 [B]."""
        return torch.tensor([len(answer) for answer in self.answers], dtype=torch.int64)

    @cached_property
    def mask(self) -> Tensor:
        """Bool [B, T], true on real answer tokens: known by length only, never by comparing ids with a pad."""
        return torch.arange(int(self.lengths.max()))[None, :] < self.lengths[:, None]

    @property
    def tokens(self) -> int:
        """Real tokens of one packed forward: every context and every answer once."""
        return sum(len(context) for context in self.contexts) + int(self.lengths.sum())

    @property
    def rows(self) -> list[Tensor]:
        """Each context with its answer, B tensors of token ids."""
        return [torch.cat([self.contexts[row], answer]) for row, answer in zip(self.owners, self.answers, strict=True)]

    @property
    def longest_row(self) -> int:
        """Tokens of the longest context with its answer."""
        return max(
            (len(self.contexts[row]) + len(answer) for row, answer in zip(self.owners, self.answers, strict=True)),
            default=0,
        )

    def select(self, rows: Sequence[int]) -> "Groups":
        """The given answers with the contexts they need and their columns; T shrinks to the longest kept answer."""
        needed = sorted({self.owners[row] for row in rows})
        place = {owner: index for index, owner in enumerate(needed)}
        index = torch.tensor(rows, dtype=torch.int64)
        width = int(self.lengths[index].max())
        return Groups(
            contexts=tuple(self.contexts[owner] for owner in needed),
            answers=tuple(self.answers[row] for row in rows),
            owners=tuple(place[self.owners[row]] for row in rows),
            stopped=self.stopped[index],
            columns={
                name: column[index, :width] if column.dim() == 2 else column[index]
                for name, column in self.columns.items()
            },
        )

    def on(self, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        """The mask and the columns, on a device."""
        return self.mask.to(device), {name: value.to(device) for name, value in self.columns.items()}

    def with_columns(self, **columns: Tensor) -> "Groups":
        """The same groups with further columns."""
        return replace(self, columns={**self.columns, **columns})


def join(parts: Sequence[Groups]) -> Groups:
    """One Groups of several that have the same columns; [B, T] columns are padded with zeros."""
    shift, owners = 0, []
    for part in parts:
        owners += [owner + shift for owner in part.owners]
        shift += len(part.contexts)
    width = max(part.mask.shape[1] for part in parts)
    return Groups(
        contexts=tuple(context for part in parts for context in part.contexts),
        answers=tuple(answer for part in parts for answer in part.answers),
        owners=tuple(owners),
        stopped=torch.cat([part.stopped for part in parts]),
        columns={name: torch.cat([widen(part.columns[name], width) for part in parts]) for name in parts[0].columns},
    )


def widen(column: Tensor, width: int) -> Tensor:
    """A [B, T] column padded with zeros to [B, width]; one that has no entry for each token unchanged."""
    if column.dim() != 2:
        return column
    return torch.nn.functional.pad(column, (0, width - column.shape[1]))


def from_answers(
    contexts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]], stopped: bool = True
) -> Groups:
    """Groups from token lists: `answers[p]` are the answers of `contexts[p]`."""
    rows = [(owner, answer) for owner, group in enumerate(answers) for answer in group]
    return Groups(
        contexts=tuple(torch.tensor(context, dtype=torch.int64) for context in contexts),
        answers=tuple(torch.tensor(answer, dtype=torch.int64) for _, answer in rows),
        owners=tuple(owner for owner, _ in rows),
        stopped=torch.full((len(rows),), stopped),
    )


def atoms(groups: Groups) -> list[list[int]]:
    """Rows that a loss needs side by side: the two answers of a pair (column `pair`), else each answer alone."""
    if "pair" not in groups.columns:
        return [[row] for row in range(len(groups))]
    members: dict[int, list[int]] = {}
    for row, pair in enumerate(groups.columns["pair"].tolist()):
        members.setdefault(pair, []).append(row)
    return list(members.values())


class PaddedTokens(int):
    """A number of tokens for a forward that pads: every row is as long as the longest, and attends to all of itself.

    Attributes:
        square: tokens that one entry of a row's attention matrix weighs as much as.
    """

    square: float = 0.0

    def cost(self, rows: int, width: int) -> float:
        """Tokens that so many padded rows weigh as much as."""
        return rows * width * (1 + self.square * width)


def pad(groups: Groups) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """(ids, positions, mask), each [B, S] padded at the right; flat indices of predicting and of last positions."""
    rows = [
        torch.cat([groups.contexts[owner], answer]) for owner, answer in zip(groups.owners, groups.answers, strict=True)
    ]
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    predicting, last = [], []
    for number, (row, answer) in enumerate(zip(rows, groups.answers, strict=True)):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
        end = number * width + len(row)
        predicting.append(torch.arange(end - len(answer) - 1, end - 1))
        last.append(end - 1)
    positions = torch.arange(width)[None].expand_as(ids)
    return (ids, positions, mask), torch.cat(predicting), torch.tensor(last)


def largest_atom(groups: Groups, tokens: int) -> float:
    """Tokens that the largest atom weighs where it travels alone, counted as `cut_rows` counts against this limit."""
    if isinstance(tokens, PaddedTokens):
        return max(tokens.cost(len(atom), longest_row(groups, atom)) for atom in atoms(groups))
    return max((groups if len(atom) == len(groups) else groups.select(atom)).tokens for atom in atoms(groups))


def longest_row(groups: Groups, rows: Sequence[int]) -> int:
    """Tokens of the longest of these answers with its context."""
    return max(len(groups.contexts[groups.owners[row]]) + len(groups.answers[row]) for row in rows)


def _padded_rows(groups: Groups, limit: PaddedTokens) -> Iterator[list[int]]:
    rows: list[int] = []
    width = 0
    for atom in sorted(atoms(groups), key=lambda atom: groups.owners[atom[0]]):
        longest = longest_row(groups, atom)
        if rows and limit.cost(len(rows) + len(atom), max(width, longest)) > limit:
            yield rows
            rows, width = [], 0
        rows, width = rows + atom, max(width, longest)
    if rows:
        yield rows


def cut_rows(groups: Groups, tokens: int) -> Iterator[list[int]]:
    """Rows of micro-batches of at most about `tokens` packed tokens; a context counts once where its answers meet.

    An atom larger than the budget travels alone. PaddedTokens are counted as a forward that pads computes them.
    """
    if isinstance(tokens, PaddedTokens):
        yield from _padded_rows(groups, tokens)
        return
    rows: list[int] = []
    used, owners = 0, set[int]()
    for atom in sorted(atoms(groups), key=lambda atom: groups.owners[atom[0]]):
        cost = sum(len(groups.answers[row]) for row in atom)
        new = {groups.owners[row] for row in atom}
        fresh = sum(len(groups.contexts[owner]) for owner in new - owners)
        if rows and used + cost + fresh > tokens:
            yield rows
            rows, used, owners = [], 0, set()
            fresh = sum(len(groups.contexts[owner]) for owner in new)
        rows = rows + atom
        used += cost + fresh
        owners |= new
    if rows:
        yield rows


def cut(groups: Groups, tokens: int) -> Iterator[Groups]:
    """Micro-batches; where the cut falls never changes a gradient (losses are sums, divided once per step)."""
    for rows in cut_rows(groups, tokens):
        yield groups.select(rows)


def share_rows(groups: Groups, count: int) -> list[list[int]]:
    """The answers shared out to so many processes, about as many tokens each; atoms stay whole, and some may get none.

    Answers to one context stay together where they can, in the order in which `cut_rows` takes them.
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    ordered = sorted(atoms(groups), key=lambda atom: groups.owners[atom[0]])
    costs = [
        sum(len(groups.contexts[groups.owners[row]]) + len(groups.answers[row]) for row in atom) for atom in ordered
    ]
    before, whole = 0, sum(costs)
    for atom, cost in zip(ordered, costs, strict=True):
        shares[(2 * before + cost) * count // (2 * whole)] += atom
        before += cost
    return shares


def own_share(groups: Groups) -> Groups | None:
    """This process's share of the answers, None where it is empty; with one process all of them."""
    if not processes.sharing():
        return groups
    rows = share_rows(groups, processes.size())[processes.rank()]
    return groups.select(rows) if rows else None


def without_gradient(groups: Groups, tokens: int, compute: Callable[[Groups], Tensor], what: str = "") -> Tensor:
    """A column, [B] or [B, T] on the CPU, computed by micro-batches without gradients, each process its share.

    `what` names it to whoever watches how far it has come.
    """
    if not processes.sharing():
        return _column(groups, tokens, compute, what)
    shares = share_rows(groups, processes.size())
    rows = shares[processes.rank()]
    parts = processes.gather(_column(groups.select(rows), tokens, compute, what) if rows else None)
    found = [(own, part) for own, part in zip(shares, parts, strict=True) if part is not None]
    first = found[0][1]
    column = torch.zeros(groups.mask.shape if first.dim() == 2 else (len(groups), *first.shape[1:]), dtype=first.dtype)
    for own, part in found:
        column[torch.tensor(own)] = widen(part, groups.mask.shape[1])
    return column


def _column(groups: Groups, tokens: int, compute: Callable[[Groups], Tensor], what: str) -> Tensor:
    """The column of `without_gradient`, all of it computed here."""
    column: Tensor | None = None
    done = 0
    if what:
        counted(0, len(groups), what)
    with torch.no_grad():
        for rows in cut_rows(groups, tokens):
            part = compute(groups.select(rows)).cpu()
            if column is None:
                shape = groups.mask.shape if part.dim() == 2 else (len(groups), *part.shape[1:])
                column = torch.zeros(shape, dtype=part.dtype)
            if part.dim() == 2:
                part = widen(part, column.shape[1])
            column[torch.tensor(rows)] = part
            done += len(rows)
            counted(done, len(groups), what)
    if column is None:
        raise ValueError("no answers")
    return column


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of `values` over real tokens, [B, T] -> scalar; padding adds exactly zero even where it is not finite."""
    return values.masked_fill(~mask, 0.0).sum()


def answer_sums(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over the tokens of each answer, [B, T] -> [B]."""
    return values.masked_fill(~mask, 0.0).sum(dim=1)

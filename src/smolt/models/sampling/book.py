"""What has been written of the answers under way: each has a row, with limits and randomness of its own."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smolt import randomness
from smolt.models.groups import Groups
from smolt.models.sampling.draws import Drawing, draw_tokens, likeliest

Written = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]
"""Tokens and their log-probabilities, [rows, width] each, and of each row its length and whether it stopped."""


class Book:
    """What has been written of all answers, row r of every array speaking of one; a row that is over may be begun anew.

    Args:
        rows: how many.
        width: longest answer of any row, its stop token included.
        stop_ids: tokens that end an answer.
    """

    def __init__(self, rows: int, width: int, stop_ids: frozenset[int]) -> None:
        self.keys = np.zeros(rows, dtype=np.uint64)
        self.owners = np.zeros(rows, dtype=np.int64)
        self.drawings: list[Drawing | None] = [None] * rows
        self.limits = np.zeros(rows, dtype=np.int64)
        self.tokens = np.zeros((rows, width), dtype=np.int64)
        self.logprobs = np.zeros((rows, width), dtype=np.float32)
        self.lengths = np.zeros(rows, dtype=np.int64)
        self.stopped = np.zeros(rows, dtype=np.bool_)
        self.listed: dict[int, list[tuple[int, float]]] = {}  # the likeliest tokens beside a row's newest one
        self._temperatures = np.zeros(rows)
        self._penalties = np.ones(rows)
        self._stops = np.array(sorted(stop_ids), dtype=np.int64)

    @property
    def done(self) -> int:
        """Answers that are over, and of the others the written share of their longest; rounded down."""
        shares = np.where(self.stopped, 1.0, self.lengths / np.maximum(self.limits, 1))
        return int(shares.sum() + 1e-6)

    def begin(self, row: int, key: int, owner: int, drawing: Drawing) -> None:
        """Begin an answer.

        Args:
            row: where it is written.
            key: what its randomness is a function of.
            owner: number of its context.
            drawing: how its tokens are drawn, and how many at most.
        """
        self.keys[row], self.owners[row], self.limits[row] = key, owner, drawing.max_tokens
        self.drawings[row] = drawing
        self._temperatures[row], self._penalties[row] = drawing.temperature, drawing.repetition
        self.lengths[row], self.stopped[row] = 0, False
        self.listed.pop(row, None)

    def advance(self, rows: NDArray[np.int64], logits: Tensor) -> NDArray[np.bool_]:
        """Draw one token for each of these answers from their logits, note it, and say which are over."""
        steps = self.lengths[rows]
        uniforms: NDArray[np.float32] = np.zeros(len(rows), dtype=np.float32)
        if self._temperatures[rows].any():
            uniforms = randomness.uniforms_at(self.keys[rows], steps.astype(np.uint64))
        if (self._penalties[rows] != 1).any():
            logits = self._penalised(rows, logits.float())
        drawn, chances = self._draw(rows, logits.float(), torch.from_numpy(uniforms).to(logits.device))
        tokens: NDArray[np.int64] = drawn.cpu().numpy()
        self.tokens[rows, steps] = tokens
        self.logprobs[rows, steps] = chances.cpu().numpy()
        self.lengths[rows] += 1
        stopped = np.isin(tokens, self._stops)
        self.stopped[rows] = stopped
        over: NDArray[np.bool_] = stopped | (steps + 1 >= self.limits[rows])
        return over

    def _draw(self, rows: NDArray[np.int64], logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """`draw_tokens`, all rows of one kind at once."""
        drawings = [self._drawing(row) for row in rows.tolist()]
        first = drawings[0]
        if all(drawing is first for drawing in drawings) and not first.listed:
            return draw_tokens(logits, uniforms, first)
        kinds: dict[tuple[float, int, float], list[int]] = {}
        for place, drawing in enumerate(drawings):
            kinds.setdefault(drawing.kind, []).append(place)
            if drawing.listed:
                found = likeliest(logits[place : place + 1], drawing)
                tokens, logprobs = (part[0].tolist() for part in found)
                self.listed[int(rows[place])] = list(zip(tokens, logprobs, strict=True))
        if len(kinds) == 1:
            return draw_tokens(logits, uniforms, first)
        drawn, chances = torch.zeros_like(uniforms, dtype=torch.int64), torch.zeros_like(uniforms)
        for places in kinds.values():
            index = torch.tensor(places, device=logits.device)
            drawn[index], chances[index] = draw_tokens(logits[index], uniforms[index], drawings[places[0]])
        return drawn, chances

    def _drawing(self, row: int) -> Drawing:
        drawing = self.drawings[row]
        if drawing is None:
            raise RuntimeError(f"row {row} was never begun")
        return drawing

    def _penalised(self, rows: NDArray[np.int64], logits: Tensor) -> Tensor:
        """The logits of what each answer holds already, divided where they are positive and multiplied elsewhere."""
        logits = logits.clone()
        for place, row in enumerate(rows.tolist()):
            penalty = float(self._penalties[row])
            if penalty == 1:
                continue
            held = torch.from_numpy(np.unique(self.tokens[row, : self.lengths[row]])).to(logits.device)
            values = logits[place, held]
            logits[place, held] = torch.where(values > 0, values / penalty, values * penalty)
        return logits

    def newest(self, rows: NDArray[np.int64], device: torch.device) -> Tensor:
        """The token that was drawn last for each of these answers, int64 [rows]."""
        return torch.from_numpy(self.tokens[rows, self.lengths[rows] - 1]).to(device)

    @property
    def written(self) -> Written:
        """All answers as they are."""
        return self.tokens, self.logprobs, self.lengths, self.stopped


def as_groups(contexts: Sequence[Tensor], owners: Sequence[int], parts: Sequence[Written]) -> Groups:
    """The answers of one book or several, one below the other, with the column `sampled`.

    Args:
        contexts: in the order of their numbers.
        owners: of each answer the number of its context.
        parts: what is written in each book; all are of one width.
    """
    tokens, logprobs, lengths, stopped = (np.concatenate(column) for column in zip(*parts, strict=True))
    width = int(lengths.max())
    return Groups(
        contexts=tuple(contexts),
        answers=tuple(
            torch.from_numpy(row[:length].copy()) for row, length in zip(tokens, lengths.tolist(), strict=True)
        ),
        owners=tuple(owners),
        stopped=torch.from_numpy(stopped),
        columns={"sampled": torch.from_numpy(logprobs[:, :width].copy())},
    )

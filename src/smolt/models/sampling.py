"""The sampler: contexts are prefilled once, answers decoded side by side, a finished answer's slot goes to the next.

While learning there is no top-k, top-p or repetition penalty, and no Hub generation_config: the distribution that is
sampled is the one training recomputes. The uniform draw for token t of an answer is a function of (seed, stage, update,
question, answer, t), so an answer does not depend on what is decoded beside it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smolt import randomness
from smolt.models.forward.decode_step import LeanDecoder
from smolt.models.forward.kv_cache import Cache
from smolt.models.forward.logprobs import exact_logits, log_normalizer
from smolt.models.forward.packed_attention import lay_out
from smolt.models.groups import Groups
from smolt.models.roles import Policy
from smolt.runs.chunks import counted

PREFILL_TOKENS = 4096
BLOCK = 256  # entries of the vocabulary that are summed before one of them is drawn
BELOW_ONE = 1 - 2**-23


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn.

    Attributes:
        max_tokens: longest answer, its stop token included.
        temperature: divides the logits; 0 takes the likeliest token.
        batch: answers decoded side by side.
        stop_ids: tokens that end an answer.
        top_p, top_k: nucleus and top-k limits, for chat only; 1 and 0 are off.
        repetition: penalty of tokens that the answer holds already (1909.05858), for chat only; 1 is off.
    """

    max_tokens: int
    temperature: float
    batch: int
    stop_ids: frozenset[int]
    top_p: float = 1.0
    top_k: int = 0
    repetition: float = 1.0


class _Book:
    """What has been written of all answers: row r of every array speaks of answer r % n to context r // n.

    Args:
        keys: uint64 [B], what each answer's randomness is a function of.
        answers: n, answers to each context.
        drawing: how tokens are drawn.
    """

    def __init__(self, keys: NDArray[np.uint64], answers: int, drawing: Drawing) -> None:
        self.keys = keys
        self.answers = answers
        self.drawing = drawing
        self.tokens = np.zeros((len(keys), drawing.max_tokens), dtype=np.int64)
        self.logprobs = np.zeros((len(keys), drawing.max_tokens), dtype=np.float32)
        self.lengths = np.zeros(len(keys), dtype=np.int64)
        self.stopped = np.zeros(len(keys), dtype=np.bool_)
        self.over = 0  # answers that have ended
        self._stops = np.array(sorted(drawing.stop_ids), dtype=np.int64)

    def advance(self, rows: NDArray[np.int64], logits: Tensor) -> NDArray[np.bool_]:
        """Draw one token for each of these answers from their logits, note it, and say which are over."""
        steps = self.lengths[rows]
        uniforms: NDArray[np.float32] = np.zeros(len(rows), dtype=np.float32)
        if self.drawing.temperature:
            uniforms = randomness.uniforms_at(self.keys[rows], steps.astype(np.uint64))
        if self.drawing.repetition != 1:
            logits = self._penalised(rows, logits.float())
        drawn, chances = draw_tokens(logits.float(), torch.from_numpy(uniforms).to(logits.device), self.drawing)
        tokens: NDArray[np.int64] = drawn.cpu().numpy()
        self.tokens[rows, steps] = tokens
        self.logprobs[rows, steps] = chances.cpu().numpy()
        self.lengths[rows] += 1
        stopped = np.isin(tokens, self._stops)
        self.stopped[rows] = stopped
        over: NDArray[np.bool_] = stopped | (steps + 1 >= self.drawing.max_tokens)
        self.over += int(over.sum())
        return over

    def _penalised(self, rows: NDArray[np.int64], logits: Tensor) -> Tensor:
        """The logits of what each answer holds already, divided where they are positive and multiplied elsewhere."""
        logits, penalty = logits.clone(), self.drawing.repetition
        for place, row in enumerate(rows.tolist()):
            held = torch.from_numpy(np.unique(self.tokens[row, : self.lengths[row]])).to(logits.device)
            values = logits[place, held]
            logits[place, held] = torch.where(values > 0, values / penalty, values * penalty)
        return logits

    def newest(self, rows: NDArray[np.int64], device: torch.device) -> Tensor:
        """The token that was drawn last for each of these answers, int64 [rows]."""
        return torch.from_numpy(self.tokens[rows, self.lengths[rows] - 1]).to(device)

    def groups(self, contexts: list[Tensor]) -> Groups:
        """All answers, with the column `sampled`."""
        width = int(self.lengths.max())
        return Groups(
            contexts=tuple(contexts),
            answers=tuple(
                torch.from_numpy(row[:length].copy())
                for row, length in zip(self.tokens, self.lengths.tolist(), strict=True)
            ),
            owners=tuple(row // self.answers for row in range(len(self.keys))),
            stopped=torch.from_numpy(self.stopped),
            columns={"sampled": torch.from_numpy(self.logprobs[:, :width].copy())},
        )


def sample(
    policy: Policy,
    contexts: Sequence[Sequence[int]],
    n: int,
    drawing: Drawing,
    counter: tuple[int, ...],
    ids: Sequence[int] | None = None,
) -> Groups:
    """Answers to each context, n of them.

    Args:
        policy: who answers.
        contexts: token ids, at least one each.
        n: answers for each context.
        drawing: how tokens are drawn.
        counter: (seed, stage, update): what the randomness is a function of, besides question and answer.
        ids: the questions' numbers in that function; their place in `contexts` unless given.

    Returns:
        Groups with the column `sampled`, fp32 [B, T]: the log-probabilities at the sampling temperature (at 1 when
        greedy).
    """
    numbers = [ids[context] if ids else context for context in range(len(contexts))]
    keys = np.array(
        [randomness.key(*counter, number, copy) for number in numbers for copy in range(n)], dtype=np.uint64
    )
    tensors = [torch.tensor(context, dtype=torch.int64) for context in contexts]
    book, told = _Book(keys, n, drawing), 0
    with torch.inference_mode():
        for _ in _decode(policy, tensors, book):
            if book.over > told:
                told = book.over
                counted(told, len(keys))
    return book.groups(tensors)


@torch.inference_mode()  # on a generator: entered for each token, left at each yield, so the consumer never runs in it
def stream_tokens(policy: Policy, context: Sequence[int], drawing: Drawing, counter: tuple[int, ...]) -> Iterator[int]:
    """The tokens of one answer as they are drawn, stop token excluded."""
    book = _Book(np.array([randomness.key(*counter, 0, 0)], dtype=np.uint64), 1, drawing)
    for _ in _decode(policy, [torch.tensor(context, dtype=torch.int64)], book):
        token = int(book.tokens[0, book.lengths[0] - 1])
        if token not in drawing.stop_ids:
            yield token


def draw_tokens(logits: Tensor, uniforms: Tensor, drawing: Drawing) -> tuple[Tensor, Tensor]:
    """One token for each row by inverse CDF, and its log-probability.

    Args:
        logits: fp32 [rows, V].
        uniforms: fp32 [rows], in [0, 1).
        drawing: temperature and limits.

    Returns:
        (tokens int64 [rows], logprobs fp32 [rows]).
    """
    if drawing.temperature not in (0, 1):
        logits = logits / drawing.temperature
    chances = torch.softmax(logits, dim=-1)
    normalizer = log_normalizer(logits, chances)
    if drawing.temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        tokens = _inverse_cdf(_limit(chances, drawing.top_k, drawing.top_p), uniforms)
    return tokens, logits.gather(1, tokens[:, None])[:, 0] - normalizer


def _inverse_cdf(chances: Tensor, uniforms: Tensor) -> Tensor:
    """The entry of each row at this share of its mass: first the block of entries, then the entry within it.

    A cumulative sum over a whole vocabulary is one long chain of additions; sums of blocks are not.

    Args:
        chances: fp32 [rows, V], of any positive sum.
        uniforms: fp32 [rows], in [0, 1).

    Returns:
        int64 [rows]; never an entry of chance 0.
    """
    rows, entries = chances.shape
    whole = entries // BLOCK * BLOCK
    sums = chances[:, :whole].view(rows, -1, BLOCK).sum(dim=-1)
    if whole < entries:
        sums = torch.cat([sums, chances[:, whole:].sum(dim=-1, keepdim=True)], dim=1)
    block, share = _locate(sums, uniforms)
    places = block[:, None] * BLOCK + torch.arange(BLOCK, device=chances.device)
    inside = chances.gather(1, places.clamp(max=entries - 1)).masked_fill_(places >= entries, 0.0)
    return block * BLOCK + _locate(inside, share)[0]


def _locate(masses: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Which entry of each row holds this share of the row's mass, and at which share of the entry, in [0, 1)."""
    upto = masses.cumsum(dim=-1)
    sought = torch.minimum(uniforms, uniforms.new_tensor(BELOW_ONE)) * upto[:, -1]
    entry = torch.searchsorted(upto, sought[:, None], right=True).clamp_(max=masses.shape[1] - 1)
    mass, end = masses.gather(1, entry)[:, 0], upto.gather(1, entry)[:, 0]
    return entry[:, 0], (1 - (end - sought) / mass).clamp_(0, BELOW_ONE)


def _limit(chances: Tensor, top_k: int, top_p: float) -> Tensor:
    """Zero what lies outside the k likeliest tokens or the smallest set that holds top_p of the probability."""
    if not top_k and top_p >= 1:
        return chances
    ordered, order = chances.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    outside = before >= top_p
    if top_k:
        outside[:, top_k:] = True
    return torch.zeros_like(chances).scatter(1, order, ordered.masked_fill(outside, 0.0))


def _decode(policy: Policy, contexts: list[Tensor], book: _Book) -> Iterator[None]:
    """Write all answers; yields after every step."""
    policy.trunk.require_row(max(len(context) for context in contexts) + book.drawing.max_tokens)
    policy.trunk.use(policy.adapter)
    if policy.trunk.packed and policy.trunk.own_head:
        return _decode_packed(policy, contexts, book)
    return _decode_padded(policy, contexts, book)


def _prefill(policy: Policy, contexts: list[Tensor]) -> tuple[list[list[tuple[Tensor, Tensor]]], Tensor]:
    """One packed forward over some contexts: keys and values of each, and the logits after each, [contexts, V]."""
    trunk = policy.trunk
    bare = Groups(tuple(contexts), (), (), torch.empty(0, dtype=torch.bool))
    layout = lay_out(bare, trunk.precision.device, with_last=False)
    layout.kept = {}
    states = trunk.run(layout)
    ends = torch.tensor([len(context) for context in contexts]).cumsum(0) - 1
    return layout.keys_and_values(contexts), head_logits(policy, states[ends.to(states.device)])


def head_logits(policy: Policy, states: Tensor) -> Tensor:
    """fp32 logits of some states, [rows, h] -> [rows, V], as training computes them."""
    return exact_logits(states, policy.trunk.head.to(states.dtype))


class _Slots:
    """The answers being decoded: which answer sits in which slot, over a cache that is made for the first of them."""

    def __init__(self, policy: Policy, contexts: list[Tensor], book: _Book) -> None:
        self.policy = policy
        self.contexts = contexts
        self.book = book
        self.size = min(book.drawing.batch, len(book.keys))
        self.rows: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.ready: dict[int, Tensor] = {}  # the logits after contexts that stand in the cache
        self.standing: list[int] = []  # the contexts in the cache, by row
        self.left = dict.fromkeys(range(len(contexts)), book.answers)  # answers that are not over
        self.cache: Cache | None = None
        self.lean: LeanDecoder | None = None
        if policy.trunk.lean:
            longest = max(len(context) for context in contexts) + book.drawing.max_tokens
            self.lean = policy.trunk.lean_decoder(policy.adapter, longest)

    def admit(self, rows: NDArray[np.int64]) -> None:
        """Prefill the contexts that are missing, draw the first tokens, and give slots to the answers that go on."""
        owners = (rows // self.book.answers).tolist()
        missing = sorted(set(owners) - set(self.standing))
        for batch in _by_tokens(self.contexts, missing):
            pairs, logits = _prefill(self.policy, [self.contexts[number] for number in batch])
            for number, held, after in zip(batch, pairs, logits, strict=True):
                self._room(held).add_context(held)
                self.standing.append(number)
                self.ready[number] = after
        over = self.book.advance(rows, torch.stack([self.ready[owner] for owner in owners]))
        place = {number: row for row, number in enumerate(self.standing)}
        going = [place[owner] for owner, ended in zip(owners, over.tolist(), strict=True) if not ended]
        if self.cache is not None:
            self.cache.add_slots(going)
        self.rows = np.concatenate([self.rows, rows[~over]])
        self._leave(rows[over])

    def _room(self, like: list[tuple[Tensor, Tensor]]) -> Cache:
        """The cache; a context stays while answers to it are left, so there are few more of them than slots."""
        if self.cache is None:
            most = min(len(self.contexts), self.size + 1)
            longest = max(len(context) for context in self.contexts)
            self.cache = Cache(like, most, self.size, longest, max(1, self.book.drawing.max_tokens - 1))
        return self.cache

    def step(self) -> None:
        """Feed each answer's newest token, draw the next, and take out what is over."""
        if self.cache is None:
            return
        trunk, newest = self.policy.trunk, self.book.newest(self.rows, self.policy.trunk.precision.device)
        if self.lean is None:
            logits = head_logits(self.policy, trunk.decode(newest, self.cache))
        else:
            logits = self.lean.logits(self.lean.step(newest, self.cache))
        over = self.book.advance(self.rows, logits)
        if not over.any():
            return
        ended = self.rows[over]
        for source, target in self.cache.free_slots(over.nonzero()[0].tolist()):
            self.rows[target] = self.rows[source]
        self.rows = self.rows[: len(self.rows) - len(ended)]
        self._leave(ended)

    def _leave(self, rows: NDArray[np.int64]) -> None:
        """Count answers that are over; contexts with none left go."""
        for owner in (rows // self.book.answers).tolist():
            self.left[owner] -= 1
        gone = [row for row, number in enumerate(self.standing) if not self.left[number]]
        if not gone or self.cache is None:
            return
        for row in gone:
            del self.ready[self.standing[row]]
        for source, target in self.cache.free_contexts(gone):
            self.standing[target] = self.standing[source]
        self.standing = self.standing[: len(self.standing) - len(gone)]


def _decode_packed(policy: Policy, contexts: list[Tensor], book: _Book) -> Iterator[None]:
    """Continuous batching."""
    slots = _Slots(policy, contexts, book)
    waiting = np.arange(len(book.keys))
    while len(waiting) or len(slots.rows):
        free = slots.size - len(slots.rows)
        if len(waiting) and (free >= max(1, slots.size // 8) or free == slots.size):
            slots.admit(waiting[:free])
            waiting = waiting[free:]
            yield
        if len(slots.rows):
            slots.step()
            yield


def _by_tokens(contexts: list[Tensor], wanted: list[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    used = 0
    for number in wanted:
        if batch and used + len(contexts[number]) > PREFILL_TOKENS:
            yield batch
            batch, used = [], 0
        batch.append(number)
        used += len(contexts[number])
    if batch:
        yield batch


def _decode_padded(policy: Policy, contexts: list[Tensor], book: _Book) -> Iterator[None]:
    """Batches padded at the left, decoded until the longest ends."""
    for start in range(0, len(book.keys), book.drawing.batch):
        rows = np.arange(start, min(start + book.drawing.batch, len(book.keys)))
        yield from _decode_batch(policy, [contexts[row // book.answers] for row in rows.tolist()], rows, book)


def _decode_batch(policy: Policy, asked: list[Tensor], rows: NDArray[np.int64], book: _Book) -> Iterator[None]:
    trunk = policy.trunk
    device = trunk.precision.device
    width = max(len(context) for context in asked)
    ids = torch.stack([torch.nn.functional.pad(context, (width - len(context), 0)) for context in asked]).to(device)
    mask = torch.stack([(torch.arange(width) >= width - len(context)).long() for context in asked]).to(device)
    cache = None
    while len(rows):
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with trunk.precision.autocast():
            output = (trunk.backbone if trunk.own_head else trunk.network)(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
        cache = output.past_key_values
        logits = head_logits(policy, output.last_hidden_state[:, -1]) if trunk.own_head else output.logits[:, -1]
        over = book.advance(rows, logits)
        yield
        if over.any():
            rows, index = rows[~over], torch.from_numpy((~over).nonzero()[0]).to(device)
            if len(rows):
                cache.batch_select_indices(index)
            mask = mask[index]
        ids = book.newest(rows, device)[:, None]
        mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=mask.dtype, device=device)], dim=1)

"""The sampler: contexts are prefilled once, answers decoded side by side, a finished answer's slot goes to the next.

While learning there is no top-k, top-p or repetition penalty, and no Hub generation_config: the distribution that is
sampled is the one training recomputes. The uniform draw for token t of an answer is a function of (seed, stage, update,
question, answer, t), so an answer does not depend on what is decoded beside it.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smolt import counters
from smolt.attention import Decoding, lay_out
from smolt.groups import Groups
from smolt.models import Policy

PREFILL_TOKENS = 4096


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn.

    Attributes:
        max_tokens: longest answer, its stop token included.
        temperature: divides the logits; 0 takes the likeliest token.
        batch: answers decoded side by side.
        stop_ids: tokens that end an answer.
        top_p, top_k: nucleus and top-k limits, for chat only; 1 and 0 are off.
    """

    max_tokens: int
    temperature: float
    batch: int
    stop_ids: frozenset[int]
    top_p: float = 1.0
    top_k: int = 0


@dataclass
class _Request:
    """One answer to write."""

    context: int
    row: int
    key: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False


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
    requests = [
        _Request(context, context * n + copy, counters.key(*counter, ids[context] if ids else context, copy))
        for context in range(len(contexts))
        for copy in range(n)
    ]
    tensors = [torch.tensor(context, dtype=torch.int64) for context in contexts]
    with torch.inference_mode():
        policy.trunk.use(policy.adapter)
        decode = _decode_packed if policy.trunk.packed and policy.trunk.own_head else _decode_padded
        for _ in decode(policy, tensors, requests, drawing):
            pass
    return _as_groups(tensors, requests)


def _as_groups(contexts: list[Tensor], requests: list[_Request]) -> Groups:
    width = max(len(request.tokens) for request in requests)
    sampled = torch.zeros(len(requests), width)
    for request in requests:
        sampled[request.row, : len(request.logprobs)] = torch.tensor(request.logprobs)
    return Groups(
        contexts=tuple(contexts),
        answers=tuple(torch.tensor(request.tokens, dtype=torch.int64) for request in requests),
        owners=tuple(request.context for request in requests),
        stopped=torch.tensor([request.stopped for request in requests]),
        columns={"sampled": sampled},
    )


@torch.inference_mode()  # on a generator: entered for each token, left at each yield, so the consumer never runs in it
def stream_tokens(policy: Policy, context: Sequence[int], drawing: Drawing, counter: tuple[int, ...]) -> Iterator[int]:
    """The tokens of one answer as they are drawn, stop token excluded."""
    request = _Request(0, 0, counters.key(*counter, 0, 0))
    policy.trunk.use(policy.adapter)
    decode = _decode_packed if policy.trunk.packed and policy.trunk.own_head else _decode_padded
    for _ in decode(policy, [torch.tensor(context, dtype=torch.int64)], [request], drawing):
        if request.tokens[-1] not in drawing.stop_ids:
            yield request.tokens[-1]


def draw_tokens(logits: Tensor, uniforms: Tensor, drawing: Drawing) -> tuple[Tensor, Tensor]:
    """One token for each row by inverse CDF, and its log-probability.

    Args:
        logits: fp32 [rows, V].
        uniforms: fp32 [rows], in [0, 1).
        drawing: temperature and limits.

    Returns:
        (tokens int64 [rows], logprobs fp32 [rows]).
    """
    if drawing.temperature == 0:
        tokens = logits.argmax(dim=-1)
        return tokens, torch.log_softmax(logits, dim=-1).gather(1, tokens[:, None])[:, 0]
    scaled = torch.log_softmax(logits / drawing.temperature, dim=-1)
    chances = scaled.exp()
    if drawing.top_k or drawing.top_p < 1:
        chances = _limit(chances, drawing.top_k, drawing.top_p)
    mass = chances.cumsum(dim=-1)
    tokens = torch.searchsorted(mass, (uniforms * mass[:, -1])[:, None], right=True)[:, 0]
    tokens = tokens.clamp(max=logits.shape[-1] - 1)
    return tokens, scaled.gather(1, tokens[:, None])[:, 0]


def _limit(chances: Tensor, top_k: int, top_p: float) -> Tensor:
    """Zero what lies outside the k likeliest tokens or the smallest set that holds top_p of the probability."""
    ordered, order = chances.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    outside = before >= top_p
    if top_k:
        outside[:, top_k:] = True
    return torch.zeros_like(chances).scatter(1, order, ordered.masked_fill(outside, 0.0))


def _advance(logits: Tensor, requests: Sequence[_Request], drawing: Drawing) -> list[int]:
    """Draw one token for each request; note it, its log-probability and whether the answer is over."""
    uniforms: NDArray[np.float32] = np.zeros(len(requests), dtype=np.float32)
    if drawing.temperature:
        row_keys = np.array([request.key for request in requests], dtype=np.uint64)
        steps = np.array([len(request.tokens) for request in requests], dtype=np.uint64)
        uniforms = counters.uniforms_at(row_keys, steps)
    tokens, logprobs = draw_tokens(logits.float(), torch.from_numpy(uniforms).to(logits.device), drawing)
    for request, token, logprob in zip(requests, tokens.tolist(), logprobs.tolist(), strict=True):
        request.tokens.append(token)
        request.logprobs.append(logprob)
        request.stopped = token in drawing.stop_ids
    return [number for number, request in enumerate(requests) if _over(request, drawing)]


def _over(request: _Request, drawing: Drawing) -> bool:
    return request.stopped or len(request.tokens) >= drawing.max_tokens


@dataclass
class _Prefilled:
    """A context's keys and values, one [tokens, key heads, d] pair a layer, and the logits after its last token."""

    cache: list[tuple[Tensor, Tensor]]
    logits: Tensor
    users: int


def _prefill(policy: Policy, contexts: list[Tensor], wanted: list[int], users: int) -> dict[int, _Prefilled]:
    """One packed forward over some contexts."""
    trunk = policy.trunk
    bare = Groups(tuple(contexts[number] for number in wanted), (), (), torch.empty(0, dtype=torch.bool))
    layout = lay_out(bare, trunk.precision.device, with_last=False)
    layout.kept = {}
    states = trunk.run(layout)
    ends = np.cumsum([len(context) for context in bare.contexts])
    logits = head_logits(policy, states[torch.from_numpy(ends - 1).to(states.device)])
    done = {}
    for place, number in enumerate(wanted):
        rows = slice(int(ends[place]) - len(bare.contexts[place]), int(ends[place]))
        cache = [(keys[rows], values[rows]) for _, (keys, values) in sorted(layout.kept.items())]
        done[number] = _Prefilled(cache, logits[place], users)
    return done


def head_logits(policy: Policy, states: Tensor) -> Tensor:
    """fp32 logits of some states, [rows, h] -> [rows, V], computed in the states' precision as training does."""
    head = policy.trunk.head
    return (states @ head.T.to(states.dtype)).float()


class _Slots:
    """The answers being decoded: a fixed number of slots over one cache, kept dense by moving the last into a gap."""

    def __init__(self, policy: Policy, sample_cache: list[tuple[Tensor, Tensor]], size: int, window: int) -> None:
        self.policy = policy
        self.requests: list[_Request] = []
        device = policy.trunk.precision.device
        shapes = [(size, keys.shape[1], window, keys.shape[2]) for keys, _ in sample_cache]
        self.keys = [
            torch.zeros(shape, dtype=keys.dtype, device=device)
            for shape, (keys, _) in zip(shapes, sample_cache, strict=True)
        ]
        self.values = [torch.zeros_like(keys) for keys in self.keys]
        self.lengths: list[int] = []

    def fill(self, request: _Request, prefilled: _Prefilled) -> None:
        """Give the next free slot to an answer whose first token is drawn."""
        slot, length = len(self.requests), len(prefilled.cache[0][0])
        for layer, (keys, values) in enumerate(prefilled.cache):
            self.keys[layer][slot, :, :length] = keys.transpose(0, 1)
            self.values[layer][slot, :, :length] = values.transpose(0, 1)
        self.requests.append(request)
        self.lengths.append(length)

    def free(self, slots: list[int]) -> None:
        """Take finished answers out."""
        for slot in sorted(slots, reverse=True):
            last = len(self.requests) - 1
            if slot != last:
                longest = self.lengths[last]
                for buffer in (*self.keys, *self.values):
                    buffer[slot, :, :longest] = buffer[last, :, :longest]
                self.requests[slot], self.lengths[slot] = self.requests[last], self.lengths[last]
            self.requests.pop()
            self.lengths.pop()

    def step(self) -> Tensor:
        """Feed each answer's newest token; logits for its next one, [slots, V]."""
        trunk, count = self.policy.trunk, len(self.requests)
        device = trunk.precision.device
        lengths = torch.tensor(self.lengths, dtype=torch.int64, device=device)
        cache = Decoding(
            [keys[:count] for keys in self.keys],
            [values[:count] for values in self.values],
            lengths,
            max(self.lengths) + 1,
        )
        newest = torch.tensor([[request.tokens[-1]] for request in self.requests], dtype=torch.int64, device=device)
        with trunk.precision.autocast():
            output = trunk.backbone(input_ids=newest, position_ids=lengths[:, None], layout=cache, use_cache=False)
        self.lengths = [length + 1 for length in self.lengths]
        return head_logits(self.policy, output.last_hidden_state[:, 0])


def _decode_packed(
    policy: Policy, contexts: list[Tensor], requests: list[_Request], drawing: Drawing
) -> Iterator[None]:
    """Continuous batching; yields after every step."""
    size = min(drawing.batch, len(requests))
    window = max(len(context) for context in contexts) + drawing.max_tokens
    answers = len(requests) // len(contexts)
    waiting = deque(requests)
    ready: dict[int, _Prefilled] = {}
    slots: _Slots | None = None
    while waiting or (slots and slots.requests):
        free = size - (len(slots.requests) if slots else 0)
        if waiting and (free >= max(1, size // 8) or free == size):
            chosen = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            slots = _admit(policy, contexts, chosen, ready, slots, (size, window, answers), drawing)
            yield
        if slots is None or not slots.requests:
            continue
        slots.free(_advance(slots.step(), slots.requests, drawing))
        yield


def _admit(
    policy: Policy,
    contexts: list[Tensor],
    chosen: list[_Request],
    ready: dict[int, _Prefilled],
    slots: _Slots | None,
    limits: tuple[int, int, int],
    drawing: Drawing,
) -> _Slots:
    """Prefill what is needed, draw the first tokens, and give slots to the answers that go on."""
    size, window, answers = limits
    missing = sorted({request.context for request in chosen} - set(ready))
    for batch in _by_tokens(contexts, missing):
        ready.update(_prefill(policy, contexts, batch, answers))
    logits = torch.stack([ready[request.context].logits for request in chosen])
    over = set(_advance(logits, chosen, drawing))
    if slots is None:
        slots = _Slots(policy, ready[chosen[0].context].cache, size, window)
    for number, request in enumerate(chosen):
        prefilled = ready[request.context]
        if number not in over:
            slots.fill(request, prefilled)
        prefilled.users -= 1
        if prefilled.users == 0:
            del ready[request.context]
    return slots


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


def _decode_padded(
    policy: Policy, contexts: list[Tensor], requests: list[_Request], drawing: Drawing
) -> Iterator[None]:
    """Batches padded at the left, decoded until the longest ends; yields after every step."""
    for start in range(0, len(requests), drawing.batch):
        yield from _decode_batch(policy, contexts, requests[start : start + drawing.batch], drawing)


def _decode_batch(policy: Policy, contexts: list[Tensor], requests: list[_Request], drawing: Drawing) -> Iterator[None]:
    trunk = policy.trunk
    device = trunk.precision.device
    rows = [contexts[request.context] for request in requests]
    width = max(len(row) for row in rows)
    ids = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0)) for row in rows]).to(device)
    mask = torch.stack([(torch.arange(width) >= width - len(row)).long() for row in rows]).to(device)
    cache, active = None, list(requests)
    while active:
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with trunk.precision.autocast():
            output = trunk.network(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
        cache = output.past_key_values
        over = set(_advance(output.logits[:, -1], active, drawing))
        yield
        if over:
            keep = [number for number in range(len(active)) if number not in over]
            active = [active[number] for number in keep]
            index = torch.tensor(keep, dtype=torch.int64, device=device)
            if active:
                cache.batch_select_indices(index)
            mask = mask[index]
        ids = torch.tensor([[request.tokens[-1]] for request in active], dtype=torch.int64, device=device)
        mask = torch.cat([mask, torch.ones(len(active), 1, dtype=mask.dtype, device=device)], dim=1)

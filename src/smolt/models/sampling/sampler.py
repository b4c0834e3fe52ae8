"""All answers to some contexts: these are prefilled once, and the answers decoded side by side.

While learning there is no top-k, top-p or repetition penalty, and no Hub generation_config: the distribution that is
sampled is the one training recomputes. The uniform draw for token t of an answer is a function of (seed, stage, update,
question, answer, t), so an answer does not depend on what is decoded beside it, nor on which of several processes
decodes it: each takes its share of the contexts, and all get all answers.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smolt import processes, randomness
from smolt.models.groups import Groups
from smolt.models.roles import Policy
from smolt.models.sampling.book import Book, Written, as_groups
from smolt.models.sampling.draws import Drawing
from smolt.models.sampling.slots import PREFILL_TOKENS, Bounds, Slots, by_tokens, head_logits, prefill
from smolt.runs.chunks import counted


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
    tensors = [torch.tensor(context, dtype=torch.int64) for context in contexts]
    owners = [context for context in range(len(contexts)) for _ in range(n)]
    own = _book(processes.share(numbers), n, drawing, counter)
    return as_groups(tensors, owners, processes.gather(_filled(own, policy, processes.share(tensors), drawing)))


def _filled(book: Book, policy: Policy, contexts: Sequence[Tensor], drawing: Drawing) -> Written:
    """What is written in a book once all its answers are over."""
    told = 0
    with torch.inference_mode():
        for _ in _decode(policy, contexts, book, drawing) if contexts else ():
            if (done := book.done) > told:
                counted(told := done, len(book.keys))
    return book.written


@torch.inference_mode()  # on a generator: entered for each token, left at each yield, so the consumer never runs in it
def stream_tokens(policy: Policy, context: Sequence[int], drawing: Drawing, counter: tuple[int, ...]) -> Iterator[int]:
    """The tokens of one answer as they are drawn, stop token excluded."""
    book = _book([0], 1, drawing, counter)
    for _ in _decode(policy, [torch.tensor(context, dtype=torch.int64)], book, drawing):
        token = int(book.tokens[0, book.lengths[0] - 1])
        if token not in drawing.stop_ids:
            yield token


def _book(numbers: Sequence[int], n: int, drawing: Drawing, counter: tuple[int, ...]) -> Book:
    """Row r speaks of answer r % n to context r // n."""
    book = Book(len(numbers) * n, drawing.max_tokens, drawing.stop_ids)
    for owner, number in enumerate(numbers):
        for copy in range(n):
            book.begin(owner * n + copy, randomness.key(*counter, number, copy), owner, drawing)
    return book


def _decode(policy: Policy, contexts: Sequence[Tensor], book: Book, drawing: Drawing) -> Iterator[None]:
    """Write all answers; yields after every step."""
    policy.trunk.require_row(max(len(context) for context in contexts) + drawing.max_tokens)
    policy.trunk.use(policy.adapter)
    if policy.trunk.packed and policy.trunk.own_head:
        return _decode_packed(policy, contexts, book, drawing)
    return _decode_padded(policy, contexts, book, drawing)


def _decode_packed(policy: Policy, contexts: Sequence[Tensor], book: Book, drawing: Drawing) -> Iterator[None]:
    """Continuous batching."""
    size, longest = min(drawing.batch, len(book.keys)), max(len(context) for context in contexts)
    bounds = Bounds(min(len(contexts), size + 1), longest, max(1, drawing.max_tokens - 1))
    left = dict.fromkeys(range(len(contexts)), len(book.keys) // len(contexts))
    slots = Slots(policy, book, size, left, longest + drawing.max_tokens, bounds)
    waiting = np.arange(len(book.keys))
    while len(waiting) or len(slots.rows):
        free = slots.size - len(slots.rows)
        if len(waiting) and (free >= max(1, slots.size // 8) or free == slots.size):
            _seat(slots, contexts, waiting[:free])
            waiting = waiting[free:]
            yield
        if len(slots.rows):
            slots.step()
            yield


def _seat(slots: Slots, contexts: Sequence[Tensor], rows: NDArray[np.int64]) -> None:
    """Prefill the contexts that are missing, and give slots to these answers."""
    missing = sorted(set(slots.book.owners[rows].tolist()) - set(slots.standing))
    for batch in by_tokens(contexts, missing, PREFILL_TOKENS):
        pairs, logits = prefill(slots.policy, [contexts[number] for number in batch])
        for number, held, after in zip(batch, pairs, logits, strict=True):
            slots.stand(number, held, after)
    slots.admit(rows)


def _decode_padded(policy: Policy, contexts: Sequence[Tensor], book: Book, drawing: Drawing) -> Iterator[None]:
    """Batches padded at the left, decoded until the longest ends."""
    for start in range(0, len(book.keys), drawing.batch):
        rows = np.arange(start, min(start + drawing.batch, len(book.keys)))
        yield from _decode_batch(policy, [contexts[owner] for owner in book.owners[rows].tolist()], rows, book)


def _decode_batch(policy: Policy, asked: list[Tensor], rows: NDArray[np.int64], book: Book) -> Iterator[None]:
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

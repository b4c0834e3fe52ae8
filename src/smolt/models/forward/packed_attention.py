"""Packed attention: contexts and their answers lie end to end in one row, and each real token is computed once.

A row holds each context once, then each of its answers; positions are explicit. Linear layers see N real tokens and no
padding; only attention knows the structure: a context attends to itself causally, an answer to its context and itself.
transformers' attention interface lets this one function serve unmodified models: the Layout travels as a keyword
argument of the model's forward, never in a global.

Inside attention, segments of like length are stacked into a few blocks, one scaled-dot-product call each. A context
and its first answer are one ordinary causal sequence; every further answer is a segment of its own whose keys are
its context's and its own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from smolt.models.forward.kv_cache import Cache
from smolt.models.groups import Groups

NAME = "smolt_packed"
# Padding inside attention is cheaper than a call up to about this many score entries, or this share of the real ones.
CALL_COST = 16_384
PADDING_SHARE = 0.3
SHORT = {torch.float32: 128, torch.bfloat16: 512}  # keys up to which plain products are faster on a CPU

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Segment:
    """Queries [start, end) of the row, whose keys are `shared` leading context positions and the queries themselves."""

    start: int
    end: int
    shared: tuple[int, int]

    @property
    def queries(self) -> int:
        """Number of queries."""
        return self.end - self.start

    @property
    def keys(self) -> int:
        """Number of keys."""
        return self.shared[1] - self.shared[0] + self.queries


@dataclass(frozen=True)
class AttentionBlock:
    """Segments computed by one attention call: b rows of q queries and k keys, short ones padded at the right."""

    segments: tuple[Segment, ...]
    queries: int
    keys: int
    shared: Tensor  # int64 [b]: keys before the first query

    def bias(self, dtype: torch.dtype, device: torch.device, window: int | None) -> Tensor | None:
        """Additive mask [b, 1, q, k], or None where plain causal order from the top left says it all."""
        if window is None and self.queries == self.keys:
            return None
        query = torch.arange(self.queries)[None, :, None] + self.shared[:, None, None]
        key = torch.arange(self.keys)[None, None, :]
        allowed = key <= query
        if window is not None:
            allowed &= key > query - window
        blocked = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
        return blocked[:, None].to(device)


@dataclass
class Layout:
    """How one packed row is laid out.

    Attributes:
        ids: int64 [1, N].
        positions: int64 [1, N].
        blocks: the attention calls.
        query_index, key_index: rows of the packed tensors that fill all blocks, in order.
        output_index: for each packed position its place among the blocks' outputs.
        predicting: position that predicts each answer token, in the order of the true entries of `mask`.
        last: position of each answer's last token; empty unless the row holds last tokens.
        mask: bool [B, T], on `ids`' device.
        kept: where each layer's keys and values [N, key heads, d] are left for a sampler; None in training.
        before: each layer's keys and values [M, key heads, d] of tokens that were read before this row; `key_index`
            counts them first.
    """

    ids: Tensor
    positions: Tensor
    blocks: list[AttentionBlock]
    query_index: Tensor
    key_index: Tensor
    output_index: Tensor
    predicting: Tensor
    last: Tensor
    mask: Tensor
    kept: dict[int, tuple[Tensor, Tensor]] | None = None
    before: Sequence[tuple[Tensor, Tensor]] = ()
    biases: dict[tuple[int, torch.dtype, int | None], Tensor | None] = field(default_factory=dict)

    def keys_and_values(self, contexts: Sequence[Tensor]) -> list[list[tuple[Tensor, Tensor]]]:
        """What a row of nothing but these contexts left in `kept`: for each context one pair a layer."""
        ends = torch.tensor([len(context) for context in contexts]).cumsum(0).tolist()
        rows = [slice(end - len(context), end) for end, context in zip(ends, contexts, strict=True)]
        pairs = [pair for _, pair in sorted((self.kept or {}).items())]
        return [[(keys[row], values[row]) for keys, values in pairs] for row in rows]

    def bias(self, number: int, query: Tensor, window: int | None) -> Tensor | None:
        """The additive mask of one block, made once for all layers."""
        place = (number, query.dtype, window)
        if place not in self.biases:
            self.biases[place] = self.blocks[number].bias(query.dtype, query.device, window)
        return self.biases[place]


def lay_out(groups: Groups, device: torch.device, with_last: bool) -> Layout:
    """The packed row of some groups.

    Args:
        groups: contexts and answers.
        device: where the tensors go.
        with_last: whether each answer's last token is in the row. Nothing is predicted from it, so only a verdict,
            which is read AT the stop token, needs it.
    """
    ids: list[Tensor] = []
    positions: list[Indices] = []
    segments: list[Segment] = []
    predicting: list[Indices] = [np.empty(0, dtype=np.int64)] * len(groups)
    last = [0] * len(groups)
    answers_of: dict[int, list[int]] = {}
    for row, owner in enumerate(groups.owners):
        answers_of.setdefault(owner, []).append(row)
    place = 0
    for owner, context in enumerate(groups.contexts):
        start, end = place, place + len(context)
        ids.append(context)
        positions.append(np.arange(len(context)))
        place = end
        for number, row in enumerate(answers_of.get(owner, [])):
            answer = groups.answers[row] if with_last else groups.answers[row][:-1]
            first, place = place, place + len(answer)
            ids.append(answer)
            positions.append(np.arange(len(context), len(context) + len(answer)))
            predicting[row] = np.arange(first - 1, first - 1 + len(groups.answers[row]))
            predicting[row][0] = end - 1
            last[row] = place - 1
            if number == 0:
                segments.append(Segment(start, place, (start, start)))
            elif len(answer):
                segments.append(Segment(first, place, (start, end)))
        if owner not in answers_of:
            segments.append(Segment(start, end, (start, start)))
    blocks = [stack(run) for run in runs(segments)]
    query_index, key_index, output_index = gather_indices(blocks, place)
    none = np.empty(0, dtype=np.int64)
    return Layout(
        ids=torch.cat(ids)[None].to(device),
        positions=torch.from_numpy(np.concatenate(positions))[None].to(device),
        blocks=blocks,
        query_index=torch.from_numpy(query_index).to(device),
        key_index=torch.from_numpy(key_index).to(device),
        output_index=torch.from_numpy(output_index).to(device),
        predicting=torch.from_numpy(np.concatenate([none, *predicting])).to(device),
        last=torch.tensor(last if with_last else [], dtype=torch.int64, device=device),
        mask=groups.mask.to(device) if len(groups) else torch.empty(0, 0, dtype=torch.bool, device=device),
    )


def lay_out_after(piece: Tensor, before: Sequence[tuple[Tensor, Tensor]], device: torch.device) -> Layout:
    """The row of one more piece of a context, whose keys and values are kept.

    Args:
        piece: int64, at least one token.
        before: for each layer keys and values [M, key heads, d] of the M tokens before it; empty at the beginning.
        device: where the tensors go.
    """
    begin = len(before[0][0]) if before else 0
    end = begin + len(piece)
    blocks = [stack([Segment(begin, end, (0, begin))])]
    query_index, key_index, output_index = (torch.from_numpy(part).to(device) for part in gather_indices(blocks, end))
    none = torch.empty(0, dtype=torch.int64, device=device)
    return Layout(
        ids=piece[None].to(device),
        positions=torch.arange(begin, end, device=device)[None],
        blocks=blocks,
        query_index=query_index - begin,
        key_index=key_index,
        output_index=output_index[begin:],
        predicting=none,
        last=none,
        mask=torch.empty(0, 0, dtype=torch.bool, device=device),
        kept={},
        before=before,
    )


def gather_indices(blocks: Sequence[AttentionBlock], length: int) -> tuple[Indices, Indices, Indices]:
    """Rows of the packed tensors that fill all blocks, queries and keys, and each position's place in the outputs."""
    query_index, key_index, output_index = [], [], np.empty(length, dtype=np.int64)
    filled = 0
    for block in blocks:
        held = np.array([(part.start, part.end, *part.shared) for part in block.segments])
        start, end, shared, shared_end = (column[:, None] for column in held.T)
        query, key, before = np.arange(block.queries), np.arange(block.keys), shared_end - shared
        queries = np.minimum(start + query, end - 1)
        query_index.append(queries.ravel())
        key_index.append(np.where(key < before, shared + key, np.minimum(start + key - before, end - 1)).ravel())
        real = query < end - start
        output_index[queries[real]] = filled + np.flatnonzero(real.ravel())
        filled += queries.size
    return np.concatenate(query_index), np.concatenate(key_index), output_index


def runs(segments: Iterable[Segment]) -> Iterable[list[Segment]]:
    """Segments in runs that are worth one padded call: causal ones apart from those with shared keys."""
    for causal in (True, False):
        kind = [segment for segment in segments if (segment.keys == segment.queries) is causal]
        run: list[Segment] = []
        real = longest_query = longest_key = 0
        for segment in sorted(kind, key=lambda segment: (segment.keys, segment.queries)):
            wider = max(longest_query, segment.queries), max(longest_key, segment.keys)
            padded = (len(run) + 1) * wider[0] * wider[1]
            area = real + segment.queries * segment.keys
            if run and padded > area * (1 + PADDING_SHARE) + CALL_COST:
                yield run
                run, wider, area = [], (segment.queries, segment.keys), segment.queries * segment.keys
            run.append(segment)
            real, (longest_query, longest_key) = area, wider
        if run:
            yield run


def stack(segments: list[Segment]) -> AttentionBlock:
    """The block of one run."""
    return AttentionBlock(
        segments=tuple(segments),
        queries=max(segment.queries for segment in segments),
        keys=max(segment.keys for segment in segments),
        shared=torch.tensor([segment.keys - segment.queries for segment in segments]),
    )


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | Cache | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of one packed row, or of one decoding step, for transformers' AttentionInterface.

    Args:
        module: the calling attention layer (its `layer_idx` names the cache of a decoding step).
        query: [1, heads, N, d] when packed, [slots, heads, 1, d] when decoding.
        key: [.., key heads, .., d].
        value: like key.
        attention_mask: must be absent: the layout is the mask.
        scaling: of the scores; None means d^-0.5.
        dropout: must be 0; LoRA's dropout is the only one smolt trains with.
        layout: how the row is laid out, or the decoding step's cache.
        sliding_window: keys further back than this are not seen.
        softcap: refused.
        s_aux: attention sinks; refused.

    Returns:
        The outputs as [batch, N, heads, d], and None for the weights.

    Raises:
        NotImplementedError: for a keyword that changes attention in a way this function does not compute.
    """
    if layout is None or attention_mask is not None or softcap is not None or s_aux is not None or dropout:
        raise NotImplementedError("packed attention was called with a feature it does not compute")
    if isinstance(layout, Cache):
        layer, (q, k, v) = cast(int, module.layer_idx), (part[:, :, 0] for part in (query, key, value))
        return layout.attend(layer, q, k, v, scaling, sliding_window).view(len(q), 1, *q.shape[1:]), None
    if layout.kept is not None:
        layout.kept[cast(int, module.layer_idx)] = (key[0].transpose(0, 1), value[0].transpose(0, 1))
    if layout.before:
        before = layout.before[cast(int, module.layer_idx)]
        key, value = (
            torch.cat([old.transpose(0, 1)[None], new], dim=2) for old, new in zip(before, (key, value), strict=True)
        )
    query, key = query.to(value.dtype), key.to(value.dtype)  # trained in half precision, norms of heads leave fp32
    gathered = query[0].transpose(0, 1).index_select(0, layout.query_index)
    keys = key[0].transpose(0, 1).index_select(0, layout.key_index)
    values = value[0].transpose(0, 1).index_select(0, layout.key_index)
    query_sizes = [len(block.segments) * block.queries for block in layout.blocks]
    key_sizes = [len(block.segments) * block.keys for block in layout.blocks]
    outputs = []
    pieces = zip(
        layout.blocks, gathered.split(query_sizes), keys.split(key_sizes), values.split(key_sizes), strict=True
    )
    for number, (block, q, k, v) in enumerate(pieces):
        b = len(block.segments)
        bias = layout.bias(number, query, sliding_window)
        attended = attend_block(
            q.view(b, block.queries, *q.shape[1:]).transpose(1, 2),
            k.view(b, block.keys, *k.shape[1:]).transpose(1, 2),
            v.view(b, block.keys, *v.shape[1:]).transpose(1, 2),
            bias,
            q.shape[-1] ** -0.5 if scaling is None else scaling,
        )
        outputs.append(attended.transpose(1, 2).reshape(b * block.queries, *q.shape[1:]))
    return torch.cat(outputs).index_select(0, layout.output_index)[None], None


def window_of_layer(attention: Any) -> int | None:
    """How far back an attention layer sees, from the layer or, where it has no such field, from its configuration."""
    holder = attention if hasattr(attention, "sliding_window") else attention.config
    window: int | None = getattr(holder, "sliding_window", None)
    return window


def attend_block(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scaling: float) -> Tensor:
    """Attention of one block, [b, heads, q, d] and [b, key heads, k, d] -> [b, heads, q, d].

    Args:
        query: the block's queries.
        key: its keys.
        value: its values.
        bias: additive [b, 1, q, k]; None is causal order from the top left.
        scaling: of the scores.
    """
    if query.device.type == "cpu" and key.shape[2] <= SHORT.get(query.dtype, 0):
        if bias is None:
            bias = torch.full(query.shape[2:3] * 2, torch.finfo(query.dtype).min).triu_(1)[None, None]
        apply: Callable[..., Tensor] = _ShortAttention.apply
        return apply(query, key, value, bias, scaling)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=bias,
        is_causal=bias is None,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


class _ShortAttention(torch.autograd.Function):
    """Attention by batched products; the weights are kept for the backward pass, few as they are."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float) -> Tensor:
        b, heads, q, d = query.shape
        kinds = key.shape[1]
        asked = (query * scaling).reshape(b, kinds, -1, d)
        scores = (asked @ key.transpose(-1, -2)).view(b, kinds, heads // kinds, q, -1).add_(bias[:, :, None])
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
        weights = weights.view(b, kinds, -1, key.shape[2])
        ctx.save_for_backward(asked, key, value, weights)
        ctx.scaling = scaling
        return (weights @ value).view(b, heads, q, d)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        asked, key, value, weights = ctx.saved_tensors
        grad_outputs = grad.reshape(asked.shape)
        grad_value = weights.transpose(-1, -2) @ grad_outputs
        grad_weights = grad_outputs @ value.transpose(-1, -2)
        grad_scores = grad_weights.sub_((grad_weights * weights).sum(dim=-1, keepdim=True)).mul_(weights)
        grad_query = (grad_scores @ key).mul_(ctx.scaling).view(grad.shape)
        return grad_query, grad_scores.transpose(-1, -2) @ asked, grad_value, None, None


AttentionInterface.register(NAME, packed_attention)

"""One token from its logits: by inverse CDF, within the limits of a chat where it has some."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smolt.models.forward.logprobs import log_normalizer

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
        listed: how many of the likeliest tokens are noted beside each drawn one, for a server only.
    """

    max_tokens: int
    temperature: float
    batch: int
    stop_ids: frozenset[int]
    top_p: float = 1.0
    top_k: int = 0
    repetition: float = 1.0
    listed: int = 0

    @property
    def kind(self) -> tuple[float, int, float]:
        """What decides how one token is drawn: answers of one kind are drawn at once."""
        return self.temperature, self.top_k, self.top_p


def draw_tokens(logits: Tensor, uniforms: Tensor, drawing: Drawing) -> tuple[Tensor, Tensor]:
    """One token for each row by inverse CDF, and its log-probability.

    Args:
        logits: fp32 [rows, V].
        uniforms: fp32 [rows], in [0, 1).
        drawing: temperature and limits.

    Returns:
        (tokens int64 [rows], logprobs fp32 [rows]).
    """
    logits, chances, normalizer = _distribution(logits, drawing)
    if drawing.temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        tokens = _inverse_cdf(_limit(chances, drawing.top_k, drawing.top_p), uniforms)
    return tokens, logits.gather(1, tokens[:, None])[:, 0] - normalizer


def likeliest(logits: Tensor, drawing: Drawing) -> tuple[Tensor, Tensor]:
    """The `listed` likeliest tokens of each row, likeliest first, and their log-probabilities, [rows, V] -> [rows, k].

    The distribution is the one `draw_tokens` gives log-probabilities of: before top-k and top-p limits.
    """
    logits, _, normalizer = _distribution(logits, drawing)
    values, tokens = logits.topk(min(drawing.listed, logits.shape[1]), dim=-1)
    return tokens, values - normalizer[:, None]


def _distribution(logits: Tensor, drawing: Drawing) -> tuple[Tensor, Tensor, Tensor]:
    """Logits at the temperature (at 1 when greedy), their softmax, and the logarithm of its denominator [rows]."""
    if drawing.temperature not in (0, 1):
        logits = logits / drawing.temperature
    chances = torch.softmax(logits, dim=-1)
    return logits, chances, log_normalizer(logits, chances)


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

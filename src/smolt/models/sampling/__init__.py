"""The one sampler: for rollouts, evaluation and chat with limits of one recipe, for a server with those of each answer.

draws    one token from its logits
book     what has been written of the answers under way
slots    answers decoded side by side over one cache
int8     weights in 8 bits for one answer at a time, and what that changes
singles  the same one by one, for networks without the packed forward
sampler  all answers to some contexts
"""

from smolt.models.sampling.book import Book
from smolt.models.sampling.draws import Drawing, draw_tokens
from smolt.models.sampling.int8 import answer_in_int8
from smolt.models.sampling.sampler import sample, stream_tokens
from smolt.models.sampling.singles import Singles
from smolt.models.sampling.slots import PREFILL_TOKENS, Slots

__all__ = [
    "PREFILL_TOKENS",
    "Book",
    "Drawing",
    "Singles",
    "Slots",
    "answer_in_int8",
    "draw_tokens",
    "sample",
    "stream_tokens",
]

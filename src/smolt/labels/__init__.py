"""Human preference labels: pairs shown blind in a terminal, a store that loses nothing, agreement, and exchange."""

from smolt.labels.nouns import BlindPair, Choice, Label, Side, pair_of
from smolt.labels.queue import left_side, make_queue
from smolt.labels.session import Session
from smolt.labels.store import LabelStore

__all__ = ["BlindPair", "Choice", "Label", "LabelStore", "Session", "Side", "left_side", "make_queue", "pair_of"]

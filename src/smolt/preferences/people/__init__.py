"""Human preference labels: pairs shown blind in a terminal, a store that loses nothing, agreement, and exchange."""

from smolt.preferences.people.nouns import BlindPair, Choice, Label, Side, Vote, pair_of
from smolt.preferences.people.queue import left_side, make_queue
from smolt.preferences.people.session import Session
from smolt.preferences.people.store import LabelStore

__all__ = [
    "BlindPair",
    "Choice",
    "Label",
    "LabelStore",
    "Session",
    "Side",
    "Vote",
    "left_side",
    "make_queue",
    "pair_of",
]

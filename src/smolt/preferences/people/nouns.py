"""What is labelled and what a label says, apart from how it was shown."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from smolt.data import Context, Preference

Side = Literal["first", "second"]
Choice = Literal["first", "second", "tie", "both_bad", "skip"]


@dataclass(frozen=True)
class BlindPair:
    """Two answers to one context, in an order that says nothing: sorted by a hash of context and answer.

    A sorting by the texts themselves would put answers that begin alike on one side, and agreement beyond chance, which
    counts how often each side is taken, would see a habit in it.

    Attributes:
        id: 16 hexadecimal digits, a hash of the content; equal content, equal id, whichever answer stood first.
        context: the turns before the answers.
        first: the answer whose hash is smaller.
        second: the other one.
        known: for a gold question the better answer, None for a pair whose label is wanted.
    """

    id: str
    context: Context
    first: str
    second: str
    known: Side | None = None


@dataclass(frozen=True)
class Label:
    """One annotator's judgement of one pair.

    Attributes:
        pair: the pair's id.
        annotator: who.
        choice: which answer is better, in the pair's own order; never in the order of the screen.
        left: which answer stood on the left; None where the label comes from another tool.
        seconds: from the moment the pair was shown to the key; None where nobody measured it.
        at: when it was stored, UTC, ISO 8601.
    """

    pair: str
    annotator: str
    choice: Choice
    left: Side | None = None
    seconds: float | None = None
    at: str = ""


@dataclass(frozen=True)
class Vote:
    """A judgement of two models' answers, given blind in the arena; a label like any other, which knows who answered.

    Attributes:
        label: what was chosen.
        first, second: the names of the models behind the pair's first and second answer.
    """

    label: Label
    first: str
    second: str


def pair_of(preference: Preference, gold: bool = False) -> BlindPair:
    """The pair that a preference is about, its label left out unless the pair is a gold question."""
    turns = [[turn.role, turn.content] for turn in preference.context]
    first, second = sorted((preference.chosen, preference.rejected), key=lambda answer: digest([turns, answer]))
    known: Side | None = None
    if gold:
        known = "first" if preference.likelier_first.chosen == first else "second"
    return BlindPair(digest([turns, first, second])[:16], preference.context, first, second, known)


def digest(content: list[object]) -> str:
    """SHA-256 of JSON values, in hexadecimal."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()

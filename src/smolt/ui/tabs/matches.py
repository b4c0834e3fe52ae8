"""The arena's rounds: who answers, on which side, and what a vote is stored as."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from smolt.data import Preference, Turn
from smolt.errors import UserError
from smolt.preferences.people import BlindPair, Label, Vote, pair_of
from smolt.preferences.people.session import Pick, choice_of


@dataclass(frozen=True)
class Match:
    """One question to two models.

    Attributes:
        system, question: what both are asked.
        left, right: the models' names; no page is told before the vote.
        seed: of both answers.
    """

    system: str
    question: str
    left: str
    right: str
    seed: int

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The dialogue without its system message."""
        return (Turn("user", self.question),)

    @property
    def context(self) -> tuple[Turn, ...]:
        """All of it, as it is stored."""
        return (*([Turn("system", self.system)] if self.system else []), *self.turns)


def drawn(question: str, system: str, arms: Sequence[str], chance: random.Random) -> Match:
    """A match of two of the arms, which stand on sides that say nothing.

    Raises:
        UserError: there are not two different arms, or nothing was asked.
    """
    if not question.strip():
        raise UserError("ask something first")
    if len(set(arms)) < 2:
        raise UserError("the arena needs two models; choose them on the left, or name more when starting smolt ui")
    left, right = chance.sample(sorted(set(arms)), 2)
    return Match(system.strip(), question, left, right, chance.getrandbits(31))


def vote_of(
    match: Match, answers: tuple[str, str], pick: Pick, annotator: str, seconds: float
) -> tuple[BlindPair, Vote]:
    """What is stored of a vote.

    Args:
        match: what was asked.
        answers: the left and the right one.
        pick: what was chosen on the screen.
        annotator: who chose.
        seconds: how long the answers were on the screen.

    Raises:
        UserError: the answers are the same, so that there is nothing to choose.
    """
    left, right = answers
    if left == right:
        raise UserError("both answered the same, word for word; there is nothing to choose")
    pair = pair_of(Preference(match.context, left, right))
    straight = pair.first == left
    label = Label(
        pair.id,
        annotator,
        choice_of(pick, "first" if straight else "second"),
        "first" if straight else "second",
        seconds,
    )
    return pair, Vote(label, *((match.left, match.right) if straight else (match.right, match.left)))

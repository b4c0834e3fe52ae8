"""What a judge is shown, and whether it said anything."""

from dataclasses import dataclass
from typing import Literal

from smolt.data import Question

Status = Literal["given", "abstained", "failed", "unreached"]
"""abstained: cannot judge this one (too long, no solution). failed: an answer that says nothing. unreached: no reply
came, so it is asked again by the next start. None of them is a tie, a middle score or a win."""


@dataclass(frozen=True)
class Showing:
    """Two answers in the order in which a judge sees them."""

    question: Question
    first: str
    second: str

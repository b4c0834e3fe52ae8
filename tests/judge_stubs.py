"""Judges whose verdicts are known beforehand, and pairs for them."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence

from smolt.data import Question, Turn
from smolt.preferences.judges.both_orders import Judge, Opinion, Pair, from_choice, from_odds, silent
from smolt.rewards.llm_judge.nouns import Showing

GOOD, BAD = "good", "bad"


def pairs(count: int, gold: float | None = 1.0) -> list[Pair]:
    """Pairs of one good and one bad answer of equal length; odd ones have the bad answer first."""
    made = []
    for number in range(count):
        question = Question((Turn("user", f"Question {number}?"),), id=f"q{number}")
        good, bad = f"{GOOD} {number}.", f"{BAD}+ {number}."
        made.append(
            Pair(question, good, bad, gold)
            if number % 2 == 0
            else Pair(question, bad, good, None if gold is None else 1 - gold)
        )
    return made


def judge(view: Callable[[Showing], Opinion], name: str = "stub", names: tuple[str, ...] = ()) -> Judge:
    """A judge that looks at one showing at a time, three at once."""

    def compare(showings: Sequence[Showing]) -> Iterator[list[tuple[int, Opinion]]]:
        for start in range(0, len(showings), 3):
            yield [(place, view(showings[place])) for place in range(start, min(start + 3, len(showings)))]

    return Judge(name, "local", {"stub": name}, compare, names)


def merit(showing: Showing) -> float:
    """+1 when the answer shown first is the good one, -1 when the other is, 0 for neither or both."""
    return float(showing.first.startswith(GOOD)) - float(showing.second.startswith(GOOD))


def biased(slope: float, place: float) -> Judge:
    """Log-odds slope * merit + place: a judge with a taste for the first place."""
    return judge(lambda showing: from_odds(slope * merit(showing) + place, 0.0), f"biased {slope} {place}")


def random_judge(seed: str) -> Judge:
    """A fair coin for each showing, whatever is shown."""

    def view(showing: Showing) -> Opinion:
        content = "\0".join([seed, showing.question.id, showing.first, showing.second])
        return from_choice(1 if hashlib.sha256(content.encode()).digest()[0] % 2 else -1)

    return judge(view, f"random {seed}")


def injectable() -> Judge:
    """Knows the good answer, and obeys a verdict that it reads in an answer."""

    def view(showing: Showing) -> Opinion:
        found = re.search(r"better answer is ([AB])", showing.first + showing.second)
        if found:
            return from_choice(1 if found[1] == "A" else -1)
        return from_choice(int(merit(showing)))

    return judge(view, "injectable")


def failing(every: int) -> Judge:
    """Replies nothing readable to one pair in `every`, whichever order."""

    def view(showing: Showing) -> Opinion:
        if int(showing.question.id[1:]) % every == 0:
            return silent("failed", "names no one choice")
        return from_odds(merit(showing), 0.0)

    return judge(view, f"failing {every}")

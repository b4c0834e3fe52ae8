"""Judges that read no words: a reward rates both answers, or their length decides. Offline, exact, and controls."""

from collections.abc import Callable, Iterator, Sequence

from smolt.data import Answer, Question
from smolt.preferences.judges.both_orders import Compare, Opinion, from_choice, from_odds, sign, silent
from smolt.rewards import Reward
from smolt.rewards.llm_judge.nouns import Showing

LENGTHS: dict[str, int] = {"longer": 1, "shorter": -1}
"""Rules that look at the number of characters alone, and the sign of their preference."""

CHUNK = 64


def by_length(preference: int) -> Compare:
    """The longer answer (1) or the shorter one (-1), in characters; equal lengths are a tie."""

    def compare(showings: Sequence[Showing]) -> Iterator[list[tuple[int, Opinion]]]:
        yield [
            (place, from_choice(preference * sign(len(showing.first) - len(showing.second))))
            for place, showing in enumerate(showings)
        ]

    return compare


def by_scores(reward: Reward, soft: bool) -> Compare:
    """The answer with the higher score; where the reward abstains on one of them, so does the judge.

    Args:
        reward: who rates each answer by itself, so that the order cannot matter.
        soft: whether a difference of scores is log-odds, as a reward model's is (Bradley-Terry).
    """

    def compare(showings: Sequence[Showing]) -> Iterator[list[tuple[int, Opinion]]]:
        for start in range(0, len(showings), CHUNK):
            chunk = showings[start : start + CHUNK]
            firsts = _scores(reward, chunk, lambda showing: showing.first)
            seconds = _scores(reward, chunk, lambda showing: showing.second)
            opinions = [_opinion(*scores, soft) for scores in zip(firsts, seconds, strict=True)]
            yield [(start + number, opinion) for number, opinion in enumerate(opinions)]

    return compare


def _scores(
    reward: Reward, showings: Sequence[Showing], side: Callable[[Showing], str]
) -> list[tuple[float | None, str]]:
    questions: list[Question] = [showing.question for showing in showings]
    # How many tokens an answer had is not kept with a pair; words are what a reward by length counts unless told.
    answers = [Answer(side(showing), len(side(showing).split()), True) for showing in showings]
    return [(score.value, score.reason) for score in reward(questions, answers)]


def _opinion(first: tuple[float | None, str], second: tuple[float | None, str], soft: bool) -> Opinion:
    if first[0] is None or second[0] is None:
        return silent("abstained", first[1] if first[0] is None else second[1])
    if soft:
        return from_odds(first[0], second[0])
    margin = first[0] - second[0]
    return Opinion(margin, (sign(margin) + 1) / 2, soft=False)

"""What the verifier of a reasoning-gym problem gives an answer."""

import re

from smolt.data import Answer, Question, Score
from smolt.errors import UserError
from smolt.rewards.gym_problems import gym_score
from smolt.rewards.rules import Reward, per_answer

TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
FAULTS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError, AssertionError)
"""What a verifier raises for an answer that it cannot read."""


def gym() -> Reward:
    """The verifier's score, 0 to 1, of what follows the last "####", else stands in <answer>, else of all of it.

    Components: correct, 1 for the full score. Abstains where the question is none of reasoning-gym's; an answer that
    the verifier cannot read is wrong.
    """

    def rate(question: Question, answer: Answer) -> Score:
        if not question.id.startswith("gym:"):
            return Score(None, reason="the question is none of reasoning-gym's (smolt data gym makes them)")
        try:
            value = gym_score(question, final(answer.text))
        except UserError:
            raise
        except FAULTS as error:
            return Score(0.0, {"correct": 0.0}, f"{type(error).__name__} in the verifier")
        return Score(value, {"correct": float(value == 1.0)})

    return per_answer(rate)


def final(text: str) -> str:
    """The part of an answer that is verified."""
    marked, tagged = text.rpartition("####"), TAGGED.findall(text)
    return str(marked[2] if marked[1] else tagged[-1] if tagged else text).strip()

"""The published reward that the linter must flag, its repair that must pass, and the penalty for overlong answers."""

import re

import pytest

from smolt.data import Answer, Question, Turn
from smolt.data.numbers import equal_numbers, extract
from smolt.errors import UserError
from smolt.rewards import Part, constraints, format_hints, gsm8k, lint_reward, mix, overlong, python_reward

QUESTIONS = [Question((Turn("user", f"What is {n} + {n}?"),), solution=f"Add.\n#### {2 * n}") for n in range(1, 11)]

BOXED = re.compile(r"\\boxed\{([^}]*)\}")


def published(question: Question, answer: Answer) -> float:
    """The Qwen/GSM8K system's own reward: 1 for the right number in a box, 1.3 in all for the looks of an answer."""
    box, gold = BOXED.search(answer.text), extract(question.solution or "")
    right = box is not None and equal_numbers(extract(box[1]), gold)
    text = answer.text
    looks = (
        0.2 * bool(re.search(r"Step 1|First", text))
        + 0.2 * bool(re.search(r"Therefore|Thus", text))
        + 0.2 * ("answer is" in text)
        + 0.5 * ("\\boxed" in text)
        + 0.2 * (len(text) > 100)
    )
    return right + looks


def test_the_published_reward_is_flagged() -> None:
    """A wrong answer in the right clothes earns 1.3; a right plain one has no box and earns nothing."""
    findings = {finding.probe: finding for finding in lint_reward(python_reward(published), QUESTIONS)}
    assert findings["decorated"].severity == "error"
    assert findings["decorated"].message.startswith("decorated 1.3 against 0 for right and plain")
    assert findings["stuffed"].severity == "error"


def test_the_repaired_reward_passes() -> None:
    """Correct anywhere 1, looks at most 0.5: right and plain 1, wrong and decorated 0.5, keywords 0.5."""
    repaired = mix([Part("gsm8k", 1.0, gsm8k()), Part("format", 1.0, format_hints(cap=0.5))])
    assert lint_reward(repaired, QUESTIONS) == []


@pytest.mark.parametrize(("tokens", "penalty"), [(1, 0), (32, 0), (34, -0.25), (36, -0.5), (40, -1), (99, -1)])
def test_overlong(tokens: int, penalty: float) -> None:
    """DAPO, eq. 13, for a limit of 40 and a margin of 8: 0 to 32, then -1/8 a token to -1 at 40."""
    assert overlong(40, 8)([QUESTIONS[0]], [Answer("x", tokens, True)])[0].value == penalty


def test_overlong_refuses_a_margin_beyond_the_limit() -> None:
    with pytest.raises(UserError, match=r"margin in 1\.\.limit, not 8 and 9"):
        overlong(8, 9)


def test_the_numbers_of_a_constraint_are_no_right_answer() -> None:
    """Probes that keep no rule earn 0 and that is no fault; a rule that any text keeps is found with a good answer."""
    asked = [Question((Turn("user", "Order 8412?"),), solution='{"contains": ["8412"], "words": [1, 40]}')] * 4
    assert lint_reward(constraints(), asked) == []
    loose = [Question((Turn("user", "Briefly."),), solution='{"words": [1, 40]}')] * 4
    messages = [finding.message for finding in lint_reward(constraints(), loose, ["Yes."] * 4)]
    assert "constant 1 against 1 for right and plain: one and the same answer to everything pays" in messages

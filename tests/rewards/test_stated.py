"""Stated probabilities as a reward: figures by hand, what is read, and that honesty earns the most."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from smolt.config import RewardMix, make_block
from smolt.data import Answer, Decision, DecisionQuestion, Question, Source, Turn, load
from smolt.data.decisions import in_words
from smolt.errors import UserError
from smolt.models.forward.precision import choose_precision
from smolt.rewards import confidence, lint_reward, probabilities
from smolt.rewards.build import mixed_reward
from smolt.rewards.rules import Reward
from smolt.rewards.stated import expectation, stated

LEAST = -math.log(1.01 / 0.01)  # of two options, with a floor of 0.01, when the other was said to be certain
SEVEN = Question((Turn("user", "3 + 4?"),), "#### 7", "q")
TONE = DecisionQuestion("tone", "choice", "Which tone?", {"calm": None, "angry": "It shouts."}, (0.75, 0.25))
LEVEL = DecisionQuestion("level", "score", None, ["low", "middle", "high"], (0.0, 0.5, 0.5))
TRUE = DecisionQuestion("true", "noul", "Is it so?", None, (1.0, 0.0))


def asked(question: DecisionQuestion) -> Question:
    return in_words(Decision("Hm.", (question,), "d"))[0]


def score(reward: Reward, question: Question, text: str) -> Any:
    (found,) = reward([question], [Answer(text, 9, True)])
    return found


@pytest.mark.parametrize(
    ("text", "brier", "log", "said"),
    [
        ("#### 7\nConfidence: 80 %", 1 - 0.04, 1 - math.log(0.8) / LEAST, 0.8),
        ("It is 7.\n\n**Confidence:** 0.5\n", 1 - 0.25, 1 - math.log(0.5) / LEAST, 0.5),
        ("#### 8\nconfidence: 80%", -0.64, -math.log(0.2) / LEAST, 0.8),
        ("#### 8\nConfidence: 0 %", 0.0, math.log(1.01) / LEAST, 0.0),
        ("#### 7\nConfidence: 0", 0.0, 0.0, 0.0),  # right, and denied: the floor
        ("7", 1.0, 1 + math.log(1.01) / LEAST, None),
        ("8", -1.0, -1.0, None),
        ("", -1.0, -1.0, None),
        ("Confidence: 99 %", 0 - 0.99**2, -math.log(0.01) / LEAST, 0.99),
        ("The answer is 7\nConfidence: 120 %", 1.0, 1 + math.log(1.01) / LEAST, None),
        ("The answer is 7\nConfidence: rather high, 7 of 10", 1.0, 1 + math.log(1.01) / LEAST, None),
    ],
)
def test_a_right_answer_with_its_confidence(text: str, brier: float, log: float, said: float | None) -> None:
    """c - (q - c)^2, and c - log r / log of the least r; an answer that tells no confidence claims to be certain."""
    found = score(confidence(), SEVEN, text)
    assert found.value == pytest.approx(brier)
    assert score(confidence("log"), SEVEN, text).value == pytest.approx(log)
    assert found.components["stated"] == float(said is not None)
    assert found.components["confidence"] == (1.0 if said is None else said)


@pytest.mark.parametrize("rule", ["brier", "log"])
@pytest.mark.parametrize("reward", ["confidence", "probabilities"])
def test_honesty_earns_the_most(reward: str, rule: Any) -> None:
    """Of 101 levels the best in expectation is the true one, from the floor to 1 - floor; and it pays to be right."""
    levels, best = [n / 100 for n in range(101)], []
    for truth in levels[2:99:12]:
        if reward == "confidence":
            right, wrong = (
                [score(confidence(rule), SEVEN, f"{n}\nConfidence: {q}").value for q in levels] for n in (7, 8)
            )
        else:
            (right, wrong) = (
                [score(probabilities(rule), Question((), truth_word), f"yes {q}").value for q in levels]
                for truth_word in ("yes", "no")
            )
        earned = [truth * one + (1 - truth) * other for one, other in zip(right, wrong, strict=True)]
        assert levels[max(range(101), key=earned.__getitem__)] == truth
        best.append(max(earned))
    if reward == "confidence":
        assert best == sorted(best)  # with a log score that is not divided by its least it is not


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"calm": 0.8, "angry": 0.2}', (0.8, 0.2)),
        ('```json\n{"Angry": 1}\n```', (0.0, 1.0)),
        ('{"calm": 0.66, "angry": 0.33}', (2 / 3, 1 / 3)),
        ("calm", (1.0, 0.0)),
        (" Angry.\n", (0.0, 1.0)),
        ("angry: 80 %", (0.2, 0.8)),
        ("calm (0.7).", (0.7, 0.3)),
        ('{"calm": 0.8, "angry": 0.8}', None),
        ('{"calm": 0.5, "calm": 0.5}', None),
        ('{"calm": 1.2, "angry": -0.2}', None),
        ('{"calm": true}', None),
        ('{"calm": 0.8, "sad": 0.2}', None),
        ('{"calm": NaN}', None),
        ("I say calm 80 %", None),
        ("calm 80", None),
        ('The tone is {"calm": 0.8, "angry": 0.2}', None),
        ("0.8", None),
        ("", None),
    ],
)
def test_a_whole_answer_states_probabilities_or_none(text: str, read: tuple[float, ...] | None) -> None:
    """Nothing is picked out of a sentence; what is not read is worth -2, the least there is, and not left out."""
    found = stated(text, TONE.options)
    assert found == (None if read is None else pytest.approx(dict(zip(TONE.options, read, strict=True))))
    (given, least) = (score(probabilities(rule), asked(TONE), text) for rule in ("brier", "log"))
    if read is None:
        assert (given.value, least.value, given.components["stated"]) == (-2.0, pytest.approx(LEAST), 0.0)
    else:
        assert given.value == pytest.approx(-((read[0] - 0.75) ** 2) - (read[1] - 0.25) ** 2)
        assert given.components["correct"] == float(read[0] > read[1])


def test_levels_and_truths() -> None:
    """1.5 lies between two levels as in `expected`; yes and no are true and false."""
    assert stated("1.5", LEVEL.options) == {"0": 0.0, "1": 0.5, "2": 0.5}
    assert stated("2", LEVEL.options) == {"0": 0.0, "1": 0.0, "2": 1.0}
    assert stated("2.5", LEVEL.options) is None
    assert stated("1 60 %", LEVEL.options) == {"0": pytest.approx(0.2), "1": 0.6, "2": pytest.approx(0.2)}
    assert score(probabilities(), asked(LEVEL), "1.5").value == 0.0
    assert stated("Yes, 90 %", TRUE.options) == {"true": 0.9, "false": pytest.approx(0.1)}
    assert score(probabilities(), asked(TRUE), "no").value == -2.0
    log = score(probabilities("log", 0.1), asked(TONE), '{"calm": 0.9, "angry": 0.1}').value
    assert log == pytest.approx(0.75 * math.log(0.9) + 0.25 * math.log(0.1))


def test_a_decision_asked_in_words(tmp_path: Path) -> None:
    """State, question, options, how to reply; the solution is what is expected, from which the score is taken.

    A file of decisions is read so, as questions and as demonstrations of the best answer there is.
    """
    questions = in_words(Decision({"message": "Hm."}, (TONE, LEVEL), "d7", "mail"))
    assert [(one.id, one.kind) for one in questions] == [("d7/tone", "mail"), ("d7/level", "mail")]
    assert questions[0].context[0].content == (
        '{"message": "Hm."}\n\nWhich tone?\n- calm\n- angry: It shouts.\n\n'
        "Reply with one JSON object and nothing else, the probability of each; they sum to 1: "
        '{"calm": ..., "angry": ...}'
    )
    assert questions[1].context[0].content.split("\n\n")[1] == "level\n- 0: low\n- 1: middle\n- 2: high"
    assert [expectation(one.solution) for one in questions] == [
        {"calm": 0.75, "angry": 0.25},
        {"0": 0.0, "1": 0.5, "2": 0.5},
    ]
    (unknown,) = in_words(Decision("x", (DecisionQuestion("q", "noul"),), "d8"))
    assert (unknown.id, unknown.solution) == ("d8", None)
    (tmp_path / "d.jsonl").write_text(json.dumps(Decision("Hm.", (TONE, LEVEL)).row) + "\n")
    source = Source(str(tmp_path / "d.jsonl"))
    loaded = load(source, "questions").records
    assert [one.id for one in loaded] == ["d:1/tone", "d:1/level"]
    shown = load(source, "demonstrations").records
    assert [one.context for one in shown] == [one.context for one in loaded]
    assert shown[0].answer == '{"calm": 0.75, "angry": 0.25}'
    assert [score(probabilities(), ask, one.answer).value for ask, one in zip(loaded, shown, strict=True)] == [0, 0]


@pytest.mark.parametrize(
    ("reward", "solution"),
    [
        ("confidence", None),
        ("confidence", "no idea"),
        ("probabilities", None),
        ("probabilities", '[["a", 0.5], ["b", 2]]'),
    ],
)
def test_without_something_to_compare_with_it_abstains(reward: str, solution: str | None) -> None:
    part = make_block(RewardMix, parts=[reward])
    found = score(mixed_reward(part, choose_precision("cpu", "fp32")), Question((), solution), "yes 80 %")
    assert found.value is None and found.reason


@pytest.mark.parametrize("rule", ["brier", "log"])
def test_the_linter_finds_nothing(rule: Any) -> None:
    """Garbage, decoration, repetition and nothing at all are worth less than a right answer."""
    assert lint_reward(confidence(rule), [SEVEN]) == []
    assert lint_reward(probabilities(rule), [asked(TONE), asked(LEVEL), asked(TRUE)]) == []


@pytest.mark.parametrize("reward", [confidence, probabilities])
def test_options_that_score_nothing_are_refused(reward: Any) -> None:
    for options, message in (
        ({"rule": "brief"}, 'rule: must be "brier" or "log"'),
        ({"floor": 0}, "floor: must be above 0"),
    ):
        with pytest.raises(UserError, match=message):
            reward(**options)

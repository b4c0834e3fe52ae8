"""Rewards: hand-derived scores, faults that abstain, mixes that keep their parts, a linter that finds traps."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolt.config import RewardPart
from smolt.data import Answer, Question, Score, Turn
from smolt.errors import UserError
from smolt.rewards import (
    Part,
    Reward,
    exact_words,
    format_hints,
    gsm8k,
    length,
    lint_reward,
    mix,
    python_reward,
    sentiment,
)
from smolt.rewards.build import build_reward

QUESTIONS = [Question((Turn("user", f"What is {n} + {n}?"),), solution=f"Add.\n#### {2 * n}") for n in range(1, 11)]


def answer(text: str, tokens: int = 1) -> Answer:
    return Answer(text, tokens, stopped=True)


def one(reward: Reward, text: str, question: Question = QUESTIONS[0], tokens: int = 1) -> Score:
    (score,) = reward([question], [answer(text, tokens)])
    return score


def test_gsm8k() -> None:
    """The gold of question 1 is 2: "2" and "$2.00" are right, "3" wrong, "two" wrong and not extracted."""
    scores = gsm8k()(QUESTIONS[:1] * 4, [answer(text) for text in ("2", "so $2.00.", "3", "two")])
    assert [score.value for score in scores] == [1.0, 1.0, 0.0, 0.0]
    assert [score.components["extracted"] for score in scores] == [1.0, 1.0, 1.0, 0.0]
    assert scores[3].reason == "no number in the answer"
    assert one(gsm8k("string"), "$2.00").value == 0.0


def test_gsm8k_abstains_without_a_solution() -> None:
    context = (Turn("user", "Hi"),)
    assert one(gsm8k(), "2", Question(context)).value is None
    assert one(gsm8k(), "2", Question(context, solution="yes")).reason == "the solution has no number: " + (
        "no number in the answer"
    )


def test_gsm8k_refuses_an_unknown_equality() -> None:
    with pytest.raises(UserError, match='must be "exact" or "string"'):
        build_reward([RewardPart(name="gsm8k", options={"equality": "fuzzy"})])


def test_format_hints() -> None:
    r"""Hints of "Thus the answer is \boxed{2}": 0.2 + 0.2 + 0.5 = 0.9, capped 0.5; "2": 0; 101 characters: 0.2."""
    text = "Thus the answer is \\boxed{2}"
    assert one(format_hints(cap=None), text).value == pytest.approx(0.9)
    assert one(format_hints(), text).value == 0.5
    hits = {"steps": 0.0, "therefore": 1.0, "answer_is": 1.0, "boxed": 1.0, "long": 0.0}
    assert one(format_hints(), text).components == hits
    assert one(format_hints(), "2").value == 0.0
    assert one(format_hints(), "x" * 101).value == 0.2
    assert one(format_hints({"steps": 0.3}), "First, stepwise").value == 0.3


def test_all_hints_sum_to_one_point_three_without_a_cap() -> None:
    """0.2 + 0.2 + 0.2 + 0.5 + 0.2 = 1.3, more than the 1.0 for being right."""
    text = "Step one. Therefore the answer is \\boxed{2}. " + "x" * 100
    assert one(format_hints(cap=None), text).value == pytest.approx(1.3)


@pytest.mark.parametrize(
    ("weights", "cap", "message"),
    [({"bold": 1.0}, 0.5, "unknown hint 'bold'"), ({"long": math.nan}, 0.5, "finite"), (None, 0.0, "above 0")],
)
def test_format_hints_refuse(weights: dict[str, float] | None, cap: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        format_hints(weights, cap)


def test_length() -> None:
    """Target 4 words: 4 -> 1, 3 -> 0.75, 6 -> 0.5, 0 -> 0, 8 and more -> 0; other units count other things."""
    values = [one(length(4), " ".join("w" * n)).value for n in (4, 3, 6, 0, 8, 20)]
    assert values == [1.0, 0.75, 0.5, 0.0, 0.0, 0.0]
    assert one(length(4, "characters"), "abc").value == 0.75
    assert one(length(4, "tokens"), "abc", tokens=2).components == {"tokens": 2.0}


def test_exact_words() -> None:
    values = [one(exact_words(3), text).value for text in ("a b c", " a\nb  c ", "a b", "")]
    assert values == [1.0, 1.0, 0.0, 0.0]


def test_sentiment() -> None:
    """VADER: "good" has valence 1.9, so compound = 1.9 / sqrt(1.9^2 + 15) = 0.4404 (rounded to 4 digits); empty: 0."""
    assert one(sentiment(), "good").value == pytest.approx(1.9 / math.sqrt(1.9**2 + 15), abs=5e-5)
    assert one(sentiment(), "").value == 0.0
    assert (one(sentiment(), "terrible, awful").value or 0.0) < -0.5


def test_sentiment_does_not_hang_on_typography() -> None:
    """A typographic apostrophe negates as a straight one does; words beside a slash or a dash are read."""
    assert one(sentiment(), "I don\u2019t like it.") == one(sentiment(), "I don't like it.")
    assert (one(sentiment(), "I don\u2019t like it.").value or 0.0) < 0
    for joined in ("kind/good", "kind\u2014good", "kind\u2013good"):
        assert one(sentiment(), joined) == one(sentiment(), "kind good")


def test_python_function_forms() -> None:
    """A number, a dict with and without "value", a Score, and the batch form."""
    forms: list[tuple[Callable[..., Any], float, dict[str, float | None]]] = [
        (lambda question, answer: len(answer.text), 3.0, {}),
        (lambda question, answer: {"a": 1, "b": 0.5}, 1.5, {"a": 1.0, "b": 0.5}),
        (lambda question, answer: {"a": 1, "value": 7}, 7.0, {"a": 1.0}),
        (lambda question, answer: Score(2.0, {"c": 1.0}), 2.0, {"c": 1.0}),
        (lambda questions, answers: [4 for _ in answers], 4.0, {}),
    ]
    for function, value, components in forms:
        assert one(python_reward(function), "abc") == Score(value, components)


def failing(result: Any) -> Callable[..., Any]:
    """A reward that is 1 except for the answer "bad"."""

    def reward(question: Question, answer: Answer) -> Any:
        if answer.text == "bad":
            return result() if callable(result) else result
        return 1.0

    return reward


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "returned None"),
        (math.nan, "returned nan"),
        (math.inf, "returned inf"),
        ("1.0", "TypeError: returned str '1.0', not a number"),
        ({"a": None}, "TypeError: returned NoneType 'None', not a number"),
        (lambda: 1 / 0, "in <lambda>: ZeroDivisionError: division by zero"),
        (lambda: exit(3), "SystemExit: 3"),
    ],
)
def test_a_fault_abstains_with_its_reason(result: Any, reason: str) -> None:
    """2 faults of 10 are 20 %, not more: they abstain, and the other 8 keep their 1."""
    texts = ["good"] * 4 + ["bad"] + ["good"] * 4 + ["bad"]
    scores = python_reward(failing(result))(QUESTIONS, [answer(text) for text in texts])
    assert [score.value for score in scores] == [None if text == "bad" else 1.0 for text in texts]
    assert reason in scores[4].reason


def test_too_many_faults_stop() -> None:
    """3 of 10 are more than 20 %: an error that names the line of the first fault."""
    texts = ["good"] * 7 + ["bad"] * 3
    with pytest.raises(UserError, match=r"reward reward: 3 of 10 .*test_rewards.py:\d+ in <lambda>: ZeroDivision"):
        python_reward(failing(lambda: 1 / 0))(QUESTIONS, [answer(text) for text in texts])


def test_a_batch_of_the_wrong_size_is_no_score() -> None:
    with pytest.raises(UserError, match="the first: returned 1 scores for 10 answers"):
        python_reward(lambda questions, answers: [1.0])(QUESTIONS, [answer("x")] * 10)


def test_python_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def shout(question, answer, factor=1.0):\n    return factor * answer.text.count('!')\n")
    reward = build_reward([RewardPart(name="python", path=f"{file}:shout", options={"factor": 2.0})])
    assert one(reward, "a!!").value == 4.0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("shout", "def whisper(question, answer): ...", "there is no function 'shout'; it has whisper"),
        ("shout", "1 / 0", r"cannot be loaded: mine.py:1 in <module>: ZeroDivisionError"),
        ("shout", "def shout(): ...", r"must accept \(question, answer"),
        ("a b", "", 'is not of the form "file.py:function"'),
    ],
)
def test_python_file_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        python_reward(f"{file}:{name}")


def test_python_file_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        python_reward(f"{tmp_path}/none.py:reward")


def test_mix_keeps_every_part() -> None:
    """1.0 for "2" + 0.5 x 0.2 for "therefore" = 1.1; every part and component is in the record."""
    reward = mix([Part("gsm8k", 1.0, gsm8k()), Part("format", 0.5, format_hints({"therefore": 0.2}))])
    score = one(reward, "therefore 2")
    assert score.value == pytest.approx(1.1)
    assert score.components == {
        "gsm8k": 1.0,
        "gsm8k.correct": 1.0,
        "gsm8k.extracted": 1.0,
        "format": 0.2,
        "format.therefore": 1.0,
    }


def test_mix_abstains_with_a_part() -> None:
    """An abstaining part is no zero: the sum abstains, its other parts stay visible."""
    reward = mix([Part("gsm8k", 1.0, gsm8k()), Part("length", 1.0, length(1))])
    score = one(reward, "2", Question((Turn("user", "Hi"),)))
    assert score.value is None
    assert score.reason == "gsm8k: the question has no solution to compare with"
    assert score.components == {"gsm8k": None, "length": 1.0, "length.words": 1.0}


def test_mix_clips() -> None:
    assert one(mix([Part("length", -3.0, length(1))], cap=0.7), "a").value == -0.7


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=4))
def test_mix_is_linear(weights: list[float]) -> None:
    """Parts worth 1 each: the sum is the sum of the weights."""
    reward = mix([Part(str(index), weight, exact_words(1)) for index, weight in enumerate(weights)])
    assert one(reward, "a").value == pytest.approx(sum(weights))


def test_mix_refuses() -> None:
    with pytest.raises(UserError, match="at least one part"):
        mix([])
    with pytest.raises(UserError, match="same name: a, a"):
        mix([Part("a", 1.0, gsm8k()), Part("a", 1.0, gsm8k())])
    with pytest.raises(UserError, match="weight: must be a finite number"):
        mix([Part("a", math.inf, gsm8k())])


def test_build_names_parts_of_one_kind_apart() -> None:
    parts = [RewardPart(name="length", options={"target": 1}), RewardPart(name="length", options={"target": 2})]
    assert one(build_reward(parts), "a").components == {
        "length": 1.0,
        "length.words": 1.0,
        "length_2": 0.5,
        "length_2.words": 1.0,
    }


def test_build_delegates_models() -> None:
    part = RewardPart(name="model", path="rm", weight=2.0)
    asked: list[RewardPart] = []

    def model_reward(given: RewardPart) -> Reward:
        asked.append(given)
        return exact_words(1)

    assert one(build_reward([part], model_reward=model_reward), "a").value == 2.0
    assert asked == [part]
    with pytest.raises(UserError, match="no model can be loaded here"):
        build_reward([part])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"name": "gsm8"}, "'gsm8' is unknown; did you mean \"gsm8k\"?"),
        ({"name": "length", "options": {"targt": 1}}, 'options.targt: unknown option; did you mean "target"'),
        ({"name": "length"}, "options.target: is missing"),
        ({"name": "length", "options": {"target": "ten"}}, "reward length: options"),
        ({"name": "sentiment", "options": {"x": 1}}, "this reward has none"),
        ({"name": "gsm8k", "path": "somewhere"}, "path: is not used by this reward"),
    ],
)
def test_build_refuses(part: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_reward([RewardPart.model_construct(**part)])
    assert message in str(caught.value)


def test_linter_passes_correctness_with_capped_format() -> None:
    """Right and plain 1.0; wrong and decorated min(0.5, 1.3) = 0.5."""
    parts = [RewardPart(name="gsm8k"), RewardPart(name="format")]
    assert lint_reward(build_reward(parts), QUESTIONS) == []


def test_linter_finds_the_published_trap() -> None:
    """Without the cap a wrong decorated answer earns 1.3 against 1.0, and keywords alone 1.3."""
    parts = [RewardPart(name="gsm8k"), RewardPart(name="format", options={"cap": None})]
    findings = lint_reward(build_reward(parts), QUESTIONS)
    assert [(finding.probe, finding.severity) for finding in findings] == [("decorated", "error"), ("stuffed", "error")]
    assert findings[0].message.startswith("decorated 1.3 against 1 for right and plain")


def test_linter_finds_a_reward_of_nothing() -> None:
    """A constant reward is as good for every probe, and for every one against right and plain."""
    findings = lint_reward(python_reward(lambda question, answer: 0.25), QUESTIONS)
    assert findings[-1].message == "every probe got 0.25: the reward teaches nothing"
    assert {finding.severity for finding in findings} == {"error"}
    assert len(findings) == 6


def test_linter_finds_abstentions_and_length_hacking() -> None:
    """More characters, more reward: repetition beats a good answer. Where nothing can be compared, it says so."""
    chatty = [Question((Turn("user", "Hi"),))] * 3
    findings = lint_reward(python_reward(lambda question, answer: len(answer.text)), chatty, good=["Hello!"] * 3)
    assert "repeated" in {finding.probe for finding in findings}
    silent = lint_reward(gsm8k(), chatty)
    assert {finding.severity for finding in silent} == {"warning"}
    with pytest.raises(UserError, match="needs questions"):
        lint_reward(gsm8k(), [])

"""Records that a program hands over: what is none of the kind is named, before a model is opened or as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import smolt
from smolt.data.handed_over import require_kind
from smolt.evaluation.evaluate import evaluate
from tests.tiny import tiny_model

ASK = (smolt.Turn("user", "hen?"),)
PAIR = smolt.Preference(ASK, "a hen", "no")
SHOWN = smolt.Demonstration(ASK, "a hen")
PREFERENCE: Any = smolt.Preference  # called with what its types forbid
STAGES: dict[str, Callable[..., Any]] = {
    "sft": smolt.sft,
    "reward_model": smolt.reward_model,
    "dpo": smolt.dpo,
    "kto": smolt.kto,
    "decide": smolt.decide,
    "ppo": lambda *given: smolt.ppo(*given, reward=lambda question, answer: 0.5),
    "grpo": lambda *given: smolt.grpo(*given, reward=lambda question, answer: 0.5),
}
WRONG: dict[str, tuple[str, Any]] = {
    "sft": ("demonstrations: number 1 is a Preference; it must be smolt.Demonstration(context, answer)", PAIR),
    "reward_model": ("preferences: number 1 is a text; it must be smolt.Preference(context, chosen, rejected)", "hen?"),
    "dpo": ("preferences: number 1 is a Demonstration; it must be smolt.Preference(context, chosen, rejected)", SHOWN),
    "kto": (
        "feedback: number 1 is a Question; it must be smolt.Feedback(context, answer, desirable) or smolt.Preference(",
        smolt.Question(ASK),
    ),
    "decide": (
        "decisions: number 1 is a Preference; it must be smolt.Decision(state, questions), its questions "
        "smolt.DecisionQuestion(name, type)",
        PAIR,
    ),
    "ppo": ("questions: number 1 is a dict (prompt, answer); it must be smolt.Question(context)", {"prompt": "a"}),
    "grpo": ("questions: number 1 is None; it must be smolt.Question(context)", None),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("handed") / "model"))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "records: the list is empty; there is nothing to learn from"),
        ("pairs.jsonl", "records: a list of them is needed, not a text; a file is named in a recipe"),
        (Path("pairs.jsonl"), "records: a list of them is needed, not a PosixPath; a file is"),
        ({"prompt": "a"}, "records: a list of them is needed, not a dict (prompt); a file is"),
        (3, "records: a list of them is needed, not an int"),
    ],
)
def test_what_is_no_list_of_records(stage: str, records: Any, said: str) -> None:
    """Of every stage, before its model, which is not there, is opened."""
    with pytest.raises(smolt.UserError) as found:
        STAGES[stage]("nowhere", records)
    assert str(found.value).startswith(said)


@pytest.mark.parametrize("stage", STAGES)
def test_a_record_of_another_kind(stage: str, model: str) -> None:
    said, record = WRONG[stage]
    record = {"prompt": "a", "answer": "b"} if isinstance(record, dict) else record
    with pytest.raises(smolt.UserError) as found:
        STAGES[stage](model, [record])
    assert str(found.value).startswith(said)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (PREFERENCE("hen?", "a", "b"), "a Preference whose context is a text"),
        (PREFERENCE(({"role": "user"},), "a", "b"), "a Preference whose context holds a dict (role)"),
        (PREFERENCE(ASK, None, "b"), "a Preference whose chosen is None"),
        (PREFERENCE(ASK, "a", 3), "a Preference whose rejected is an int"),
    ],
)
def test_a_record_that_holds_something_else(record: Any, said: str) -> None:
    with pytest.raises(smolt.UserError) as found:
        require_kind([PAIR, record], "preferences")
    wanted = "it must be smolt.Preference(context, chosen, rejected), its context turns (smolt.Turn)"
    assert str(found.value) == f"preferences: number 2 is {said}; {wanted}"


CALM = {"calm": None, "angry": None}
ASKED: Any = smolt.DecisionQuestion  # called with what its types forbid


@pytest.mark.parametrize(
    ("questions", "said"),
    [
        ("refund", "questions are a text"),
        (({"type": "noul"},), "questions hold a dict (type)"),
        ((), "questions is empty; a decision needs one"),
        ((ASKED("q", "noul"), ASKED("q", "noul")), "two questions q"),
        ((ASKED("q", "chioce", None, CALM),), "questions.q.type is 'chioce'; did you mean choice?"),
        ((ASKED("q", "choice"),), "questions.q.criteria must map the options of the choice"),
        ((ASKED("q", "choice", None, CALM, (1.0,)),), "expected of q is not a probability for each of its 2 options"),
        ((ASKED("q", "noul", None, None, (0.8, 0.8)),), "expected of q is not a probability for each of its 2 options"),
        ((ASKED("q", "noul", None, None, True),), "expected of q is not a probability for each of its 2 options"),
    ],
)
def test_a_decision_that_no_file_may_hold(questions: Any, said: str) -> None:
    good = smolt.Decision("Hm.", (ASKED("q", "choice", None, CALM, (0.75, 0.25)), ASKED("r", "noul")))
    require_kind([good], "decisions")
    with pytest.raises(smolt.UserError, match=r"^decisions: number 2 is a Decision w") as found:
        require_kind([good, smolt.Decision("Hm.", questions)], "decisions")
    assert said in str(found.value)


def test_an_evaluation_looks_too(model: str) -> None:
    with pytest.raises(smolt.UserError, match=r"^preferences: number 1 is a Demonstration"):
        evaluate(model, [SHOWN], task="preferences")

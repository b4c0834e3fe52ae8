"""Each format on rows small enough to read: what a row becomes, and what is wrong with a bad one."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolt.data import FORMATS, Demonstration, Feedback, Kind, Preference, Question, Source, Turn, load
from smolt.errors import UserError


def asked(text: str, system: str = "") -> tuple[Turn, ...]:
    """A context of one question, after an optional system turn."""
    return (*((Turn("system", system),) if system else ()), Turn("user", text))


def written(directory: Path, *rows: Any) -> Source:
    """A JSONL file of the rows."""
    path = directory / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Source(str(path))


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


HH = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Tea?\n\nAssistant:"
HH_CONTEXT = (Turn("user", "Hi."), Turn("assistant", "Hello."), Turn("user", "Tea?"))
SHAREGPT = [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi."}]
CHAT = [said("user", "Hi."), said("assistant", "Hello."), said("user", "Tea?"), said("assistant", "Yes.")]

PREFERENCES: list[tuple[str, dict[str, Any], Preference]] = [
    ("preference", {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."}, Preference(asked("Tea?"), "Yes.", "No.")),
    (
        "preference",
        {"system": "Be kind.", "prompt": "Tea?", "chosen": "Yes.", "rejected": "No.", "weight": 0.75},
        Preference(asked("Tea?", "Be kind."), "Yes.", "No.", 0.75),
    ),
    (
        "preference",
        {
            "prompt": [said("system", ""), said("user", "Tea?")],
            "chosen": [said("assistant", "Yes.")],
            "rejected": [said("assistant", "No.")],
        },
        Preference(asked("Tea?"), "Yes.", "No."),
    ),
    (
        "preference",  # the prompt is in both places, as in ultrafeedback_binarized
        {"prompt": "Hi.", "chosen": CHAT[:2], "rejected": [CHAT[0], said("assistant", "What?")]},
        Preference(asked("Hi."), "Hello.", "What?"),
    ),
    (
        "preference_messages",
        {"chosen": CHAT, "rejected": [*CHAT[:3], said("assistant", "No.")]},
        Preference(HH_CONTEXT, "Yes.", "No."),
    ),
    ("hh", {"chosen": f"{HH} Yes.", "rejected": f"{HH} No."}, Preference(HH_CONTEXT, "Yes.", "No.")),
    (
        "hh",  # the answers begin alike: the cut is at the turn, not at the first difference
        {"chosen": f"{HH} Yes, please.", "rejected": f"{HH} Yes, no."},
        Preference(HH_CONTEXT, "Yes, please.", "Yes, no."),
    ),
    ("hh_prompt", {"prompt": HH, "chosen": " Yes.", "rejected": "No."}, Preference(HH_CONTEXT, "Yes.", "No.")),
    (
        "hh_prompt",  # two turns of one speaker are one
        {"prompt": "\n\nHuman: A\n\nHuman: B\n\nAssistant:", "chosen": "c", "rejected": "d"},
        Preference(asked("A\n\nB"), "c", "d"),
    ),
    (
        "sharegpt_preference",
        {
            "conversations": SHAREGPT,
            "chosen": {"from": "gpt", "value": "Hello."},
            "rejected": {"from": "gpt", "value": "What?"},
        },
        Preference(asked("Hi.", "Be kind."), "Hello.", "What?"),
    ),
    (
        "orca",
        {"system": "", "question": "Tea?", "chosen": "Yes.", "rejected": "No."},
        Preference(asked("Tea?"), "Yes.", "No."),
    ),
    (
        "oasst",
        {
            "context": [["prompter", "Hi."], ["assistant", "Hello."], ["prompter", "Tea?"]],
            "chosen": "a",
            "rejected": "b",
        },
        Preference(HH_CONTEXT, "a", "b"),
    ),
]


@pytest.mark.parametrize(("name", "row", "expected"), PREFERENCES)
def test_preferences(tmp_path: Path, name: str, row: dict[str, Any], expected: Preference) -> None:
    """The row is detected by its name and becomes the one preference; its chosen answer is the one demonstration."""
    source = written(tmp_path, row)
    loaded = load(source, "preferences")
    assert (loaded.format, loaded.records) == (name, [expected])
    assert load(source, "demonstrations").records == [Demonstration(expected.context, expected.chosen)]
    assert load(source, "questions").records == [Question(expected.context, None, "rows:1")]


DEMONSTRATIONS: list[tuple[str, dict[str, Any], list[Demonstration], list[Question]]] = [
    (
        "prompt_completion",
        {"prompt": "Tea?", "completion": "3 cups\n#### 3"},
        [Demonstration(asked("Tea?"), "3 cups\n#### 3")],
        [Question(asked("Tea?"), "3", "rows:1")],
    ),
    (
        "prompt_completion",
        {"prompt": CHAT[:1], "completion": [CHAT[1]]},
        [Demonstration(asked("Hi."), "Hello.")],
        [Question(asked("Hi."), None, "rows:1")],
    ),
    (
        "messages",  # every assistant turn is a demonstration; the dialogue is asked once
        {"messages": CHAT, "id": 7},
        [Demonstration(asked("Hi."), "Hello."), Demonstration(HH_CONTEXT, "Yes.")],
        [Question(HH_CONTEXT, None, "7")],
    ),
    (
        "messages",  # it ends with a question
        {"messages": CHAT[:3]},
        [Demonstration(asked("Hi."), "Hello.")],
        [Question(HH_CONTEXT, None, "rows:1")],
    ),
    (
        "sharegpt",
        {"conversations": [*SHAREGPT, {"from": "gpt", "value": "Hello."}]},
        [Demonstration(asked("Hi.", "Be kind."), "Hello.")],
        [Question(asked("Hi.", "Be kind."), None, "rows:1")],
    ),
    (
        "alpaca",
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        [Demonstration(asked("Add.\n\n1 and 2"), "3")],
        [Question(asked("Add.\n\n1 and 2"), None, "rows:1")],
    ),
    (
        "self_instruct",
        {"id": "s", "instruction": "Add.", "instances": [{"input": "", "output": "3"}, {"input": "4", "output": "5"}]},
        [Demonstration(asked("Add."), "3"), Demonstration(asked("Add.\n\n4"), "5")],
        [Question(asked("Add."), None, "s/1"), Question(asked("Add.\n\n4"), None, "s/2")],
    ),
    (
        "gsm8k",
        {"question": "How many?", "answer": "She has 3*4=<<3*4=12>>12.\n#### 1,012"},
        [Demonstration(asked("How many?"), "She has 3*4=12.\n#### 1,012")],
        [Question(asked("How many?"), "1,012", "rows:1")],
    ),
    (
        "gsm8k",  # no mark: the answer is the solution; a number is as good as text
        {"question": "How many?", "answer": 12.0, "id": "q1", "kind": "buying"},
        [Demonstration(asked("How many?"), "12")],
        [Question(asked("How many?"), "12", "q1", "buying")],
    ),
    (
        "svamp",
        {"ID": "c1", "Body": "If he has 3", "Question": "How many?", "Answer": 51.0, "Type": "Sum"},
        [Demonstration(asked("If he has 3, How many?"), "51")],
        [Question(asked("If he has 3, How many?"), "51", "c1", "Sum")],
    ),
]


@pytest.mark.parametrize(("name", "row", "demonstrations", "questions"), DEMONSTRATIONS)
def test_demonstrations(
    tmp_path: Path, name: str, row: dict[str, Any], demonstrations: list[Demonstration], questions: list[Question]
) -> None:
    """The row is detected by its name, and becomes these demonstrations and these questions."""
    source = written(tmp_path, row)
    loaded = load(source, "demonstrations")
    assert (loaded.format, loaded.records) == (name, demonstrations)
    assert load(source, "questions").records == questions


QUESTIONS: list[tuple[str, dict[str, Any], Question]] = [
    (
        "mt_bench",
        {"question_id": 81, "category": "writing", "turns": ["A", "B"]},
        Question(asked("A"), None, "81", "writing"),
    ),
    ("xstest", {"id": "1", "prompt": "A", "type": "t", "label": "safe"}, Question(asked("A"), "safe", "1", "t")),
    ("prompt", {"prompt": CHAT[:3], "solution": 4}, Question(HH_CONTEXT, "4", "rows:1")),
    ("gsm8k", {"question": "A"}, Question(asked("A"), None, "rows:1")),
]


@pytest.mark.parametrize(("name", "row", "expected"), QUESTIONS)
def test_questions(tmp_path: Path, name: str, row: dict[str, Any], expected: Question) -> None:
    """A row that only asks becomes one question, and cannot be a demonstration."""
    source = written(tmp_path, row)
    loaded = load(source, "questions")
    assert (loaded.format, loaded.records) == (name, [expected])
    with pytest.raises(UserError, match=r"gives questions, text but no demonstrations|question and no answer to it"):
        load(source, "demonstrations")


FEEDBACK: list[tuple[str, dict[str, Any], Feedback]] = [
    ("unpaired", {"prompt": "Tea?", "completion": "Yes.", "label": True}, Feedback(asked("Tea?"), "Yes.", True)),
    ("unpaired", {"prompt": "Tea?", "completion": "No.", "label": "False"}, Feedback(asked("Tea?"), "No.", False)),
    (
        "unpaired",  # as in kto-mix-14k
        {"prompt": CHAT[:3], "completion": [CHAT[3]], "label": False},
        Feedback(HH_CONTEXT, "Yes.", False),
    ),
    ("unpaired_messages", {"messages": CHAT, "label": 1}, Feedback(HH_CONTEXT, "Yes.", True)),
]


def test_a_dialogue_of_human_and_assistant_is_turns_wherever_it_is_asked(tmp_path: Path) -> None:
    """A question, a demonstration and a judged answer have the turns of the preference with the same prompt."""
    question = load(written(tmp_path, {"prompt": HH}), "questions").records[0]
    assert question.context == HH_CONTEXT
    shown = load(written(tmp_path, {"prompt": HH, "completion": " Yes."}), "demonstrations").records
    assert shown == [Demonstration(HH_CONTEXT, "Yes.")]
    judged = load(written(tmp_path, {"prompt": HH, "completion": " Yes.", "label": True}), "feedback").records
    assert judged == [Feedback(HH_CONTEXT, "Yes.", True)]
    with pytest.raises(UserError, match="prompt: is a dialogue that does not end with"):
        load(written(tmp_path, {"prompt": "\n\nHuman: Hi."}), "questions")


@pytest.mark.parametrize(("name", "row", "expected"), FEEDBACK)
def test_feedback(tmp_path: Path, name: str, row: dict[str, Any], expected: Feedback) -> None:
    """A judged answer is feedback and a question, and never a demonstration: it may be a bad one."""
    source = written(tmp_path, row)
    loaded = load(source, "feedback")
    assert (loaded.format, loaded.records, loaded.remarks) == (name, [expected], [])
    assert [question.context for question in load(source, "questions").records] == [expected.context]
    with pytest.raises(UserError, match=r"label: is .*: feedback, for `smolt kto`"):
        load(source, "demonstrations")


def test_a_tag_of_another_name(tmp_path: Path) -> None:
    """LLaMA-Factory's kto_tag is the label where `fields` says so."""
    source = written(tmp_path, {"messages": CHAT, "kto_tag": False})
    loaded = load(Source(source.path, fields={"label": "kto_tag"}), "feedback")
    assert loaded.records == [Feedback(HH_CONTEXT, "Yes.", False)]


def test_pairs_as_feedback(tmp_path: Path) -> None:
    """The chosen answer is desirable, below weight 1/2 the rejected one; 1/2 and equal answers say nothing."""
    rows = [{**GOOD, "weight": weight} for weight in (1, 0.25, 0.5)] + [{**GOOD, "rejected": "Yes."}]
    loaded = load(written(tmp_path, *rows), "feedback")
    found = [(one.answer, one.desirable) for one in loaded.records]
    assert found == [("Yes.", True), ("No.", False), ("No.", True), ("Yes.", False)]
    assert loaded.remarks == ["each pair is two answers: the chosen one desirable, the rejected one not"]


def test_text(tmp_path: Path) -> None:
    """A text row is its text; blank rows say nothing; a dialogue is its turns, a line each."""
    source = written(tmp_path, {"text": "One."}, {"text": " "}, {"text": "Two."})
    assert load(source, "text").records == ["One.", "Two."]
    assert load(source, "demonstrations").records == [Demonstration((), "One."), Demonstration((), "Two.")]
    assert load(written(tmp_path, {"messages": CHAT}), "text").records == ["Hi.\nHello.\nTea?\nYes."]


def test_every_format_is_tested() -> None:
    """The rows above cover all formats but `text` and `decision`, which have their own tests."""
    names = {name for name, *_ in [*PREFERENCES, *DEMONSTRATIONS, *FEEDBACK, *QUESTIONS]}
    assert names == {form.name for form in FORMATS} - {"text", "decision"}


GOOD = {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."}
BAD: list[tuple[Kind, str | None, dict[str, Any], str]] = [
    ("preferences", None, {**GOOD, "rejected": None}, "rejected: is missing"),
    ("preferences", None, {**GOOD, "prompt": " "}, "prompt: is empty"),
    ("preferences", None, {**GOOD, "chosen": 3}, "chosen: is a number, not text"),
    (
        "preferences",
        None,
        {**GOOD, "chosen": "\ud800"},
        "chosen: holds half a character (a lone surrogate) at position 0",
    ),
    ("preferences", None, {**GOOD, "weight": 1.5}, "weight: is '1.5', not a probability in [0, 1]"),
    ("preferences", None, {**GOOD, "weight": True}, "weight: is 'True', not a probability in [0, 1]"),
    ("preferences", None, {**GOOD, "prompt": CHAT[:2]}, "prompt: does not end with a user's turn"),
    ("preferences", None, {**GOOD, "chosen": CHAT[:1]}, "chosen: does not end with an assistant's message"),
    ("preferences", None, {**GOOD, "chosen": CHAT[:2]}, "rejected: answers another dialogue than `chosen` does"),
    ("preferences", "hh_prompt", GOOD, 'prompt: is a dialogue that does not end with "\\n\\nAssistant:"'),
    (
        "preferences",
        "hh",
        {"chosen": f"{HH} a\n\nHuman: b\n\nAssistant: c", "rejected": f"{HH} d"},
        "chosen: the dialogues part before their last Assistant turn",
    ),
    (
        "preferences",
        "hh",
        {"chosen": f"{HH} a", "rejected": "\n\nHuman: Bye.\n\nAssistant: b"},
        'rejected: shares no beginning up to an "\\n\\nAssistant:" turn with `chosen`',
    ),
    ("demonstrations", "messages", {"messages": "hello"}, "messages: is text, not a list of messages"),
    (
        "demonstrations",
        "messages",
        {"messages": [said("user", "a"), said("tool", "b")]},
        "messages[1]: has the role 'tool'; known roles are system, developer, user",
    ),
    ("demonstrations", "messages", {"messages": [said("user", "")]}, "messages[0].content: is empty"),
    ("demonstrations", "messages", {"messages": [3]}, "messages[0]: is not a message"),
    ("demonstrations", "messages", {"messages": []}, "messages: holds no question and no answer to one"),
    ("demonstrations", "messages", {"messages": CHAT[:1]}, "row: holds a question and no answer to it"),
    (
        "demonstrations",
        "messages",
        {"messages": [*CHAT, said("assistant", "More.")]},
        "messages: has two assistant turns in a row (turns 4 and 5)",
    ),
    ("demonstrations", "preference", {**GOOD, "chosen": ""}, "chosen: is empty: it cannot be a demonstration"),
    ("demonstrations", "alpaca", {"instruction": "a", "output": ""}, "output: is empty"),
    (
        "feedback",
        "unpaired",
        {"prompt": "a", "completion": "b", "label": "maths"},
        "label: is 'maths', neither true or 1 nor false or 0",
    ),
    ("questions", "gsm8k", {"question": "a", "answer": "b #### "}, "answer: has nothing after ####"),
    ("questions", "mt_bench", {"turns": []}, "turns: is not a list of questions"),
    ("questions", "self_instruct", {"instruction": "a", "instances": ["b"]}, "instances[0]: is not an object"),
]


@pytest.mark.parametrize(("kind", "name", "row", "problem"), BAD)
def test_bad_rows(tmp_path: Path, kind: Any, name: str | None, row: dict[str, Any], problem: str) -> None:
    """The message is `file:line: field: reason` and ends with the way out."""
    source = written(tmp_path, row)
    with pytest.raises(UserError) as caught:
        load(Source(source.path, format=name), kind)
    assert str(caught.value).startswith(f"{source.path}:1: {problem}")
    assert "skip_bad: true" in str(caught.value)


def test_uninformative_pairs_are_kept_and_remarked(tmp_path: Path) -> None:
    """Of three pairs one is empty on one side and one the same on both: 3 preferences, 2 remarks with their lines."""
    same, empty = {**GOOD, "rejected": "Yes."}, {**GOOD, "rejected": ""}
    loaded = load(written(tmp_path, GOOD, same, empty), "preferences")
    assert len(loaded.records) == 3
    assert loaded.remarks == [
        "1 pairs whose two answers are the same (lines 2)",
        "1 pairs with an empty answer (lines 3)",
    ]

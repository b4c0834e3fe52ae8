"""What is written is read back as it was."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolt.data import (
    Context,
    Demonstration,
    Preference,
    Question,
    Source,
    Turn,
    load,
    write_demonstrations,
    write_preferences,
    write_questions,
    write_rows,
)

SAID = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
TURNS = st.lists(st.tuples(SAID, SAID), max_size=2).map(
    lambda pairs: [turn for one, two in pairs for turn in (Turn("user", one), Turn("assistant", two))]
)
CONTEXTS: st.SearchStrategy[Context] = st.builds(
    lambda system, turns, last: (*(Turn("system", one) for one in system), *turns, Turn("user", last)),
    st.lists(SAID, max_size=1),
    TURNS,
    SAID | SAID.map(lambda text: f"\n\nHuman: {text}\n\nAssistant:"),
)
WEIGHTS = st.floats(0, 1)
SOLUTIONS = st.none() | st.integers(-999, 999).map(str)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.builds(Preference, CONTEXTS | st.just(()), SAID, SAID, WEIGHTS), min_size=1, max_size=4))
def test_preferences_survive(tmp_path_factory: pytest.TempPathFactory, preferences: list[Preference]) -> None:
    """Contexts of any shape, texts that look like HH dialogues and weights in [0, 1] come back equal."""
    path = tmp_path_factory.mktemp("records") / "pairs.jsonl"
    write_preferences(path, preferences)
    assert load(Source(str(path)), "preferences").records == preferences


@settings(max_examples=60, deadline=None)
@given(st.lists(st.builds(Demonstration, CONTEXTS | st.just(()), SAID), min_size=1, max_size=4))
def test_demonstrations_survive(tmp_path_factory: pytest.TempPathFactory, demonstrations: list[Demonstration]) -> None:
    """Dialogues and plain text (the empty context) come back equal."""
    path = tmp_path_factory.mktemp("records") / "demonstrations.jsonl"
    write_demonstrations(path, demonstrations)
    assert load(Source(str(path)), "demonstrations").records == demonstrations


@settings(max_examples=60, deadline=None)
@given(st.lists(st.builds(Question, CONTEXTS, SOLUTIONS, st.just("q1"), st.just("sum")), min_size=1, max_size=4))
def test_questions_survive(tmp_path_factory: pytest.TempPathFactory, questions: list[Question]) -> None:
    """Questions with and without a solution, in one file, come back equal."""
    path = tmp_path_factory.mktemp("records") / "questions.jsonl"
    write_questions(path, questions)
    assert load(Source(str(path)), "questions").records == questions


def test_rows_are_what_others_read(tmp_path: Path) -> None:
    """prompt/chosen/rejected, weight only where it is not 1; question/answer as GSM8K has them."""
    context = (Turn("user", "Tea?"),)
    write_preferences(tmp_path / "a.jsonl", [Preference(context, "Yes.", "No."), Preference(context, "a", "b", 0.5)])
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert rows == [
        {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."},
        {"prompt": "Tea?", "chosen": "a", "rejected": "b", "weight": 0.5},
    ]
    write_questions(tmp_path / "b.jsonl", [Question(context, "7", "q", "k")])
    assert json.loads((tmp_path / "b.jsonl").read_text()) == {
        "id": "q",
        "kind": "k",
        "question": "Tea?",
        "answer": "#### 7",
    }


def test_replacing_is_atomic(tmp_path: Path) -> None:
    """A row that cannot be written leaves the old file as it was and nothing beside it: 1 file, the old bytes."""
    path = tmp_path / "a.jsonl"
    write_rows(path, [{"text": "old"}])
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_rows(path, [{"text": "new"}, {"text": object()}])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

"""Decisions: what a row becomes, what comes back of it, and every bad field named with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolt.data import Decision, DecisionQuestion, Source, load, write_rows
from smolt.errors import UserError

NOUL = {"type": "noul", "instructions": "Is a refund requested?"}
CHOICE = {"type": "choice", "instructions": "What is the tone?", "criteria": {"calm": None, "angry": "It shouts."}}
SCORE = {"type": "score", "criteria": ["Can wait", "This week", "Today"]}
ASKED = {"refund": NOUL, "tone": CHOICE, "urgent": SCORE}


def read(directory: Path, *rows: dict[str, Any]) -> list[Decision]:
    """What a file of the rows holds."""
    path = directory / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load(Source(str(path)), "decisions").records


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("refund", True, (1.0, 0.0)),
        ("refund", False, (0.0, 1.0)),
        ("refund", 0.25, (0.25, 0.75)),
        ("refund", {"true": 0.25, "false": 0.75}, (0.25, 0.75)),
        ("tone", "angry", (0.0, 1.0)),
        ("tone", {"calm": 0.4, "angry": 0.6}, (0.4, 0.6)),
        ("tone", {"angry": 1}, (0.0, 1.0)),
        ("urgent", 2, (0.0, 0.0, 1.0)),
        ("urgent", 0.25, (0.75, 0.25, 0.0)),
        ("urgent", [0.5, 0.25, 0.25], (0.5, 0.25, 0.25)),
        ("urgent", {"0": 0.5, "2": 0.5}, (0.5, 0.0, 0.5)),
        ("refund", None, None),
    ],
)
def test_what_is_expected_is_a_probability_of_each_option(
    tmp_path: Path, name: str, given: Any, expected: tuple[float, ...] | None
) -> None:
    """Hard, soft, or a level; a level between two shares its weight between them."""
    row = {"state": {"message": "Hi"}, "questions": {name: ASKED[name]}, "expected": {name: given}}
    (found,) = read(tmp_path, row)
    assert found.questions[0].expected == pytest.approx(expected) if expected else found.questions[0].expected is None
    assert found.id == "rows:1"


def test_a_decision_written_is_read_back(tmp_path: Path) -> None:
    """`row` and the reader are each other's inverse; `request` is the row without id and expected."""
    row = {
        "state": ["a", {"b": 1}],
        "questions": ASKED,
        "expected": {"refund": 0.3, "urgent": 1.5},
        "id": "x",
        "kind": "k",
    }
    (found,) = read(tmp_path, row)
    write_rows(tmp_path / "again.jsonl", [found.row])
    assert load(Source(str(tmp_path / "again.jsonl")), "decisions").records == [found]
    assert found.request == {"state": ["a", {"b": 1}], "questions": ASKED}
    assert [one.options for one in found.questions] == [("true", "false"), ("calm", "angry"), ("0", "1", "2")]


def test_questions_written_as_text_in_a_cell_are_read(tmp_path: Path) -> None:
    """As CSV and some Parquet files hold them."""
    (found,) = read(tmp_path, {"state": "Hi", "questions": json.dumps({"q": NOUL}), "expected": '{"q": true}'})
    assert found.questions == (DecisionQuestion("q", "noul", "Is a refund requested?", None, (1.0, 0.0)),)


BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"questions": {"q": {"type": "chioce", "criteria": {"a": None, "b": None}}}},
        "questions.q.type: is 'chioce'; did you mean choice?",
    ),
    ({"questions": {"q": {"type": "choice"}}}, "questions.q.criteria: must map the options"),
    ({"questions": {"q": {"type": "choice", "criteria": {"a": None}}}}, "at least two"),
    ({"questions": {"q": {"type": "score", "criteria": ["only"]}}}, "questions.q.criteria: must list the levels"),
    ({"questions": {"q": {**NOUL, "criteria": {"yes": "x"}}}}, "may describe true and false"),
    (
        {"questions": {"q": {**NOUL, "critera": {}}}},
        "questions.q.critera: is no field of a question; did you mean criteria?",
    ),
    ({"questions": {}}, "questions: is empty"),
    ({"questions": "what?"}, "questions: is text, not a JSON object"),
    ({"state": ""}, "state: is empty"),
    ({"state": 5}, "state: is a number, not text or JSON"),
    ({"assets": {"img": {}}}, "assets: holds images"),
    ({"expected": {"mood": "calm"}}, "expected.mood: is no question; there are refund, tone, urgent"),
    ({"expected": {"tone": "angri"}}, "expected.tone: is 'angri', which is no option; did you mean angry?"),
    ({"expected": {"tone": {"calm": 0.5, "angry": 0.4}}}, "expected.tone: its probabilities sum to 0.9, not to 1"),
    ({"expected": {"tone": {"calm": 2, "angry": -1}}}, "expected.tone: must give each option a probability"),
    (
        {"expected": {"tone": True}},
        "expected.tone: is true or false; write an option, or a probability for each option",
    ),
    ({"expected": {"urgent": 3}}, "expected.urgent: is 3; the scale has the levels 0 to 2"),
    ({"expected": {"urgent": -1}}, "expected.urgent: is -1; the scale has the levels 0 to 2"),
    ({"expected": {"refund": 1.5}}, "expected.refund: is 1.5; a noul is true, false or the probability of true"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_bad_field_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """File, line, field and what it should be."""
    good = {"state": "Hi", "questions": ASKED}
    with pytest.raises(UserError) as raised:
        read(tmp_path, good, {**good, **change})
    assert f"{tmp_path / 'rows.jsonl'}:2: " in str(raised.value)
    assert message in str(raised.value)


def test_halves_of_decisions_share_no_state(tmp_path: Path) -> None:
    """`half` divides by the state."""
    rows = [{"state": f"state {number // 2}", "questions": {"q": NOUL}} for number in range(40)]
    read(tmp_path, *rows)
    parts = [load(Source(str(tmp_path / "rows.jsonl"), half=half), "decisions").records for half in ("a", "b")]
    states = [{one.state for one in part} for part in parts]
    assert sum(map(len, parts)) == 40
    assert states[0] and states[1] and not states[0] & states[1]

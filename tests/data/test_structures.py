"""What other tools write beside the plain record: read as it is meant, or refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolt.data import Demonstration, Kind, Preference, Source, Turn, load
from smolt.errors import UserError


def said(*texts: str, system: str = "") -> list[dict[str, str]]:
    """Messages of a user and an assistant in turn."""
    turns = [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(texts)]
    return [*([{"role": "system", "content": system}] if system else []), *turns]


def turns(*texts: str, system: str = "") -> tuple[Turn, ...]:
    return tuple(Turn(turn["role"], turn["content"]) for turn in said(*texts, system=system))  # type: ignore[arg-type]  # roles are plain text here


def read(directory: Path, row: dict[str, Any], kind: Kind, **options: Any) -> list[Any]:
    path = directory / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return load(Source(str(path), **options), kind).records


def pair(prompt: Any, *before: str, system: str = "", **more: Any) -> dict[str, Any]:
    """A prompt beside two whole conversations."""
    return {
        "prompt": prompt,
        "chosen": said(*before, "good", system=system),
        "rejected": said(*before, "bad", system=system),
        **more,
    }


@pytest.mark.parametrize(
    ("row", "context"),
    [
        (pair("Q1", "Q1", "A1", "Q2"), turns("Q1", "A1", "Q2")),
        (pair("Q1\n", "Q1"), turns("Q1")),
        (pair("Q1", "Q1", system="Be brief."), turns("Q1", system="Be brief.")),
        (pair("Q1", "Q1", system="Be  brief.\n") | {"system": "Be brief."}, turns("Q1", system="Be  brief.\n")),
        (pair("Q1", "Q1") | {"system": "Be brief."}, turns("Q1", system="Be brief.")),
        (pair(said("Q1", system="Be brief."), "Q1"), turns("Q1", system="Be brief.")),
        (pair("Q2", "Q1", "A1", "Q2"), turns("Q1", "A1", "Q2")),
        (pair(said("Q1", "A1", "Q2"), "Q2"), turns("Q1", "A1", "Q2")),
        (pair(said("Q1"), system="Be brief."), None),
    ],
)
def test_a_prompt_is_not_said_twice(tmp_path: Path, row: dict[str, Any], context: tuple[Turn, ...] | None) -> None:
    """White space and a system turn aside; the same row as a completion gives the same context."""
    if context is None:  # the conversation holds a system turn and the answer alone
        row = {
            **row,
            **{name: [row[name][0], {**row[name][1], "role": "assistant"}] for name in ("chosen", "rejected")},
        }
        context = turns("Q1", system="Be brief.")
    assert read(tmp_path, row, "preferences") == [Preference(context, "good", "bad")]
    single = {name: value for name, value in row.items() if name != "rejected"}
    single["completion"] = single.pop("chosen")
    assert read(tmp_path, single, "demonstrations") == [Demonstration(context, "good")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (pair("Q9", "Q1", "A1", "Q2"), "neither begins nor ends with the prompt"),
        (pair("Q1 and more", "Q1"), "neither begins nor ends with the prompt"),
        (pair("A1", "Q1", "A1", "Q2"), "neither begins nor ends with the prompt"),
        (pair("Q1", "Q1", system="Be brief.") | {"system": "Be long."}, "another system text"),
    ],
)
def test_an_overlap_that_cannot_be_told_is_refused(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read(tmp_path, row, "preferences")


@pytest.mark.parametrize("write", [repr, json.dumps, lambda value: json.dumps(value, indent=1)])
def test_messages_written_as_text_are_read(tmp_path: Path, write: Any) -> None:
    row = {name: value if name == "prompt" else write(value) for name, value in pair("Q1", "Q1").items()}
    assert read(tmp_path, row, "preferences") == [Preference(turns("Q1"), "good", "bad")]
    assert read(tmp_path, {"messages": write(said("Q", "A"))}, "demonstrations") == [Demonstration(turns("Q"), "A")]
    history = {"instruction": "Q2", "output": "A2", "history": write([["Q1", "A1"]])}
    assert read(tmp_path, history, "demonstrations") == [Demonstration(turns("Q1", "A1", "Q2"), "A2")]


def test_messages_written_as_no_language_writes_them_are_refused(tmp_path: Path) -> None:
    """numpy's spelling has no commas between the messages; plain text with brackets stays text."""
    numpy = "[{'content': 'Q', 'role': 'user'}\n {'content': 'A', 'role': 'assistant'}]"
    with pytest.raises(UserError, match="completion: looks like a list of messages written as text, and is neither"):
        read(tmp_path, {"prompt": "Q", "completion": numpy}, "demonstrations")
    for text in ("[1, 2]", '{"name": "x"}', "[{'a': 1}]"):
        assert read(tmp_path, {"prompt": "Q", "completion": text}, "demonstrations")[0].answer == text


@pytest.mark.parametrize("key", ["weight", "train", "training", "loss"])
@pytest.mark.parametrize("value", [0, False, 0.0])
def test_a_turn_not_to_be_learned_is_context(tmp_path: Path, key: str, value: Any) -> None:
    messages = said("Q1", "A1", "Q2", "A2")
    messages[1][key] = value
    assert read(tmp_path, {"messages": messages}, "demonstrations") == [Demonstration(turns("Q1", "A1", "Q2"), "A2")]
    last = [*said("Q1", "A1", "Q2"), {"role": "assistant", "content": "A2", key: value}]
    assert read(tmp_path, {"messages": last}, "demonstrations") == [Demonstration(turns("Q1"), "A1")]
    with pytest.raises(UserError, match="completion: ends with a message that is not to be learned"):
        read(tmp_path, {"prompt": "Q1", "completion": [messages[1]]}, "demonstrations")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [*said("Q"), {"role": "assistant", "content": "A", "weight": 0.5}]}, r"messages\[1\].weight: is"),
        (
            {"messages": [*said("Q"), {"role": "assistant", "content": "A", "tool_calls": [1]}]},
            "tool_calls: is not read",
        ),
        ({"messages": [*said("Q"), {"role": "assistant", "content": "A", "thinking": "x"}]}, "thinking: is not read"),
        ({"messages": said("Q", "A"), "tools": [{"name": "f"}]}, "tools: is not read in the format messages"),
        ({"instruction": "Q", "output": "A", "images": ["a.png"]}, "images: is not read in the format alpaca"),
        ({"prompt": "Q", "completion": "A", "label": False}, "label: is false"),
        ({"instruction": "Q", "output": "A", "history": [["Q"]]}, "history: its entry 1 is not a pair"),
        (
            {"conversations": [{"from": "human", "role": "gpt", "value": "Q"}]},
            "has both role and from, and they differ",
        ),
    ],
)
def test_what_would_be_lost_is_refused_by_name(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read(tmp_path, row, "demonstrations")


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Q2", "input": "", "output": "A2", "history": [["Q1", "A1"]]},
        {"prompt": "Q2", "completion": "A2", "history": said("Q1", "A1")},
        {"question": "Q2", "answer": "A2", "history": [["user", "Q1"], ["assistant", "A1"]]},
        {"messages": said("Q2", "A2"), "history": [["Q1", "A1"]]},
    ],
)
def test_history_is_context(tmp_path: Path, row: dict[str, Any]) -> None:
    row["system"] = "Be brief."
    wanted = Demonstration(turns("Q1", "A1", "Q2", system="Be brief."), "A2")
    assert read(tmp_path, row, "demonstrations")[-1] == wanted


def test_null_twins_are_read(tmp_path: Path) -> None:
    """A merge of two styles leaves one of each pair of keys null, whichever it is."""
    empty = {"role": None, "content": None, "from": None, "value": None}
    styles = ("from", "value"), ("role", "content")
    rows = [[{**empty, r: "user", c: "Q"}, {**empty, r: "assistant", c: "A"}] for r, c in styles]
    for messages in (*rows, [rows[0][0], rows[1][1]]):
        for field in ("messages", "conversations"):
            assert read(tmp_path, {field: messages}, "demonstrations") == [Demonstration(turns("Q"), "A")]


@pytest.mark.parametrize(
    ("row", "kind", "fields", "hint"),
    [
        (pair("Q", prob=0.5), "preferences", {"weight": "probability"}, "did you mean prob?"),
        ({"question": "Q", "answer": "1", "gold": "1"}, "questions", {"solution": "glod"}, "did you mean gold?"),
        (
            {"prompt": "Q", "completion": "A", "system": ""},
            "demonstrations",
            {"system": "sytem"},
            "did you mean system?",
        ),
        ({"q": "Q", "a": "A"}, "demonstrations", {"prompt": "qq", "completion": "a"}, "no row has the column 'qq'"),
    ],
)
def test_a_column_that_is_not_there_is_an_error(
    tmp_path: Path, row: dict[str, Any], kind: Kind, fields: dict[str, str], hint: str
) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, row, kind, fields=fields)
    assert f"fields.{next(iter(fields))}: no row has the column" in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    "document",
    [
        {"data": [{"prompt": "Q", "completion": "A"}]},
        {"version": "1", "rows": [{"prompt": "Q", "completion": "A"}]},
        {"prompt": "Q", "completion": "A"},
        [{"prompt": "Q", "completion": "A"}],
    ],
)
def test_a_printed_document_is_read(tmp_path: Path, name: str, document: Any) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(document, indent=2))
    assert load(Source(str(path)), "demonstrations").records == [Demonstration(turns("Q"), "A")]


def test_a_broken_document_is_refused_for_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n "data": [{"prompt": "Q"}\n')
    with pytest.raises(UserError, match="is neither JSON lines nor one JSON document: Expecting"):
        load(Source(str(path)), "questions")
    path.write_text('{"train": [], "test": []}')
    with pytest.raises(UserError, match="holds rows under train and test; keep one list a file"):
        load(Source(str(path)), "questions")


def test_datasets_json_columns_read_the_same_from_parquet(tmp_path: Path) -> None:
    """datasets writes a Json feature as text, whole or a message at a time."""
    datasets = pytest.importorskip("datasets", minversion="4.7")
    for feature in (datasets.Json(), datasets.List(datasets.Json())):
        rows = datasets.Dataset.from_list(
            [{"messages": said("Q", "A")}], features=datasets.Features({"messages": feature})
        )
        rows.to_parquet(str(tmp_path / "a.parquet"))
        assert load(Source(str(tmp_path / "a.parquet")), "demonstrations").records == [Demonstration(turns("Q"), "A")]

"""Kinds of file, what is said of files and columns that are not as they should be, and what fuzzing may not break."""

import gzip
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, get_args

import datasets
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from smolt.data import FORMATS, Demonstration, Kind, Preference, Source, Turn, load
from smolt.errors import UserError

ROWS = [{"prompt": f"Question {n}?", "completion": f"Answer {n}."} for n in range(1, 4)]
EXPECTED = [Demonstration((Turn("user", f"Question {n}?"),), f"Answer {n}.") for n in range(1, 4)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
TABLE = "prompt,completion\n" + "".join(f"{row['prompt']},{row['completion']}\n" for row in ROWS)


def error(source: Source, kind: Any = "demonstrations") -> str:
    """The message of the UserError that reading raises."""
    with pytest.raises(UserError) as caught:
        load(source, kind)
    return str(caught.value)


CONTENTS = {
    "a.jsonl": LINES.encode(),
    "b.jsonl": b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n\n").encode(),
    "c.jsonl.gz": gzip.compress(LINES.encode()),
    "d.json": json.dumps(ROWS, indent=2).encode(),
    "e.json": LINES.encode(),
    "f.csv": TABLE.encode(),
    "g.tsv": TABLE.replace(",", "\t").encode(),
    "h.ndjson": LINES.encode(),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_kinds_of_file(tmp_path: Path, name: str) -> None:
    """The same 3 demonstrations from each kind of file, with the digest of its bytes."""
    (tmp_path / name).write_bytes(CONTENTS[name])
    loaded = load(Source(str(tmp_path / name)), "demonstrations")
    assert loaded.records == EXPECTED
    assert loaded.sha256 == hashlib.sha256(CONTENTS[name]).hexdigest()
    assert loaded.describe() == f"3 records from {tmp_path / name}, read as prompt_completion"


def test_parquet(tmp_path: Path) -> None:
    """Text columns and columns of messages, 3 rows each."""
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert load(Source(str(tmp_path / "a.parquet")), "demonstrations").records == EXPECTED
    messages = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in ROWS
    ]
    parquet.write_table(pyarrow.Table.from_pylist(messages), tmp_path / "b.parquet")
    assert load(Source(str(tmp_path / "b.parquet")), "demonstrations").records == EXPECTED


def test_saved_data_sets(tmp_path: Path) -> None:
    """A saved Dataset and a DatasetDict with a split to choose: 3 and 1 demonstrations; equal rows, equal digests."""
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": whole, "test": whole.select([0])}).save_to_disk(str(tmp_path / "two"))
    one = load(Source(str(tmp_path / "one")), "demonstrations")
    two = load(Source(str(tmp_path / "two")), "demonstrations")
    assert one.records == two.records == EXPECTED
    assert one.sha256 == two.sha256
    assert load(Source(str(tmp_path / "two"), split="test"), "demonstrations").records == EXPECTED[:1]
    assert "no split 'dev'; name one of train, test" in error(Source(str(tmp_path / "two"), split="dev"))
    (tmp_path / "two" / "train" / "state.json").write_text("{}")
    assert "is not readable as a saved data set" in error(Source(str(tmp_path / "two")))


def test_directory_of_files(tmp_path: Path) -> None:
    """The only data file, the file named after the split, or an error that lists them."""
    (tmp_path / "LICENSE").write_text("MIT")
    assert "no one data file can be chosen; name one of its files (none)" in error(Source(str(tmp_path)))
    (tmp_path / "dev.jsonl.gz").write_bytes(CONTENTS["c.jsonl.gz"])
    assert load(Source(str(tmp_path)), "demonstrations").path == str(tmp_path / "dev.jsonl.gz")
    (tmp_path / "other.jsonl").write_text(LINES)
    assert "name one of its files (dev.jsonl.gz, other.jsonl)" in error(Source(str(tmp_path)))
    assert load(Source(str(tmp_path), split="dev"), "demonstrations").records == EXPECTED
    assert "no file is named 'test'" in error(Source(str(tmp_path), split="test"))


def test_hub_names_are_asked_of_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """`owner/name:configuration` reaches load_dataset as those two; no split means train."""
    asked = []

    def load_dataset(name: str, configuration: str | None) -> datasets.DatasetDict:
        asked.append((name, configuration))
        whole = datasets.Dataset.from_list(ROWS)
        return datasets.DatasetDict({"train": whole, "test": whole.select([1])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load(Source("owner/name:main"), "demonstrations").records == EXPECTED
    assert load(Source("name", split="test"), "demonstrations").records == EXPECTED[1:2]
    assert asked == [("owner/name", "main"), ("name", None)]


def test_hub_failure_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, a name that exists nowhere is one line: both readings of it and the hub's reason."""

    def load_dataset(name: str, configuration: str | None) -> None:
        raise ConnectionError("offline mode is enabled\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = error(Source("owner/name"))
    assert message == "owner/name: no such file or directory; as a hub data set: offline mode is enabled"


@pytest.mark.parametrize("path", ["nowhere/train.jsonl", "./train", "/nowhere/at/all", "a/b/c", "~/nowhere-at-all", ""])
def test_what_looks_like_a_path_never_goes_to_the_hub(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """0 calls of load_dataset for file names, absolute and relative paths and more than one slash."""
    monkeypatch.setattr(datasets, "load_dataset", lambda *given: pytest.fail(f"asked the hub for {given}"))
    assert error(Source(path)).startswith(f"{path}: ")


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    """train.json is not there, train.jsonl is; and a misspelt directory is found too."""
    (tmp_path / "train.jsonl").write_text(LINES)
    assert error(Source(str(tmp_path / "train.json"))).endswith(f"nearest in {tmp_path}: train.jsonl")
    (tmp_path / "data").mkdir()
    assert error(Source(str(tmp_path / "dat" / "x.jsonl"))).endswith(f"nearest in {tmp_path}: data")


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO would be waited for without end; it is neither a file nor a directory."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert error(Source(str(tmp_path / "pipe.jsonl"))).endswith("is neither a file nor a directory")


FILE_PROBLEMS = [
    ("a.jsonl", b"", ": holds no rows"),
    ("a.jsonl", b"\n \n", ": holds no rows"),
    ("a.json", b"[]", ": holds no rows"),
    ("a.json", b'[{"a": 1},\n {"b": }]', ":2: is not JSON: Expecting value (column 8)"),
    ("a.json", b'[{"a": 1}\n {"b": 1}]', ":2: is not JSON: Expecting ',' or ']' (column 2)"),
    ("a.json", b"[{}] tail", ":1: is not JSON: Extra data after the list (column 5)"),
    ("a.json", b"\xff[]", ": is not UTF-8 (byte 1; save the file as UTF-8)"),
    ("a.csv", b'a,b\n"x', ":2: is not CSV: unexpected end of data"),
    ("a.csv", b"", ": holds no rows"),
    ("a.csv", b"\xff", ": is not UTF-8 (byte 1; save the file as UTF-8)"),
    ("a.txt", b"\xff", ": is not UTF-8 (byte 1; save the file as UTF-8)"),
    ("a.txt", b" \n", ": holds no demonstrations"),
    ("a.parquet", b"PAR1", ": is not readable as Parquet: "),
    ("a.jsonl.gz", b"\x1f\x8b\x08", ": the compressed file is damaged: "),
    ("a.xlsx", b"x", ": unknown kind of file '.xlsx'; known: .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .txt"),
    ("a.jsonl", b"nonsense", ":1: row: is not JSON: Expecting value (column 1); no row could be parsed"),
    ("a.jsonl", b'{"a": NaN}', ":1: row: is not usable JSON: NaN is not JSON"),
    ("a.jsonl", b"\n\n\xff", ":3: row: is not UTF-8 (byte 1 of the line; save the file as UTF-8)"),
    ("a.jsonl", b"[1]", ":1: row: is not a JSON object but a list"),
    ("a.jsonl", b"[" * 100_000, ":1: row: is not usable JSON: "),
    ("a.jsonl", b'{"a": ' + b"9" * 5_000 + b"}", ":1: row: is not usable JSON: "),
]


@pytest.mark.parametrize(("name", "content", "problem"), FILE_PROBLEMS)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    """Each is a UserError that begins with the path, and the line where there is one."""
    (tmp_path / name).write_bytes(content)
    assert error(Source(str(tmp_path / name))).startswith(f"{tmp_path / name}{problem}")


def test_bad_rows_stop_or_are_counted(tmp_path: Path) -> None:
    """Lines 2, 4 and 5 of 6 are bad: the error names line 2 and 2 more; skip_bad keeps 3 and lists the 3."""
    path = tmp_path / "a.jsonl"
    first, second, third = LINES.splitlines()
    path.write_text("\n".join([first, "{", second, '{"prompt": "x"}', '{"prompt": "", "completion": "y"}', third]))
    assert error(Source(str(path))) == (
        f"{path}:2: row: is not JSON: Expecting property name enclosed in double quotes (column 2); "
        "2 more bad rows. Mend the data, or leave such rows out: "
        "skip_bad: true in a recipe, --skip-bad of judge, label and data audit"
    )
    loaded = load(Source(str(path), skip_bad=True), "demonstrations")
    assert loaded.records == EXPECTED
    assert loaded.skipped == [
        f"{path}:2: row: is not JSON: Expecting property name enclosed in double quotes (column 2)",
        f"{path}:4: completion: is missing",
        f"{path}:5: prompt: is empty",
    ]
    assert loaded.describe().endswith("; 3 bad rows skipped")


def test_all_rows_bad(tmp_path: Path) -> None:
    """Skipping everything is an error: 2 rows, the first named."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "x", "completion": ""}\n' * 2)
    assert error(Source(str(path), skip_bad=True)) == (
        f"{path}: all 2 rows are bad; the first: {path}:1: completion: is empty"
    )


def test_csv_rows_name_the_line_they_begin_on(tmp_path: Path) -> None:
    """A quoted field spans lines 2 and 3, so the short row is on line 4."""
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion\n"a\nb",c\nd\n')
    loaded = load(Source(str(path), skip_bad=True), "demonstrations")
    assert loaded.records == [Demonstration((Turn("user", "a\nb"),), "c")]
    assert loaded.skipped == [f"{path}:4: row: has 1 columns where the header has 2"]


def test_json_elements_name_the_line_they_begin_on(tmp_path: Path) -> None:
    """With an indent of 2 each object takes 4 lines: they begin on lines 2, 6 and 10."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps([ROWS[0], {**ROWS[1], "prompt": 5}, {**ROWS[2], "completion": None}], indent=2))
    loaded = load(Source(str(path), skip_bad=True), "demonstrations")
    assert loaded.skipped == [f"{path}:6: prompt: is a number, not text", f"{path}:10: completion: is missing"]


def test_limit_counts_records(tmp_path: Path) -> None:
    """2 of 3; rows behind the limit are not looked at; a limit of 0 is refused."""
    path = tmp_path / "a.jsonl"
    path.write_text(LINES + "{\n")
    assert load(Source(str(path), limit=2), "demonstrations").records == EXPECTED[:2]
    assert load(Source(str(path), limit=3), "demonstrations").records == EXPECTED
    assert "limit: is 0" in error(Source(str(path), limit=0))


def test_fields_rename_columns(tmp_path: Path) -> None:
    """Columns q and better are read as prompt and chosen; a bad row names the column of the file."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "Tea?", "better": "Yes.", "rejected": "No."}\n{"q": "", "better": "a", "rejected": "b"}\n')
    fields = {"prompt": "q", "chosen": "better"}
    loaded = load(Source(str(path), fields=fields, skip_bad=True), "preferences")
    assert loaded.records == [Preference((Turn("user", "Tea?"),), "Yes.", "No.")]
    assert loaded.skipped == [f"{path}:2: q: is empty"]
    message = error(Source(str(path), fields={**fields, "wieght": "w"}), "preferences")
    assert "fields.wieght: the format preference has no such field" in message
    assert message.endswith("did you mean weight?")


def test_unknown_formats_and_columns(tmp_path: Path) -> None:
    """The columns seen and the formats known; a misspelt format gets the nearest name; a family covers its members."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"foo": 1, "bar": 2}\n')
    message = error(Source(str(path)))
    assert "no known format has the columns bar, foo" in message
    assert "; the formats: messages, sharegpt, prompt_completion, self_instruct, alpaca" not in message
    assert "alpaca, svamp, gsm8k, decision, text (`smolt data formats` lists the columns of all)" in message
    assert len(message) < len(str(path)) + 400
    assert "did you mean alpaca?" in error(Source(str(path), format="alpacca"))
    path.write_text(LINES)
    message = error(Source(str(path)), "preferences")
    assert "its rows are prompt_completion" in message
    assert (
        "nearest: hh_prompt, which needs chosen and rejected too; preference, which needs chosen and reject" in message
    )
    path.write_text('{"prompt": "\\n\\nHuman: Hi.\\n\\nAssistant:", "chosen": " a", "rejected": " b"}\n')
    assert load(Source(str(path), format="hh"), "preferences").format == "hh_prompt"
    named = load(Source(str(path), format="preference"), "preferences").records
    assert named == [Preference((Turn("user", "Hi."),), "a", "b")]  # a dialogue is turns in any format


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"instruction": "a", "response": "b"},
            "nearest: self_instruct, which needs instances too; alpaca, which needs ",
        ),
        ({"promt": "a", "completion": "b"}, "nearest: prompt_completion, which needs prompt (is it promt?) too"),
        (
            {"Body": "a", "Question": "b"},
            "nearest: svamp, which needs Answer too; gsm8k, which needs question (is it Question?) too",
        ),
    ],
)
def test_the_nearest_formats_and_what_they_need(row: dict[str, str], said: str, tmp_path: Path) -> None:
    """At most three, by the share of their columns that is there; not the columns of every format there is."""
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    message = error(Source(str(tmp_path / "a.jsonl")))
    assert said in message
    assert "mt_bench" not in message


def test_a_file_has_no_other_split(tmp_path: Path) -> None:
    """A single file is its own train split; another name is refused, not ignored."""
    (tmp_path / "a.jsonl").write_text(LINES)
    assert load(Source(str(tmp_path / "a.jsonl"), split="train"), "demonstrations").records == EXPECTED
    assert "a single file has no split 'test'" in error(Source(str(tmp_path / "a.jsonl"), split="test"))


COLUMNS = st.sampled_from(sorted({column for form in FORMATS for column in (*form.required, *form.optional)}))
TURNS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "gpt", "x"]), "content": st.text(max_size=6) | st.none()}
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | TURNS
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3))
DIALOGUES = st.lists(st.sampled_from(["\n\nHuman:", "\n\nAssistant:", " hi", ""]), max_size=8).map("".join)
OBJECTS = st.dictionaries(COLUMNS, VALUES | DIALOGUES | st.lists(TURNS, max_size=4), max_size=6)
FUZZED = st.lists(OBJECTS.map(lambda row: json.dumps(row).encode()) | st.binary(max_size=30), max_size=5)


@settings(max_examples=300, deadline=None)
@given(lines=FUZZED, kind=st.sampled_from(get_args(Kind)), skip=st.booleans(), name=st.sampled_from(["jsonl", "json"]))
def test_fuzzed_lines_give_records_or_a_user_error(lines: list[bytes], kind: Any, skip: bool, name: str) -> None:
    """Whatever is in the file: at least 1 record, and 0 rows skipped unasked, or a UserError; nothing else."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"fuzz.{name}"
        path.write_bytes(b"\n".join(lines))
        try:
            loaded = load(Source(str(path), skip_bad=skip), kind)
        except UserError as problem:
            assert str(path) in str(problem)
            return
    assert len(loaded.records) >= 1
    assert skip or not loaded.skipped


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200), name=st.sampled_from(["csv", "tsv", "json", "txt", "parquet", "jsonl.gz"]))
def test_fuzzed_files_give_records_or_a_user_error(content: bytes, name: str) -> None:
    """Random bytes under every other ending."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"fuzz.{name}"
        path.write_bytes(content)
        try:
            assert len(load(Source(str(path), skip_bad=True), "text").records) >= 1
        except UserError as problem:
            assert str(path) in str(problem)

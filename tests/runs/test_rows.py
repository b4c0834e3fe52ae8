"""metrics.jsonl and samples.jsonl: what is kept, what is dropped on resume."""

import json
from pathlib import Path

import pytest

from smolt.errors import SelfCheckError
from smolt.runs.rows import RowFile


def written(path: Path, steps: list[int]) -> RowFile:
    rows = RowFile(path)
    for step in steps:
        rows.add({"step": step, "loss": step / 7})
    rows.flush()
    return rows


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_rows_wait_for_flush_and_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = written(path, [1])
    rows.add({"step": 2, "text": "zwölf\n\u2028"})
    assert steps(path) == [1]
    rows.flush()
    rows.flush()
    assert path.read_bytes().split(b"\n")[1:] == ['{"step": 2, "text": "zwölf\\n\u2028"}'.encode(), b""]


def test_resume_drops_exactly_the_later_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = written(path, [0, 1, 1, 2, 3, 3])
    assert rows.keep_until(2) == []
    assert steps(path) == [0, 1, 1, 2]


def test_nothing_to_drop_leaves_the_file_untouched(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = written(path, [1, 2])
    before = path.stat().st_ino
    assert rows.keep_until(2) == []
    assert (path.stat().st_ino, steps(path)) == (before, [1, 2])


def test_without_a_checkpoint_all_rows_go(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert written(path, [0, 1]).keep_until(-1) == []
    assert path.read_bytes() == b""


@pytest.mark.parametrize("length", range(1, 23))
def test_a_last_line_torn_anywhere_is_dropped(tmp_path: Path, length: int) -> None:
    """The row of step 3 has 22 bytes and a newline: every prefix without the newline is torn."""
    path = tmp_path / "metrics.jsonl"
    rows = written(path, [1, 2])
    line = b'{"step": 3, "loss": 1}\n'
    with path.open("ab") as file:
        file.write(line[:length])
    assert rows.keep_until(3) == []
    assert steps(path) == [1, 2]


def test_an_unreadable_line_in_the_middle_is_named_and_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\x00\x00\n{"step": "2"}\n[3]\n{"step": 2}\n')
    warnings = RowFile(path).keep_until(9)
    assert [warning.removeprefix(str(path)) for warning in warnings] == [f":{n}: not a row, dropped" for n in (2, 3, 4)]
    assert steps(path) == [1, 2]


@pytest.mark.parametrize("row", [{}, {"step": "1"}, {"step": 1.0}, {"step": True}, {"step": -1}, {"step": None}])
def test_a_row_needs_a_step(tmp_path: Path, row: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="integer step >= 0"):
        RowFile(tmp_path / "metrics.jsonl").add(row)


def test_nan_is_named_and_not_written(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "metrics.jsonl")
    with pytest.raises(SelfCheckError, match=r"metrics\.jsonl: row of step 4: kl: nan"):
        rows.add({"step": 4, "kl": float("nan")})
    rows.flush()
    assert not rows.path.exists()
    rows.add({"step": 4, "kl": None})
    rows.flush()
    assert rows.path.read_text() == '{"step": 4, "kl": null}\n'

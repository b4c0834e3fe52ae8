"""Atomic writing, and JSON that comes back as it was."""

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolt.errors import SelfCheckError, UserError
from smolt.runs import StorageError, atomic_write, jsontext, storage
from tests.disk import Crash, Disk


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_atomic_write_replaces_text_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic_write(path, "größer")
    assert path.read_bytes() == b"gr\xc3\xb6\xc3\x9fer"
    atomic_write(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names(tmp_path) == ["a.json"]


def test_atomic_write_syncs_the_file_before_the_rename_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    monkeypatch.setattr(storage, "os", disk.namespace())
    atomic_write(tmp_path / "a", "new")
    assert [operation.kind for operation in disk.operations] == ["create", "write", "sync", "rename", "sync"]
    assert disk.operations[2].path == disk.operations[0].path
    assert disk.operations[4].path == tmp_path


def test_atomic_write_crashed_at_any_operation_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five operations (see above): the rename is the fourth, so a crash before or at it leaves the old content."""
    found = []
    for number in range(6):
        path = tmp_path / f"{number}"
        path.write_text("old")
        with monkeypatch.context() as broken:
            broken.setattr(storage, "os", Disk(break_at=number).namespace())
            try:
                atomic_write(path, "new")
            except Crash:
                assert number < 6
        found.append(path.read_text())
    assert found == ["old", "old", "old", "old", "new", "new"]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("number", range(4))
def test_atomic_write_on_a_failing_disk_keeps_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, number: int
) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    monkeypatch.setattr(storage, "os", Disk(break_at=number, error=error).namespace())
    with pytest.raises(StorageError, match="earlier files are intact") as caught:
        atomic_write(path, "new")
    assert (caught.value.errno, caught.value.exit_code) == (error, 74)
    assert str(tmp_path) in str(caught.value)
    assert (path.read_text(), names(tmp_path)) == ("old", ["a"])


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes at most 3 bytes a call gets 10 bytes in 4 calls."""
    calls = []

    def write_three(descriptor: int, content: bytes) -> int:
        calls.append(len(content))
        return os.write(descriptor, content[:3])

    namespace = Disk().namespace()
    namespace.write = write_three
    monkeypatch.setattr(storage, "os", namespace)
    atomic_write(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"
    assert calls == [10, 7, 4, 1]


def test_append_on_a_full_disk_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes 3 bytes of 10 and is then full: the 3 bytes are taken back."""
    path = tmp_path / "rows"
    path.write_bytes(b"old\n")

    def full_after_three(descriptor: int, content: bytes) -> int:
        if len(content) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(descriptor, content[:3])

    namespace = Disk().namespace()
    namespace.write = full_after_three
    monkeypatch.setattr(storage, "os", namespace)
    with pytest.raises(StorageError):
        storage.append(path, b"0123456789")
    assert path.read_bytes() == b"old\n"


def test_sweep_removes_only_temporary_names(tmp_path: Path) -> None:
    (tmp_path / ".a.0123.tmp").write_text("half")
    (tmp_path / ".step-1.4567.tmp").mkdir()
    (tmp_path / ".step-1.4567.tmp" / "blob").write_text("half")
    (tmp_path / "kept.tmp").write_text("whole")
    (tmp_path / ".kept").write_text("whole")
    storage.sweep(tmp_path)
    assert names(tmp_path) == [".kept", "kept.tmp"]


@pytest.mark.parametrize("value", [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3, 2.0**-1074 * 3])
def test_floats_come_back_bit_for_bit(value: float) -> None:
    back = json.loads(jsontext.encode_exact({"value": value}, "state"))["value"]
    assert (back, math.copysign(1, back)) == (value, math.copysign(1, value))


def test_a_random_state_of_128_bits_comes_back() -> None:
    state = {"state": 2**127 + 1, "nested": {"list": [None, True, 1, 1.5, "\u2028 ü"]}}
    assert json.loads(jsontext.encode_exact(state, "state")) == state


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite_is_refused_and_named(value: float) -> None:
    with pytest.raises(SelfCheckError, match=r"row: kl\.each\[1\]: -?(nan|inf) is not a finite number"):
        jsontext.encode({"kl": {"each": [0.0, value]}}, "row")


@pytest.mark.parametrize("value", [{"a": {1: 2}}, {"a": {"b": b""}}, {"a": {1, 2}}, {"a": object()}])
def test_what_json_would_change_is_refused_and_named(value: Any) -> None:
    with pytest.raises(TypeError, match="state: a"):
        jsontext.encode(value, "state")


def test_exact_refuses_a_tuple_and_rows_take_it() -> None:
    assert jsontext.encode({"a": (1, 2)}, "row") == '{"a": [1, 2]}'
    with pytest.raises(TypeError, match="lists, not tuples"):
        jsontext.encode_exact({"a": (1, 2)}, "state")


def test_half_a_surrogate_pair_is_escaped() -> None:
    text = jsontext.encode({"text": "\ud800 ü"}, "row")
    assert json.loads(text.encode()) == {"text": "\ud800 ü"}


def test_plain_makes_strict_json_of_anything() -> None:
    found = {
        "a": [float("inf"), 1, True, None],
        2: Path("p"),
        "set": {"b", "a"},
        "half": "\ud800",
        "n": np.float32(0.5),
    }
    wanted = {"a": [None, 1, True, None], "2": "p", "set": ["a", "b"], "half": "\\ud800", "n": 0.5}
    assert jsontext.plain(found) == wanted


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    jsontext.write(path, {"a": 0.1, "text": "ü"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": 0.1,\n  "text": "ü"\n}\n'
    assert jsontext.read_object(path) == {"a": 0.1, "text": "ü"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "facts.json: not JSON"),
        (b"\xff", "facts.json: not JSON"),
        (b"[]", "facts.json: expected a JSON object, found list"),
    ],
)
def test_what_is_no_object_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "facts.json"
    assert jsontext.read_object(path, or_empty=True) == {}
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        jsontext.read_object(path, or_empty=True)


def test_a_users_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable's where it is absolute, as the XDG specification has it; else below home; None without a home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert storage.user_directory("XDG_CACHE_HOME", ".cache") == Path("/elsewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert storage.user_directory("XDG_CACHE_HOME", ".cache") == tmp_path / ".cache"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert storage.user_directory("XDG_CACHE_HOME", ".cache") is None


def test_what_a_killed_writer_left_is_removed_with_its_folders(tmp_path: Path) -> None:
    """A model directory may hold a folder with its adapter."""
    left = storage.temporary_name(tmp_path / "model")
    (left / "adapter").mkdir(parents=True)
    (left / "adapter" / "weights").write_text("half")
    storage.sweep(tmp_path)
    assert names(tmp_path) == []

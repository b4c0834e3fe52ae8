"""Checkpoints: exact return, detection of damage, choice and pruning."""

import errno
import json
import random
import subprocess
from pathlib import Path

import pytest

from smolt.errors import SelfCheckError
from smolt.runs import StorageError, checkpoints
from smolt.runs.checkpoints import newest, save

BLOBS = {"adapter.safetensors": bytes(range(256)), "optimizer.bin": b"\x00" * 40, "empty": b""}
STATE = {"loss": 0.1 + 0.2, "rng": [2**100 + 1, -1], "text": "ü", "none": None}


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def saved(folder: Path, steps: list[int], keep: int = 9) -> None:
    for step in steps:
        save(folder, step, {"blob": b"content %d" % step}, {"step": step}, keep=keep)


def newest_step(folder: Path, best: bool = False) -> int | None:
    checkpoint = newest(folder, best)[0]
    return None if checkpoint is None else checkpoint.step


def test_a_checkpoint_comes_back_exactly(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert save(folder, 12, BLOBS, STATE) == folder / "step-00000012"
    checkpoint, warnings = newest(folder)
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.best, checkpoint.state, warnings) == (12, False, STATE, [])
    assert {name: checkpoint.read(name) for name in checkpoint.digests} == BLOBS
    with pytest.raises(KeyError):
        checkpoint.read("other")


def test_the_seal_is_what_sha256sum_reads(tmp_path: Path) -> None:
    directory = save(tmp_path / "checkpoints", 1, BLOBS, STATE)
    done = subprocess.run(["sha256sum", "-c", "checkpoint.sha256"], cwd=directory, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "checkpoint.json: OK\n")


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path / "checkpoints") == (None, [])


def test_every_single_bit_counts(tmp_path: Path) -> None:
    """Each bit of a small checkpoint, flipped alone: all found, and the one before is used."""
    folder = tmp_path / "checkpoints"
    save(folder, 1, BLOBS, STATE)
    directory = save(folder, 2, {"blob": b"\x00weights"}, {"loss": 0.25})
    found = flips = 0
    for path in sorted(directory.iterdir()):
        whole = path.read_bytes()
        for bit in range(8 * len(whole)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(damaged)
            flips += 1
            found += bool(checkpoints.verify(directory)[1])
        path.write_bytes(whole)
    assert flips > 2000
    assert found == flips
    assert newest_step(folder) == 2


def test_random_damage_falls_back_to_the_checkpoint_before(tmp_path: Path) -> None:
    """300 random flips, truncations, missing files and zero pages: 300 times step 1, with the damaged file named."""
    chance = random.Random(7)
    folder = tmp_path / "checkpoints"
    save(folder, 1, BLOBS, STATE)
    directory = save(folder, 2, {"blob": chance.randbytes(9000)}, STATE)
    for trial in range(300):
        path = chance.choice(sorted(directory.iterdir()))
        whole = path.read_bytes()
        damaged = bytearray(whole)
        kind = ("flip", "truncate", "zeros", "missing")[trial % 4]
        if kind == "flip":
            damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        elif kind == "truncate":
            del damaged[chance.randrange(len(whole)) :]
        elif kind == "zeros":
            start = chance.randrange(len(whole))
            damaged[start : start + 4096] = bytes(len(damaged[start : start + 4096]))
        path.write_bytes(damaged) if kind != "missing" else path.unlink()
        checkpoint, warnings = newest(folder)
        if bytes(damaged) == whole and kind == "zeros":
            assert checkpoint is not None and checkpoint.step == 2
        else:
            assert checkpoint is not None and checkpoint.step == 1, (kind, path)
            assert "expected" in warnings[0] and "found" in warnings[0]
            assert str(path if path.name != "checkpoint.sha256" or kind == "missing" else directory) in warnings[0]
        path.write_bytes(whole)


def test_damage_is_described_by_file_expected_and_found(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    directory = save(folder, 1, {"a": b"1234", "b": b"5678", "c": b"9"}, {})
    (directory / "a").write_bytes(b"123")
    (directory / "b").write_bytes(b"5679")
    (directory / "c").unlink()
    checkpoint, warnings = newest(folder)
    assert checkpoint is None
    assert warnings[0] == f"{directory}/a: expected 4 bytes, found 3"
    assert warnings[1].startswith(f"{directory}/b: expected sha256 f8638b979b2f4f793ddb6dbd197e0ee25a7a6ea32b0ae22f")
    assert warnings[2] == f"{directory}/c: expected 1 bytes, found none that can be read (No such file or directory)"


def test_bytes_that_change_after_loading_are_refused(tmp_path: Path) -> None:
    directory = save(tmp_path / "checkpoints", 1, {"a": b"1234"}, {})
    checkpoint = newest(tmp_path / "checkpoints")[0]
    (directory / "a").write_bytes(b"1235")
    assert checkpoint is not None
    with pytest.raises(StorageError, match=r"expected sha256 03ac\w+, found"):
        checkpoint.read("a")


def test_the_newest_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    saved(folder, [1, 2, 3, 4], keep=2)
    assert names(folder) == ["step-00000003", "step-00000004"]
    saved(folder, [5], keep=1)
    assert names(folder) == ["step-00000005"]


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step, best in ((1, True), (2, False), (3, True), (4, False), (5, False)):
        save(folder, step, BLOBS, STATE, keep=1, best=best)
    assert names(folder) == ["step-00000003-best", "step-00000005"]
    assert (newest_step(folder), newest_step(folder, best=True)) == (5, 3)


def test_a_best_snapshot_is_not_continued_from_and_removes_no_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    saved(folder, [1, 2])
    save(folder, 3, {"weights": b"3"}, {"dev": 0.5}, keep=1, best=True)
    assert names(folder) == ["step-00000001", "step-00000002", "step-00000003-best"]
    assert (newest_step(folder), newest_step(folder, best=True)) == (2, 3)


def test_every_checkpoint_keeps_its_own_best(tmp_path: Path) -> None:
    """Best at 1, 3, 5; checkpoints at 2 and 4: 2 needs the best of 1, 4 that of 3; with 6 in place of 2, 1 goes."""
    folder = tmp_path / "checkpoints"
    for step in range(1, 6):
        save(folder, step, BLOBS, STATE, keep=2, best=step % 2 == 1)
    left = ["step-00000001-best", "step-00000002", "step-00000003-best", "step-00000004", "step-00000005-best"]
    assert names(folder) == left
    save(folder, 6, BLOBS, STATE, keep=2)
    assert names(folder) == [*left[2:], "step-00000006"]
    checkpoints.drop_best_after(folder, 4)
    assert names(folder) == ["step-00000003-best", "step-00000004", "step-00000006"]


def test_without_a_best_there_is_none(tmp_path: Path) -> None:
    saved(tmp_path / "checkpoints", [1])
    assert newest(tmp_path / "checkpoints", best=True) == (None, [])


def test_a_step_saved_again_replaces_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    save(folder, 3, {"a": b"first"}, {}, keep=2)
    save(folder, 3, {"a": b"second"}, {}, keep=2)
    save(folder, 3, {"a": b"third"}, {}, keep=2)
    checkpoint = newest(folder)[0]
    assert checkpoint is not None and checkpoint.read("a") == b"third"
    assert names(folder) == ["step-00000003.2"]


def test_one_step_as_best_and_as_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    save(folder, 3, {"a": b"first"}, {}, best=True)
    save(folder, 3, {"a": b"second"}, {})
    save(folder, 3, {"a": b"third"}, {}, best=True)
    assert names(folder) == ["step-00000003", "step-00000003.1-best"]
    assert (newest_step(folder), newest_step(folder, best=True)) == (3, 3)


def test_later_checkpoints_of_a_given_up_continuation_go(tmp_path: Path) -> None:
    """Step 6 is damaged, so the run resumed from 4; when it saves 5, the damaged one is removed."""
    folder = tmp_path / "checkpoints"
    saved(folder, [4, 6])
    (folder / "step-00000006" / "blob").unlink()
    assert (newest_step(folder), len(newest(folder)[1])) == (4, 1)
    saved(folder, [5])
    assert names(folder) == ["step-00000004", "step-00000005"]
    assert newest(folder)[1] == []


def test_nothing_is_pruned_before_the_new_one_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoints"
    saved(folder, [1])
    monkeypatch.setattr(checkpoints, "verify", lambda directory: ({}, ["blob: expected 1, found 2"]))
    with pytest.raises(StorageError, match="other bytes than were written: blob: expected 1, found 2") as caught:
        saved(folder, [2], keep=1)
    assert caught.value.errno == errno.EIO
    assert names(folder) == ["step-00000001"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/b", ".hidden", "checkpoint.json", "checkpoint.sha256", "a\x00"]
)
def test_names_that_leave_the_directory_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        save(tmp_path / "checkpoints", 1, {name: b""}, {})
    assert not (tmp_path / "checkpoints").exists()


def test_a_sealed_index_that_points_outside_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    directory = save(folder, 1, {"a": b"1234"}, {})
    (folder / "a").write_bytes(b"1234")
    index = json.loads((directory / "checkpoint.json").read_text())
    index["blobs"] = {"../a": index["blobs"]["a"]}
    content = json.dumps(index).encode()
    (directory / "checkpoint.json").write_bytes(content)
    (directory / "checkpoint.sha256").write_bytes(checkpoints._seal(content))
    checkpoint, warnings = newest(folder)
    assert checkpoint is None
    assert warnings == [f"{directory}/checkpoint.json: '../a' is not the name of a file in a checkpoint"]


@pytest.mark.parametrize(
    ("state", "error"), [({"a": (1,)}, TypeError), ({"a": float("nan")}, SelfCheckError), ({"a": {1: 2}}, TypeError)]
)
def test_a_state_that_would_not_come_back_is_refused(
    tmp_path: Path, state: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error, match="checkpoint of step 1"):
        save(tmp_path / "checkpoints", 1, {}, state)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (1, 0), (True, 2), (1.0, 2)])
def test_bad_step_and_keep_are_refused(tmp_path: Path, step: int, keep: int) -> None:
    with pytest.raises(ValueError, match="step >= 0 and keep >= 1"):
        save(tmp_path / "checkpoints", step, {}, {}, keep=keep)

"""A full disk is exit 74 with the file's name, wherever it fills: while libraries write, and on standard output."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smolt.runs import StorageError
from smolt.runs.storage import whole_directory
from tests.reliability.scenes import scene_recipe

FULL = Path("/dev/full")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_library_that_tells_of_the_disk_in_words(tmp_path: Path, number: int) -> None:
    """safetensors and tokenizers raise errors of their own, with the system's number in the text."""
    with pytest.raises(StorageError) as told, whole_directory(tmp_path / "model"):
        raise Exception(f"I/O error: {os.strerror(number)} (os error {number})")
    assert (told.value.errno, told.value.filename) == (number, str(tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_libraries_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError), whole_directory(tmp_path / "model"):
        raise KeyError("os error")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["recipe", "list"], ["recipe", "fields"], ["recipe", "list", "--json"]])
def test_standard_output_on_a_full_disk(arguments: list[str]) -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "smolt", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 74
    assert done.stderr.endswith("error: standard output: No space left on device\n")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_standard_error_on_a_full_disk_ends_nothing() -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "smolt", "recipe", "list"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "quickstart" in done.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 88 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=88k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("file systems can be mounted by root alone")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.skipif(not Path("/bin/mount").exists(), reason="this system has no mount")
def test_a_disk_that_fills_while_the_model_is_written(inputs: Path, tmp_path: Path, small_disk: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({**scene_recipe("sft-lora", inputs), "save": {"every": 0}}))
    command = [sys.executable, "-m", "smolt", "sft", str(recipe), "--out", str(small_disk / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 74, done.stderr
    assert "Traceback" not in done.stderr
    assert str(small_disk / "run") in done.stderr

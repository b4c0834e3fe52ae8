"""A full disk is exit 74 with the file's name, wherever it fills: while libraries write, and on standard output."""

import errno
import faulthandler
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from smolt.runs import StorageError, storage
from smolt.runs.storage import whole_directory
from tests.reliability.conftest import Uninterrupted
from tests.reliability.scenes import open_scene, scene_recipe
from tests.reliability.test_command_kills import STUDY
from tests.reliability.test_interrupts import command
from tests.reliability.traces import traces
from tests.soak import amount, tell

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


PAGE = 4096


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft-lora", "grpo-full", "reward-lora"])
def test_a_disk_that_fills_at_any_page(
    name: str,
    server: ForkServerContext,
    inputs: Path,
    tmp_path: Path,
    small_disk: Path,
    uninterrupted: Uninterrupted,
) -> None:
    """The disk holds so many pages, then more: exit 74 with the path, and the same command ends in the same bytes."""
    recipe, told, pages, full = tmp_path / "recipe.json", tmp_path / "told", 1, 0
    recipe.write_text(json.dumps(scene_recipe(name, inputs)))
    while True:
        resize(small_disk, pages * PAGE)
        out = small_disk / "run"
        process = server.Process(target=command, args=([name.split("-")[0], str(recipe), "--out", str(out)], told))
        process.start()
        process.join(timeout=120)
        if process.exitcode == 0:
            break
        assert process.exitcode == 74, (pages, told.read_text())
        assert "Traceback" not in told.read_text()
        assert str(small_disk) in told.read_text()
        resize(small_disk, 64 * 2**20)
        open_scene(name, inputs, out).finish()
        assert traces(out) == uninterrupted(name, save__every=1)
        shutil.rmtree(out)
        full += 1
        pages += amount(8, 1)
    tell("a full disk: 74, the path, and the same bytes afterwards", f"{name}, page by page", disks=full, differences=0)


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


CHANGING = ("write", "fsync", "mkdir", "rename", "ftruncate")
REMOVING = ("unlink", "rmdir")


def filled_at_every_write(arguments: list[str], folder: Path, every: int) -> None:
    """A command that lets a child go at each of its writes, for which the disk takes no change from there on.

    It may not even remove files: its parent goes on in the same directory.
    What the children come to stands in `folder`: one line each in `children` (exit status, what they told), as JSON.
    """
    full, count = False, 0

    def breaking(name: str) -> Any:
        original = getattr(os, name)

        def call(*given: Any, **named: Any) -> Any:
            nonlocal full, count
            count += name in CHANGING
            if not full and name in CHANGING and count % every == 0:
                sys.stdout.flush()
                sys.stderr.flush()
                child = os.fork()
                if child:
                    _, status = os.waitpid(child, 0)
                    text = (folder / "told").read_text(errors="replace")
                    row = {"code": os.waitstatus_to_exitcode(status), "at": f"{name} {count}", "told": text}
                    with (folder / "children").open("a") as file:
                        file.write(json.dumps(row) + "\n")
                else:
                    full = True
                    kept = {**vars(shutil), "rmtree": lambda *given, **named: None}
                    vars(storage)["shutil"] = SimpleNamespace(**kept)
                    faulthandler.cancel_dump_traceback_later = lambda: None  # its thread did not come along
                    descriptor = os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                    os.dup2(descriptor, 1)
                    os.dup2(descriptor, 2)
            if full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*given, **named)

        return call

    broken = {name: breaking(name) for name in CHANGING + REMOVING}
    vars(storage)["os"] = SimpleNamespace(**{**vars(os), **broken})
    command(arguments, folder / "own")


@pytest.mark.slow
def test_a_study_whose_disk_fills_at_any_write(server: ForkServerContext, tmp_path: Path) -> None:
    """Every child ends with 74, tells the file, and no traceback."""
    every = amount(10, 1)
    arguments = [*STUDY, "--out", str(tmp_path / "study")]
    process = server.Process(target=filled_at_every_write, args=(arguments, tmp_path, every))
    process.start()
    process.join(timeout=3600)
    assert process.exitcode == 0, (tmp_path / "own").read_text()
    rows = [json.loads(line) for line in (tmp_path / "children").read_text().splitlines()]
    for row in rows:
        assert row["code"] == 74, row
        assert "Traceback" not in row["told"], row
        assert str(tmp_path / "study") in row["told"], row
        assert "No space left on device" in row["told"], row
    tell("a full disk: 74, the path, and no traceback", "study smoke, write by write", writes=len(rows), silent=0)


@pytest.mark.skipif(not Path("/bin/mount").exists(), reason="this system has no mount")
def test_a_disk_that_fills_while_the_model_is_written(
    server: ForkServerContext, inputs: Path, tmp_path: Path, small_disk: Path
) -> None:
    recipe, told = tmp_path / "recipe.json", tmp_path / "told"
    recipe.write_text(json.dumps({**scene_recipe("sft-lora", inputs), "save": {"every": 0}}))
    arguments = ["sft", str(recipe), "--out", str(small_disk / "run")]
    process = server.Process(target=command, args=(arguments, told))
    process.start()
    process.join(timeout=300)
    assert process.exitcode == 74, told.read_text()
    assert "Traceback" not in told.read_text()
    assert str(small_disk / "run") in told.read_text()

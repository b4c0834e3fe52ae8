"""Whatever moment a process dies, the power goes or the disk fails: the old or the new checkpoint, whole.

The scene: a run with a checkpoint of step 1 is continued, logs step 2, saves it as best and as its only checkpoint (so
that step 1 is pruned), and completes.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smolt.errors import UserError
from smolt.runs import Run, StorageError, storage
from tests.disk import Crash, Disk, Node, power_cuts

MANIFEST = {"recipe": {"stage": "sft"}, "data": None, "model": None, "renderer": None}
BLOBS = {
    step: {"adapter.safetensors": b"weights %d " % step * 9, "optimizer": b"moments %d" % step} for step in (1, 2, 3)
}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    directory = tmp_path / "scene"
    with Run.open(directory, manifest=MANIFEST) as run:
        update(run, 1)
    return directory


def update(run: Run, step: int) -> None:
    run.log({"step": step, "loss": 1 / step})
    if step > 1:  # so that samples.jsonl begins after a checkpoint
        run.sample({"step": step, "text": "answer"})
    run.flush()
    run.save_checkpoint(step, {"weights": b"best %d" % step}, {}, best=True)
    run.save_checkpoint(step, BLOBS[step], {"step": step}, keep=1)


def work(directory: Path, saved: Callable[[], None] = lambda: None) -> None:
    """From the checkpoint that is there to the end of the scene; `saved` is called after each save."""
    with Run.open(directory, manifest=MANIFEST) as run:
        checkpoint = run.load_checkpoint()
        for step in range(1 if checkpoint is None else checkpoint.step + 1, 3):
            update(run, step)
            saved()
        run.complete({"loss": 0.5})


def check(directory: Path, first: int = 1) -> int:
    """Open what is left, check that it is a whole old or new state, finish the scene; returns the step it was at."""
    with Run.open(directory, manifest=MANIFEST) as run:
        status = run.status
        checkpoint = run.load_checkpoint()
        assert run.warnings == []
        step = 0 if checkpoint is None else checkpoint.step
        assert step in range(first, 3)
        if checkpoint is not None:
            assert checkpoint.state == {"step": step}
            assert {name: checkpoint.read(name) for name in checkpoint.digests} == BLOBS[step]
        best = run.best_checkpoint()
        assert (best and best.read("weights")) == (b"best %d" % step if checkpoint else None)
        for name, begin in (("metrics.jsonl", 1), ("samples.jsonl", 2)):
            path = directory / name
            lines = path.read_text().splitlines() if path.exists() else []
            assert [json.loads(line)["step"] for line in lines] == list(range(begin, step + 1))
        assert list(directory.rglob(".*")) == []
        assert status == "resumable" if step == 1 else status in ("new", "resumable", "complete")
    work(directory)
    with Run.open(directory, manifest=MANIFEST) as run:
        assert run.result == {"loss": 0.5}
        left = set(os.listdir(directory / "checkpoints"))
        assert left - {"step-00000001", "step-00000001-best"} == {"step-00000002", "step-00000002-best"}
    return step


def breaking(
    monkeypatch: pytest.MonkeyPatch, disk: Disk, directory: Path, saved: Callable[[], None] = lambda: None
) -> bool:
    """Run the scene on a breaking disk; whether it broke."""
    with monkeypatch.context() as broken:
        broken.setattr(storage, "os", disk.namespace())
        try:
            work(directory, saved)
        except (Crash, StorageError):
            return True
    return False


def copies(scene: Path) -> Iterator[tuple[int, Path]]:
    for number in range(1000):
        directory = scene.parent / f"{number}"
        shutil.copytree(scene, directory)
        yield number, directory


def test_a_process_killed_at_any_operation(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old state for a while, then the new one, never back; at least 35 operations, each a crash of its own."""
    steps = []
    for number, directory in copies(scene):
        if not breaking(monkeypatch, Disk(break_at=number), directory):
            break
        steps.append(check(directory))
    assert len(steps) >= 35
    assert steps == sorted(steps)
    assert set(steps) == {1, 2}


def test_a_process_killed_at_any_operation_of_the_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same from an empty directory: nothing, then step 1, then step 2."""
    (tmp_path / "empty").mkdir()
    steps = []
    for number, directory in copies(tmp_path / "empty"):
        if not breaking(monkeypatch, Disk(break_at=number), directory):
            break
        steps.append(check(directory, first=0))
    assert len(steps) >= 60
    assert steps == sorted(steps)
    assert set(steps) == {0, 1, 2}


def test_a_power_cut_after_any_operation(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state the model of the disk allows: 0 unsound, 0 older than the last save that returned; both occur."""
    steps = [check(directory, first) for first, directory in power_cut(scene, monkeypatch, synced=True)]
    assert len(steps) >= 90
    assert set(steps) == {1, 2}


def test_a_power_cut_after_any_operation_of_the_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    steps = [check(directory, first) for first, directory in power_cut(tmp_path / "empty", monkeypatch, synced=True)]
    assert len(steps) >= 150
    assert set(steps) == {0, 1, 2}


def power_cut(scene: Path, monkeypatch: pytest.MonkeyPatch, synced: bool) -> Iterator[tuple[int, Path]]:
    """A directory for each state a power cut may leave of the scene, with the step saved before it."""
    before = Node.of(scene)
    disk = Disk()
    saves: list[int] = []
    first = int((scene / "checkpoints").exists())
    assert not breaking(monkeypatch, disk, scene, lambda: saves.append(len(disk.operations)))
    operations = [operation for operation in disk.operations if synced or operation.kind != "sync"]
    for number, (done, state) in enumerate(power_cuts(before, scene, operations)):
        directory = scene.parent / f"cut-{number}"
        directory.mkdir()
        state.materialise(directory)
        yield first + (sum(done >= count for count in saves) if synced else 0), directory


def test_the_power_model_catches_a_writer_that_does_not_sync(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the fsyncs some of the states are unsound."""
    unsound = 0
    for first, directory in power_cut(scene, monkeypatch, synced=False):
        try:
            check(directory, first)
        except (AssertionError, StorageError, UserError):
            unsound += 1
        if unsound == 50:
            return
    pytest.fail(f"{unsound} unsound states, expected at least 50")


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_operation(
    scene: Path, monkeypatch: pytest.MonkeyPatch, error: int, lasting: bool
) -> None:
    """Error 74 with the system's errno each time; after space is freed the same command comes to the same end."""
    failures = 0
    for number, directory in copies(scene):
        disk = Disk(break_at=number, error=error, lasting=lasting)
        with monkeypatch.context() as broken:
            broken.setattr(storage, "os", disk.namespace())
            try:
                work(directory)
            except StorageError as caught:
                failures += 1
                assert (caught.errno, caught.exit_code) == (error, 74)
        if disk.count <= number:
            break
        check(directory)
    assert failures >= 35

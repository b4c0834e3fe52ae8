"""A training that was interrupted, however and whenever, ends in the same bytes as one that was not."""

import errno
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from smolt.errors import SelfCheckError, UserError
from smolt.runs import Interrupts, Run, StorageError, checkpoints
from smolt.runs.identity import read_manifest, write_manifest
from smolt.runs.locks import LOCK
from smolt.training.stage import Interrupted, Training, drive
from tests.reliability.conftest import Uninterrupted
from tests.reliability.scenes import SCENES, UPDATES, open_scene
from tests.reliability.traces import traces

WEIGHTS, MOMENTS = "weights.safetensors", "optimizer.safetensors"


def stamps(out: Path) -> dict[Path, tuple[int, bytes]]:
    """When each file was written, and what; but the lock, which is taken and given back."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != LOCK]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def leave_after(name: str, inputs: Path, out: Path, updates: int, **changes: Any) -> None:
    """Start or continue a scene and leave it after some more updates, as an exception in the caller's loop would."""
    training = open_scene(name, inputs, out, **changes)
    for _ in range(updates):
        next(training)
    training.close()


# --- leaving the iteration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "lefts"), [(1, (1, 2, 3)), (2, (1,))])
@pytest.mark.parametrize("name", SCENES)
def test_left_after_any_update(
    name: str, every: int, lefts: tuple[int, ...], inputs: Path, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    """Left after k updates, then everything built anew; with save.every 2 and k 1 that starts over."""
    expected = uninterrupted(name, save__every=every)
    assert len(expected["metrics.jsonl"]) == UPDATES
    for left in lefts:
        out = tmp_path / str(left)
        leave_after(name, inputs, out, left, save__every=every)
        assert not (out / "result.json").exists()
        open_scene(name, inputs, out, save__every=every).finish()
        assert traces(out) == expected


@pytest.mark.parametrize("name", ["sft-lora", "dpo-full", "ppo-lora"])
def test_left_after_every_update(name: str, inputs: Path, uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    """One update at a time, each by a training of its own; the fourth finds all done and completes."""
    for _ in range(UPDATES):
        leave_after(name, inputs, tmp_path / "run", 1)
    open_scene(name, inputs, tmp_path / "run").finish()
    assert traces(tmp_path / "run") == uninterrupted(name, save__every=1)


@pytest.mark.parametrize("name", SCENES)
def test_left_while_the_last_checkpoint_is_written(
    name: str, inputs: Path, uninterrupted: Uninterrupted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest holds the forecast of that update by then, and its row must tell the forecast's advice again."""
    save = Run.save_checkpoint

    def full(run: Run, step: int, *given: Any, **named: Any) -> None:
        if step == UPDATES:
            raise StorageError(errno.ENOSPC, "full", "weights.safetensors")
        save(run, step, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_checkpoint", full)
        with pytest.raises(StorageError):
            open_scene(name, inputs, tmp_path / "run").finish()
    open_scene(name, inputs, tmp_path / "run").finish()
    assert traces(tmp_path / "run") == uninterrupted(name, save__every=1)


@pytest.mark.parametrize("name", ["reward-lora", "ppo-full", "grpo-lora"])
def test_saving_on_the_way_changes_nothing(
    name: str, inputs: Path, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    """Checkpoints after update 1, and twice after update 2, in a run that continues: the same end."""
    training = open_scene(name, inputs, tmp_path / "run", save__every=0)
    for metrics in training:
        for _ in range({1: 1, 2: 2}.get(metrics["step"], 0)):
            training.save()
    training.finish()
    assert traces(tmp_path / "run") == uninterrupted(name, save__every=0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("name", ["dpo-full", "ppo-lora"])
def test_a_signal_saves_after_the_update(
    name: str, number: int, code: int, inputs: Path, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    """With save.every 0: update 2 is finished and saved, the exit code is the signal's, the directory is free."""

    def show(training: Training, metrics: dict[str, Any]) -> None:
        if metrics["step"] == 2:
            os.kill(os.getpid(), number)

    training = open_scene(name, inputs, tmp_path / "run", save__every=0)
    with Interrupts() as interrupts, pytest.raises(Interrupted) as stop:
        drive(training, interrupts, show)
    assert stop.value.exit_code == code
    saved, _ = checkpoints.newest(tmp_path / "run" / "checkpoints")
    assert saved is not None
    assert saved.step == 2
    open_scene(name, inputs, tmp_path / "run", save__every=0).finish()
    assert traces(tmp_path / "run") == uninterrupted(name, save__every=0)


@pytest.mark.parametrize("name", ["sft-full", "reward-lora", "ppo-lora"])
def test_a_finished_run_is_left_as_it_is(name: str, inputs: Path, tmp_path: Path) -> None:
    """Opened again it says so, gives the same result and no model, and writes nothing."""
    out = tmp_path / "run"
    open_scene(name, inputs, out).finish()
    before = stamps(out)
    training = open_scene(name, inputs, out)
    assert training.complete
    assert list(training) == []
    result = training.finish()
    assert (result.model, result.path) == (None, out)
    assert result.metrics == json.loads((out / "result.json").read_text())
    assert stamps(out) == before


# --- what ends a run early --------------------------------------------------------------------------------------------

RESTLESS = {"optim": {"lr": 0.5}, "watch": {"every": 1, "patience": 2}, "budget__updates": 12}


@pytest.fixture(scope="session", params=["sft-full", "sft-lora"])
def restless(
    request: pytest.FixtureRequest, inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """A scene whose dev loss soon rises, and what it left."""
    out = tmp_path_factory.mktemp("restless") / "run"
    open_scene(request.param, inputs, out, **RESTLESS).finish()
    return request.param, traces(out)


def test_best_snapshot_and_patience(restless: tuple[str, dict[str, Any]], inputs: Path, tmp_path: Path) -> None:
    """Two measurements after the best one the run stops, and its model is the best one; left at any moment, too."""
    name, expected = restless
    updates, chosen = expected["result"]["updates"], expected["result"]["chosen_update"]
    assert (updates < 12, updates - chosen) == (True, 2)
    assert "has not improved in 2 measurements" in expected["metrics.jsonl"][-1]["stop"]
    for left in range(1, updates + 1):
        leave_after(name, inputs, tmp_path / str(left), left, **RESTLESS)
        open_scene(name, inputs, tmp_path / str(left), **RESTLESS).finish()
        assert traces(tmp_path / str(left)) == expected


def test_the_scenes_exercise_what_they_should(uninterrupted: Uninterrupted) -> None:
    """PPO's KL coefficient moves and its inner epochs end early once; GRPO takes two steps a rollout; pairs recur."""
    for weights in ("lora", "full"):
        metrics = uninterrupted(f"ppo-{weights}", save__every=1)["metrics.jsonl"]
        assert len({row["kl_coefficient"] for row in metrics}) == UPDATES
    assert any("exceeds 1.5 x kl.stop" in str(row.get("events")) for row in metrics)
    assert [row["optimizer_steps"] for row in uninterrupted("grpo-full", save__every=1)["metrics.jsonl"]] == [2] * 3
    assert uninterrupted("dpo-full", save__every=1)["metrics.jsonl"][-1]["epoch"] > 1


# --- nothing in a checkpoint is there for nothing ---------------------------------------------------------------------


def tampered(blob: bytes) -> bytes:
    """The same tensors with zeros in them."""
    return save_tensors({name: torch.zeros_like(value) for name, value in load_tensors(blob).items()})


def alter(folder: Path, change: Callable[[dict[str, bytes], dict[str, Any]], object]) -> None:
    """Write the newest checkpoint again, sound, with something in it changed."""
    found, _ = checkpoints.newest(folder)
    assert found is not None
    blobs, state = {name: found.read(name) for name in found.digests}, found.state
    change(blobs, state)
    checkpoints.save(folder, found.step, blobs, state)


def drop(part: str, blobs: dict[str, bytes], state: dict[str, Any]) -> None:
    (state if part in state else blobs).pop(part)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("weights", lambda blobs, state: blobs.update({WEIGHTS: tampered(blobs[WEIGHTS])})),
        ("moments", lambda blobs, state: blobs.update({MOMENTS: tampered(blobs[MOMENTS])})),
        ("KL coefficient", lambda blobs, state: state["stream"].update(coefficient=0.3)),
        ("steps", lambda blobs, state: state["learner"]["steps"].update(policy=-9)),
        ("unwitnessed", lambda blobs, state: state["learner"].update(unwitnessed=["policy/x"])),
    ],
)
@pytest.mark.parametrize("name", ["ppo-lora"])
def test_an_altered_checkpoint_ends_elsewhere(
    name: str, part: str, change: Any, inputs: Path, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    """The control: these tests see each part of a checkpoint when it is not what it was."""
    leave_after(name, inputs, tmp_path / "run", 2)
    alter(tmp_path / "run" / "checkpoints", change)
    try:
        open_scene(name, inputs, tmp_path / "run").finish()
    except SelfCheckError:  # weights of zeros, or a parameter that was never seen to learn: found even earlier
        return
    assert traces(tmp_path / "run") != uninterrupted(name, save__every=1)


@pytest.mark.parametrize(
    ("part", "left", "change"),
    [
        ("best", -1, lambda blobs, state: state.update(best=None)),
        ("bad", -1, lambda blobs, state: state.update(bad=0)),
        ("ended", 0, lambda blobs, state: state.update(ended=False)),
        ("last", 0, lambda blobs, state: state.update(last={})),
    ],
)
def test_an_altered_memory_of_the_best_ends_elsewhere(
    restless: tuple[str, dict[str, Any]], part: str, left: int, change: Any, inputs: Path, tmp_path: Path
) -> None:
    """As above, at the last checkpoint but one or at the last."""
    name, expected = restless
    leave_after(name, inputs, tmp_path / "run", expected["result"]["updates"] + left, **RESTLESS)
    alter(tmp_path / "run" / "checkpoints", change)
    open_scene(name, inputs, tmp_path / "run", **RESTLESS).finish()
    assert traces(tmp_path / "run") != expected


@pytest.mark.parametrize("name", ["ppo-lora"])
def test_a_missing_part_is_an_error(name: str, inputs: Path, tmp_path: Path) -> None:
    """Each field of the state and each file in turn: never a default in its place."""
    leave_after(name, inputs, tmp_path / "run", 2)
    found, _ = checkpoints.newest(tmp_path / "run" / "checkpoints")
    assert found is not None
    parts = [*found.state, *found.digests]
    assert len(parts) == 9
    for part in parts:
        shutil.copytree(tmp_path / "run", tmp_path / part)
        alter(tmp_path / part / "checkpoints", partial(drop, part))
        with pytest.raises(KeyError, match=part.split(".")[0]):
            open_scene(name, inputs, tmp_path / part).finish()


# --- what a continued run must share with its start -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file", "field"),
    [
        ("sft-lora", "demonstrations.jsonl", "data.data"),
        ("sft-lora", "dev.jsonl", "data.dev.path"),
        ("sft-lora", "model/model.safetensors", "model"),
        ("sft-lora", "model/chat_template.jinja", "renderer"),
        ("grpo-full", "reward.py", "data.reward.parts[0].path"),
    ],
)
def test_other_inputs_are_refused(name: str, file: str, field: str, inputs: Path, tmp_path: Path) -> None:
    """One byte or weight of any input changed between two starts: the message names which, and nothing is written."""
    own = Path(shutil.copytree(inputs, tmp_path / "inputs"))
    leave_after(name, own, tmp_path / "run", 1)
    before = stamps(tmp_path / "run")
    changed = own / file
    if file.endswith(".safetensors"):
        tensors = {key: value + 1e-3 for key, value in load_tensors(changed.read_bytes()).items()}
        changed.write_bytes(save_tensors(tensors, metadata={"format": "pt"}))
    else:
        text = changed.read_text()
        for word, other in (("a tin", "a tip"), ("% 17", "% 18"), ("{% for", "{# #}{% for")):
            text = text.replace(word, other)
        changed.write_text(text)
    with pytest.raises(UserError, match=re.escape(f"{field}: ")):
        open_scene(name, own, tmp_path / "run")
    assert stamps(tmp_path / "run") == before


def test_a_continued_run_keeps_its_threads(inputs: Path, tmp_path: Path) -> None:
    """As many as its start had, whatever this machine or its recipe's null would give now."""
    leave_after("sft-full", inputs, tmp_path / "run", 1)
    write_manifest(tmp_path / "run", {**read_manifest(tmp_path / "run"), "threads": 2})
    training = open_scene("sft-full", inputs, tmp_path / "run")
    try:
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
        training.close()

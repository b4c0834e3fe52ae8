"""`--log`: each update's numbers in TensorBoard, Weights & Biases and Trackio; one that fails ends nothing."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from smolt.errors import UserError
from smolt.runs import trackers
from smolt.runs.inventory import damage
from tests.tiny import tiny_model

RECIPE = """
stage: sft
name: r
model: {path: model, device: cpu, dtype: fp32, threads: 1}
data: d.jsonl
batch: 2
budget: {updates: 3}
"""


INSTALLED = [name for name in ("tensorboard", "wandb", "trackio") if find_spec(name) is not None]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training with every tracker that is installed, as a command of its own."""
    place = tmp_path_factory.mktemp("logged")
    tiny_model(place / "model")
    rows = [{"prompt": f"say {n}", "completion": "ho" * (1 + n)} for n in range(6)]
    (place / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "r.yaml").write_text(RECIPE)
    done = trained(place, *(option for name in INSTALLED for option in ("--log", name)))
    (place / "stdout").write_text(done.stdout)
    (place / "stderr").write_text(done.stderr)
    assert done.returncode == 0, done.stderr
    return place


def trained(place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "TRACKIO_"))}
    command = [sys.executable, "-m", "smolt", "sft", "r.yaml", "--out", "run", *options]
    environment |= {"HF_HOME": "home", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment, cwd=place)


def losses(place: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (place / "run/metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def test_what_is_printed_is_smolts_own(logged: Path) -> None:
    """No word of a tracker; the run is whole with what they wrote into its directory."""
    assert (logged / "stdout").read_text().startswith("sft: complete")
    said = (logged / "stdout").read_text() + (logged / "stderr").read_text()
    assert [word for word in ("wandb", "rackio", "ensorboard") if word in said] == []
    assert damage(logged / "run") == []


def test_tensorboard(logged: Path) -> None:
    """Scalars under the names of metrics.jsonl, one a step, inside the run's directory."""
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reading.EventAccumulator(str(logged / "run/tensorboard"))
    found.Reload()
    seen = [(event.step, event.value) for event in found.Scalars("loss")]
    assert [step for step, _ in seen] == [1, 2, 3]
    assert [value for _, value in seen] == pytest.approx([loss for _, loss in losses(logged)], rel=1e-6)


def test_weights_and_biases_offline(logged: Path) -> None:
    """Without WANDB_MODE nothing is sent: an offline run lies in the run's directory."""
    pytest.importorskip("wandb")
    (file,) = (logged / "run/wandb").glob("offline-run-*/run-*.wandb")
    assert b"gradient_norm" in file.read_bytes()


def test_trackio(logged: Path) -> None:
    """Rows of its database, in Hugging Face's home."""
    pytest.importorskip("trackio")
    (file,) = (logged / "home/trackio").glob("smolt*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("select step, metrics from metrics order by step").fetchall()
    assert [(step, json.loads(found)["loss"]) for step, found in rows] == losses(logged)


def test_an_unknown_tracker_and_one_that_is_not_there(logged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named before anything is trained."""
    done = trained(logged, "--out", "other", "--log", "tensorbord")
    assert done.returncode == 2
    assert "--log: 'tensorbord' is no tracker; there are tensorboard, wandb" in done.stderr
    assert not (logged / "other").exists()
    monkeypatch.setitem(trackers.PACKAGES, "wandb", "no_such_package")
    with pytest.raises(UserError, match="--log: wandb is not installed; pip install no_such_package"):
        trackers.Trackers(["wandb"])


def test_a_tracker_that_fails_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Its fault is said once; the other one goes on; sections of a study are runs of their own."""
    said: list[Any] = []

    def begun(name: str, training: Any) -> Any:
        if name == "aim":
            raise ConnectionError("refused")

        def log(values: dict[str, float], step: int) -> None:
            if name == "wandb":
                raise ConnectionError("the server is gone")
            said.append((training.name, step, values))

        return SimpleNamespace(log=log, finish=lambda: said.append((training.name, "finished")))

    monkeypatch.setattr(trackers, "begun", begun)
    monkeypatch.setattr(trackers, "PACKAGES", dict.fromkeys(("wandb", "tensorboard", "aim"), "json"))
    sent = trackers.Trackers(["wandb", "tensorboard", "aim", "tensorboard"])
    first, second = (SimpleNamespace(name=name, out=tmp_path / name) for name in ("sft", "dpo"))
    with caplog.at_level(logging.WARNING, logger="smolt"):
        sent.show(first, {})
        sent.show(first, {"step": 1, "loss": 0.5, "events": ["x"], "flag": True, "reward": None})
        sent.show(first, {"step": 2, "loss": 0.25})
        sent.show(second, {"step": 1, "loss": 1})
        sent.close()
    assert said == [
        ("sft", 1, {"loss": 0.5}),
        ("sft", 2, {"loss": 0.25}),
        ("sft", "finished"),
        ("dpo", 1, {"loss": 1.0}),
        ("dpo", "finished"),
    ]
    gone = [message for message in caplog.messages if message.startswith("wandb: the server is gone")]
    assert len(gone) == 2 and sum(message.startswith("aim: refused") for message in caplog.messages) == 2

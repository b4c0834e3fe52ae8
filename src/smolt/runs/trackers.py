"""A training's metrics in a tracker besides metrics.jsonl: TensorBoard, Weights & Biases, Trackio, MLflow and others.

accelerate's trackers do the work. One whose package is missing is an error before anything is trained; one that fails
later is said once and left, and the training goes on. Weights & Biases stays offline unless WANDB_MODE says otherwise.
"""

import contextlib
import importlib.util
import io
import logging
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from smolt import processes
from smolt.errors import UserError
from smolt.runs import jsontext
from smolt.runs.identity import MANIFEST

LOG = logging.getLogger(__name__)
PROJECT = "smolt"
PACKAGES = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "trackio": "trackio",
    "mlflow": "mlflow",
    "aim": "aim",
    "comet_ml": "comet_ml",
    "clearml": "clearml",
    "dvclive": "dvclive",
    "swanlab": "swanlab",
}
"""Name of a tracker -> the module that it needs."""


class Tracked(Protocol):
    """What is asked of a training."""

    @property
    def name(self) -> str:
        """Its name: in a study the section's."""

    @property
    def out(self) -> Path:
        """Its run directory."""


class Trackers:
    """Sends each update's numbers on, under their names in metrics.jsonl; a study's sections are runs of their own.

    Args:
        names: of PACKAGES.

    Raises:
        UserError: an unknown name, or a package that is not installed.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(dict.fromkeys(names))
        for name in self.names:
            if name not in PACKAGES:
                raise UserError(f"--log: {name!r} is no tracker; there are {', '.join(PACKAGES)}")
            if importlib.util.find_spec(PACKAGES[name]) is None:
                raise UserError(f"--log: {name} is not installed; pip install {PACKAGES[name]}")
        self._of: Path | None = None
        self._open: dict[str, Any] = {}

    def show(self, training: Tracked, metrics: Mapping[str, Any]) -> None:
        """One update of a training; without metrics it only begins."""
        if not self.names or not metrics or not processes.first():
            return
        if self._of != training.out:
            self.close()
            self._of = training.out
            self._open = {name: made for name in self.names if (made := self._attempt(name, begun, name, training))}
        step = int(metrics["step"])
        numbers = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and name != "step"
        }
        for name, tracker in list(self._open.items()):
            if self._attempt(name, tracker.log, numbers, step=step) is False:
                del self._open[name]

    def close(self) -> None:
        """Everything is written."""
        for name, tracker in self._open.items():
            # Trackio's own `finish` forgets the run too, which would be finished once more at the end of the process.
            self._attempt(name, importlib.import_module(name).finish if name == "trackio" else tracker.finish)
        self._open, self._of = {}, None

    def _attempt(self, name: str, work: Any, *given: Any, **named: Any) -> Any:
        """What another program's client does; False where it failed, which is said and ends nothing."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # stdout is the command's own result
                return work(*given, **named)
        except Exception as error:
            LOG.warning("%s: %s: it gets no more of this training, which goes on", name, error)
            return False


def begun(name: str, training: Tracked) -> Any:
    """A tracker of accelerate that has begun: its run is called as the training's directory is."""
    accelerate, tracking = importlib.import_module("accelerate"), importlib.import_module("accelerate.tracking")
    accelerate.PartialState(cpu=True)
    where, title = training.out.resolve(), f"{training.out.parent.name}/{training.out.name}"
    identity = sha256(str(where).encode()).hexdigest()[:12]
    if name == "wandb":
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_SILENT", "true")
    own: dict[str, dict[str, Any]] = {
        "wandb": {"name": title, "id": identity, "resume": "allow", "dir": str(where)},
        "trackio": {"name": title, "resume": "allow"},
        "mlflow": {"run_name": title},
    }
    kind = tracking.LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        tracker = kind("tensorboard", str(where))
    elif kind.requires_logging_directory:
        tracker = kind(PROJECT, str(where), **own.get(name, {}))
    else:
        tracker = kind(PROJECT, **own.get(name, {}))
    tracker.start()
    if name in ("wandb", "trackio"):
        tracker.store_init_configuration(jsontext.read_object(where / MANIFEST)["recipe"])
    return tracker

"""The inputs of all scenes and what each leaves when nobody disturbs it."""

import multiprocessing
import shutil
from collections.abc import Callable
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.scenes import open_scene, run_scene, write_inputs
from tests.reliability.traces import traces

Uninterrupted = Callable[..., dict[str, Any]]
NAME, CHANGES = "grpo-lora", {"watch__every": 1, "save__every": 1}
"""The run that is harmed."""


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def uninterrupted(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    """What a scene leaves that ran through at once."""

    @cache
    def run(name: str, **changes: Any) -> dict[str, Any]:
        out = tmp_path_factory.mktemp(name) / "run"
        open_scene(name, inputs, out, **changes).finish()
        return traces(out)

    return run


@pytest.fixture(scope="session")
def server(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> ForkServerContext:
    """Processes that begin with smolt imported; one has run already, which starts the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.reliability.scenes", "tests.reliability.test_interrupts"])
    process = context.Process(target=run_scene, args=("sft-lora", inputs, tmp_path_factory.mktemp("first") / "run", {}))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == 0
    return context


@pytest.fixture(scope="session")
def stopped(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three updates that was left after two, with a best snapshot."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    training = open_scene(NAME, inputs, out, **CHANGES)
    next(training)
    next(training)
    training.close()
    return out


@pytest.fixture(scope="session")
def complete(inputs: Path, stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("complete") / "run"
    shutil.copytree(stopped, out)
    open_scene(NAME, inputs, out, **CHANGES).finish()
    return out

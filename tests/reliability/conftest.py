"""The inputs of all scenes and what each leaves when nobody disturbs it."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.scenes import open_scene, write_inputs
from tests.reliability.traces import traces

Uninterrupted = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut here, so nothing waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


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

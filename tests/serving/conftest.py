"""Tiny models and engines over them."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from smolt.models.forward.precision import choose_precision
from smolt.models.roles import Policy
from smolt.models.saving import load_policy
from smolt.serving import Engine
from tests.tiny import Architecture, tiny_model

Models = Callable[[Architecture], Path]
Engines = Callable[..., Engine]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """From an architecture's name to its model directory, with a tokenizer and a ChatML template."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def directory(architecture: Architecture) -> Path:
        return tiny_model(folder / architecture, architecture)

    return directory


@pytest.fixture
def engines(models: Models) -> Iterator[Engines]:
    """From an architecture and an engine's options to an engine with the model "tiny"; all are closed at the end."""
    opened: list[Engine] = []

    def make(architecture: Architecture = "llama", **options: Any) -> Engine:
        opened.append(Engine({"tiny": models(architecture)}, **options))
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()


def policy_of(directory: Path) -> Policy:
    """The same model as a policy, fp32 on the processor."""
    return load_policy(str(directory), choose_precision("cpu", "fp32"))

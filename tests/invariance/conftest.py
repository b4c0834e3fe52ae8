"""Directories of the tiny models, written once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests import tiny_models

Models = Callable[[str], Path]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """From an architecture's name to its model directory."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def directory(architecture: str) -> Path:
        return tiny_models.save(architecture, folder / architecture)

    return directory

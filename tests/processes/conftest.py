"""A server to fork from, the inputs of all scenes, and what each scene leaves on so many processes."""

import multiprocessing
from collections.abc import Callable
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.processes.ranks import STAGES, ended, launched, train
from tests.reliability.scenes import write_inputs

Trained = Callable[[int], Path]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.processes.ranks", "tests.processes.test_sharing"])
    assert ended(launched(context, 1, list)) == [0]  # the server has imported everything from here on
    return context


@pytest.fixture(scope="session")
def trained(server: ForkServerContext, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The directory in which every stage was trained by so many processes."""

    @cache
    def run(count: int) -> Path:
        out = tmp_path_factory.mktemp(f"of-{count}")
        if count == 1:
            train(STAGES, inputs, out)
        else:
            assert ended(launched(server, count, train, STAGES, inputs, out)) == [0] * count
        return out

    return run

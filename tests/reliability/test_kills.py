"""SIGKILL at any moment of a training in a process of its own: continued, it ends in the bytes of one left alone.

The processes are forked from a server that has imported everything, so that a trial takes a second.
"""

import random
import shutil
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.reliability.conftest import Uninterrupted
from tests.reliability.scenes import SCENES, WITH_PRETRAINING, open_scene, run_scene
from tests.reliability.traces import traces
from tests.soak import amount, tell

QUICK_KILLS = 1
KILLS = amount(20, 60)


def killed(server: ForkServerContext, name: str, inputs: Path, out: Path, delay: float) -> bool:
    """Continue a scene in a process and kill that after so many seconds; whether it was still alive."""
    process = server.Process(target=run_scene, args=(name, inputs, out, {}))
    process.start()
    process.join(timeout=delay)
    process.kill()
    process.join()
    assert process.exitcode in (0, -9)
    return process.exitcode == -9


def trial(
    server: ForkServerContext, name: str, inputs: Path, folder: Path, uninterrupted: Uninterrupted, kills: int
) -> int:
    """Kill a scene at random moments, up to three times in one run, until so many met it alive; how often they did."""
    began = time.perf_counter()
    killed(server, name, inputs, folder / "measured", 60)
    duration = time.perf_counter() - began
    assert traces(folder / "measured") == uninterrupted(name, save__every=1)
    draw = random.Random(f"{name} {kills}")
    hit = number = 0
    while hit < kills:
        out, number = folder / str(number), number + 1
        for _ in range(draw.choice((1, 1, 2, 3))):
            hit += killed(server, name, inputs, out, draw.uniform(0.02, duration))
        open_scene(name, inputs, out).finish()
        assert traces(out) == uninterrupted(name, save__every=1)
        shutil.rmtree(out)
    return hit


@pytest.mark.parametrize("name", SCENES)
def test_killed_at_a_random_moment(
    name: str, server: ForkServerContext, inputs: Path, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    trial(server, name, inputs, tmp_path, uninterrupted, QUICK_KILLS)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_PRETRAINING)
def test_killed_at_many_random_moments(
    name: str, server: ForkServerContext, inputs: Path, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    hit = trial(server, name, inputs, tmp_path, uninterrupted, KILLS)
    tell("killed at a random moment, the run ends in the same bytes", name, kills=hit, differences=0)

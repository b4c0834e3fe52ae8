"""SIGKILL at any moment of a training in a process of its own: continued, it ends in the bytes of one left alone.

The processes are forked from a server that has imported everything, so that a trial takes a second.
"""

import random
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.reliability.conftest import Uninterrupted
from tests.reliability.scenes import SCENES, open_scene, run_scene
from tests.reliability.traces import traces

QUICK_KILLS = 1
SLOW_KILLS = 40


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
    """Kill a scene at random moments, up to three times in one run; returns how often it was alive to be killed."""
    began = time.perf_counter()
    killed(server, name, inputs, folder / "measured", 60)
    duration = time.perf_counter() - began
    assert traces(folder / "measured") == uninterrupted(name, save__every=1)
    draw = random.Random(f"{name} {kills}")
    hit = 0
    for number in range(kills):
        out = folder / str(number)
        for _ in range(draw.choice((1, 1, 2, 3))):
            hit += killed(server, name, inputs, out, draw.uniform(0.02, duration))
        open_scene(name, inputs, out).finish()
        assert traces(out) == uninterrupted(name, save__every=1)
    return hit


@pytest.mark.parametrize("name", SCENES)
def test_killed_at_a_random_moment(
    name: str, server: ForkServerContext, inputs: Path, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    trial(server, name, inputs, tmp_path, uninterrupted, QUICK_KILLS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_killed_at_many_random_moments(
    name: str, server: ForkServerContext, inputs: Path, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    """40 runs of a scene; of the kills at least 20 hit it alive."""
    assert trial(server, name, inputs, tmp_path, uninterrupted, SLOW_KILLS) >= SLOW_KILLS // 2

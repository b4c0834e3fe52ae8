"""A long training takes no more memory, files, threads or time for an update than a short one."""

import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from smolt.training.memory.system import resident
from tests.reliability.scenes import open_scene, write_inputs
from tests.soak import amount, tell

UPDATES, SETTLED = amount(200, 1000), 50
ALLOWED = 4 * 2**20  # bytes from update 50 to the last: what the C library may still spread over


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["sft-lora", "dpo-lora", "dpo-full", "ppo-lora", "grpo-lora", "grpo-full"])
def test_updates_leave_nothing_behind(scene: str, tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    training = open_scene(scene, inputs, tmp_path / "run", budget__updates=UPDATES, save__every=0, watch__every=0)
    held, open_files, threads, seconds = [], [], [], []
    before = time.process_time()
    for _ in training:
        now = time.process_time()
        seconds.append(now - before)
        before = now
        held.append(resident())
        open_files.append(len(os.listdir("/proc/self/fd")))
        threads.append(threading.active_count())
    assert len(held) == UPDATES
    assert held[-1] - held[SETTLED] <= ALLOWED
    assert open_files[-1] <= max(open_files[: SETTLED + 1])
    assert threads[-1] <= max(threads[: SETTLED + 1])
    tell(
        "what a long training takes stays as it was",
        scene,
        updates=UPDATES,
        more_MiB=round((held[-1] - held[SETTLED]) / 2**20, 2),
        more_descriptors=open_files[-1] - open_files[SETTLED],
        more_threads=threads[-1] - threads[SETTLED],
        time_of_the_last_fifty_updates=round(pace(seconds[-50:]) / pace(seconds[SETTLED : SETTLED + 50]), 3),
    )


def pace(seconds: list[float]) -> float:
    """Processor time of an update, the median."""
    return statistics.median(seconds)


SHAPES = """
import torch
from smolt.models.forward.precision import choose_precision
from smolt.training.memory.system import resident

choose_precision("cpu", "bf16", 1)
weights = [torch.ones(out, width, dtype=torch.bfloat16) for out, width in ((256, 256), (512, 256), (256, 512))]
held = []
for tokens in range(1, 400):
    for weight in weights:
        torch.nn.functional.linear(torch.ones(tokens, weight.shape[1], dtype=torch.bfloat16), weight)
    held.append(resident())
print((held[-1] - held[199]) / 2**20)
"""


@pytest.mark.slow
def test_new_lengths_keep_no_memory() -> None:
    """600 products of bf16 never seen before, after 600 others: less than 16 MiB more; without the limit 319."""
    done = subprocess.run([sys.executable, "-c", SHAPES], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 16

"""A long training takes no more memory than a short one."""

from pathlib import Path

import pytest

from smolt.training.memory.system import resident
from tests.reliability.scenes import open_scene, write_inputs

UPDATES, SETTLED = 200, 40
ALLOWED = 4 * 2**20  # bytes from update 40 to update 200: what the C library may still spread over


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["dpo-lora", "dpo-full", "grpo-lora", "grpo-full"])
def test_updates_leave_nothing_behind(scene: str, tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    training = open_scene(scene, inputs, tmp_path / "run", budget__updates=UPDATES, save__every=0, watch__every=0)
    held = {metrics["step"]: resident() for metrics in training}
    assert len(held) == UPDATES
    assert held[UPDATES - 1] - held[SETTLED] <= ALLOWED

"""Seconds of a transformers trainer's optimizer steps."""

import time
from typing import Any

from transformers import TrainerCallback


class Stopwatch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """The time at which training began and at which each optimizer step had ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        """Of each optimizer step."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]

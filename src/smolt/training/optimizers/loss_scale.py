"""Loss scaling for fp16 (1710.03740): gradients too small for half precision are computed times a power of two.

The total of a micro-batch is multiplied before its backward pass, and the summed gradients are divided by it together
with the count. A power of two changes no bit of a number that neither overflows nor underflows, so what is learned does
not depend on the scale. bf16 and fp32 have the exponents they need: there the scale is 1 and stays 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

START = 2.0**16
FLOOR = 1.0  # below it a gradient that is not finite is no longer the scale's doing
CEILING = 2.0**24
PATIENCE = 200  # good steps before the scale is doubled


@dataclass
class LossScale:
    """A factor on losses that halves when gradients overflow and doubles after `PATIENCE` good steps.

    Attributes:
        value: the factor, a power of two from `FLOOR` to `CEILING`.
        dynamic: whether it moves; else it stays as it is.
        good: steps since it last moved or a gradient overflowed.
    """

    value: float = 1.0
    dynamic: bool = False
    good: int = 0

    @classmethod
    def for_half(cls) -> "LossScale":
        """Where an fp16 training starts."""
        return cls(START, dynamic=True)

    def overflowed(self) -> str | None:
        """Gradients were not finite: halve, and say so; None where the scale cannot be the cause."""
        if not self.dynamic or self.value <= FLOOR:
            return None
        self.value, self.good = self.value / 2, 0
        return f"gradients overflow fp16; the loss scale is halved to {self.value:g}"

    def stepped(self) -> None:
        """A step was taken."""
        if not self.dynamic:
            return
        self.good += 1
        if self.good >= PATIENCE and self.value < CEILING:
            self.value, self.good = self.value * 2, 0

    def state(self) -> dict[str, Any]:
        """JSON of what a continued run needs."""
        return {"value": self.value, "good": self.good}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.value, self.good = float(state["value"]), int(state["good"])

"""What both sides of a comparison train with."""

from typing import Any

BETA = 0.1
CENTERING = 0.01
RATE = 5e-6
LORA: dict[str, Any] = {"rank": 8, "alpha": 32.0, "targets": ["q_proj", "v_proj"]}
PROMPTS, ANSWERS, LONGEST, KL, EPOCHS = 2, 16, 96, 0.02, 2

"""One file for each algorithm; each can be read alone with `fitting` and `numerics` beside it."""

from collections.abc import Callable
from typing import Any

from smolt.algorithms.dpo import dpo
from smolt.algorithms.grpo import grpo
from smolt.algorithms.ppo import ppo
from smolt.algorithms.pretrain import pretrain
from smolt.algorithms.reward_model import reward_model
from smolt.algorithms.sft import sft
from smolt.training import Training

STAGES: dict[str, Callable[..., Training]] = {
    "pretrain": pretrain,
    "sft": sft,
    "reward": reward_model,
    "dpo": dpo,
    "ppo": ppo,
    "grpo": grpo,
}

Stage = Callable[[Any], Training]

__all__ = ["STAGES", "Stage", "dpo", "grpo", "ppo", "pretrain", "reward_model", "sft"]

"""One file for each algorithm: what it is called with, and its loss; read `fit`, `streams` and `objectives` beside it.

What PPO and GRPO make of rewards is in `online`.
"""

from collections.abc import Callable
from typing import Any

from smolt.training.algorithms.decide import decide
from smolt.training.algorithms.distill import distill
from smolt.training.algorithms.dpo import dpo
from smolt.training.algorithms.grpo import grpo
from smolt.training.algorithms.kto import kto
from smolt.training.algorithms.online_dpo import online_dpo
from smolt.training.algorithms.ppo import ppo
from smolt.training.algorithms.pretrain import pretrain
from smolt.training.algorithms.reward_model import reward_model
from smolt.training.algorithms.sft import sft
from smolt.training.stage import Training

STAGES: dict[str, Callable[..., Training]] = {
    "pretrain": pretrain,
    "sft": sft,
    "reward": reward_model,
    "dpo": dpo,
    "kto": kto,
    "decide": decide,
    "ppo": ppo,
    "grpo": grpo,
    "online_dpo": online_dpo,
    "distill": distill,
}

Stage = Callable[[Any], Training]

__all__ = [
    "STAGES",
    "Stage",
    "decide",
    "distill",
    "dpo",
    "grpo",
    "kto",
    "online_dpo",
    "ppo",
    "pretrain",
    "reward_model",
    "sft",
]

"""smolt aligns small language models with human and AI feedback, on the one machine a person has.

The names below are imported when first used, so that `import smolt` and `smolt --help` load no torch.

`smolt.grpo("path/or/hub-name", questions, reward=lambda question, answer: ...)` returns a training: iterate it for the
metrics of each update, or call `.finish()` for the result.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "sft": "smolt.training.algorithms",
    "reward_model": "smolt.training.algorithms",
    "dpo": "smolt.training.algorithms",
    "ppo": "smolt.training.algorithms",
    "grpo": "smolt.training.algorithms",
    "evaluate": "smolt.evaluation.evaluate",
    "Evaluation": "smolt.evaluation.evaluate",
    "Training": "smolt.training.stage",
    "Result": "smolt.training.stage",
    "Turn": "smolt.data.nouns",
    "Demonstration": "smolt.data.nouns",
    "Preference": "smolt.data.nouns",
    "Question": "smolt.data.nouns",
    "Answer": "smolt.data.nouns",
    "Score": "smolt.data.nouns",
    "UserError": "smolt.errors",
    "SelfCheckError": "smolt.errors",
    "DirectoryInUse": "smolt.errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name from its home.

    Raises:
        AttributeError: smolt has no such name.
    """
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'smolt' has no attribute {name!r}")
    return vars(import_module(home))[name]


def __dir__() -> list[str]:
    return sorted(__all__)

"""smolt aligns small language models with human and AI feedback, on the one machine a person has.

The names below are imported when first used, so that `import smolt` and `smolt --help` load no torch.

`smolt.grpo("path/or/hub-name", questions, reward=lambda question, answer: ...)` returns a training: iterate it for the
metrics of each update, or call `.finish()` for the result.
"""

import os
import sys
from importlib import import_module
from typing import Any

if "OMP_WAIT_POLICY" not in os.environ:
    # Read when torch is loaded. GNU OpenMP's threads wait for each other in 300,000 rounds of a loop, a millisecond,
    # before they sleep. Beside another busy program both may sit on one core: one waits while the other should compute.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if sys.platform == "win32":
    raise ImportError("smolt needs a POSIX system such as Linux: Windows has no flock to lock a run directory with")

__version__: str

_HOMES = {
    "sft": "smolt.training.algorithms",
    "reward_model": "smolt.training.algorithms",
    "dpo": "smolt.training.algorithms",
    "kto": "smolt.training.algorithms",
    "decide": "smolt.training.algorithms",
    "ppo": "smolt.training.algorithms",
    "grpo": "smolt.training.algorithms",
    "online_dpo": "smolt.training.algorithms",
    "distill": "smolt.training.algorithms",
    "evaluate": "smolt.evaluation.evaluate",
    "Evaluation": "smolt.evaluation.evaluate",
    "Training": "smolt.training.stage",
    "Result": "smolt.training.stage",
    "Turn": "smolt.data.nouns",
    "Demonstration": "smolt.data.nouns",
    "Preference": "smolt.data.nouns",
    "Feedback": "smolt.data.nouns",
    "Decision": "smolt.data.decisions",
    "DecisionQuestion": "smolt.data.decisions",
    "Question": "smolt.data.nouns",
    "Answer": "smolt.data.nouns",
    "Score": "smolt.data.nouns",
    "UserError": "smolt.errors",
    "SelfCheckError": "smolt.errors",
    "DirectoryInUse": "smolt.errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name from its home; the version is that of the installed distribution.

    Raises:
        AttributeError: smolt has no such name.
    """
    if name == "__version__":
        return _version()
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'smolt' has no attribute {name!r}")
    return vars(import_module(home))[name]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 25 ms that `smolt --help` need not wait for

    try:
        return version("smolt-align")
    except PackageNotFoundError:  # the source itself, on a path and not installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted(__all__)

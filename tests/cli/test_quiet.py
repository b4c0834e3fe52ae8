"""What a user sees of a training: smolt's own lines, and nothing of the libraries below it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reliability.scenes import write_inputs

OWN_LINE = re.compile(r"(sft|user): \S.*|\(\S.* \.\.\.\)|fp32 on \d+ threads?, measured")  # or a step that takes long
PYTHON = """
import smolt
from transformers.utils import logging
model = smolt.sft("model", data="demonstrations.jsonl", **{"model.threads": 1, "budget.updates": 1})
logging.enable_progress_bar()  # as another library may
model.finish()
smolt.sft("model", data="demonstrations.jsonl", lora={"rank": 4}, **{"model.threads": 1, "budget.updates": 1}).finish()
"""
WARNING_REWARD = """
import warnings

def reward(question, answer):
    warnings.warn("mind the answers")
    return len(answer.text) % 7
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and recipes that train adapters on it."""
    place = write_inputs(tmp_path_factory.mktemp("quiet"))
    shared = {"model": {"path": "model", "threads": 1}, "lora": {"rank": 4}, "budget": {"updates": 1}}
    sft = {**shared, "data": "demonstrations.jsonl", "dev": "dev.jsonl"}
    (place / "sft.yaml").write_text(json.dumps({"stage": "sft", **sft}))
    reward = {"name": "python", "path": "warning.py:reward"}
    online = {"data": "questions.jsonl", "reward": reward, "prompts": 2, "group": 4, "sampling": {"max_tokens": 6}}
    (place / "user.yaml").write_text(json.dumps({"stage": "grpo", "name": "user", **shared, **online}))
    (place / "warning.py").write_text(WARNING_REWARD)
    return place


def errors_of(folder: Path, *program: str) -> list[str]:
    """The lines on stderr of a process that ends well, in an environment without Python's own warning switches."""
    switches = ("PYTHONWARNINGS", "PYTHONDEVMODE", "TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS")
    environment = {name: value for name, value in os.environ.items() if name not in switches}
    command = [sys.executable, *program]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


@pytest.mark.parametrize("lora", ["{rank: 4}", "null"])
def test_a_training_prints_its_own_lines_alone(folder: Path, lora: str) -> None:
    """With adapters peft warns of a name that transformers deprecates; with all weights a bar is drawn at the end."""
    lines = errors_of(folder, "-m", "smolt", "sft", "sft.yaml", f"lora={lora}", "--fresh")
    assert [line for line in lines if not OWN_LINE.fullmatch(line)] == []


def test_from_python_nothing_is_printed(folder: Path) -> None:
    assert errors_of(folder, "-c", PYTHON) == []


def test_a_warning_of_the_users_own_reward_is_shown(folder: Path) -> None:
    lines = errors_of(folder, "-m", "smolt", "grpo", "user.yaml")
    assert any("UserWarning: mind the answers" in line for line in lines)


@pytest.mark.parametrize(("asked", "level"), [(None, 40), ("info", 20)])
def test_the_hubs_client_retries_in_silence(asked: str | None, level: int) -> None:
    """Its own logger is at ERROR (40) after the command line has begun; a level that the user asked for stays."""
    program = (
        "from smolt.cli import quiet; quiet(); import huggingface_hub.utils.logging as l; print(l.get_verbosity())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_VERBOSITY"}
    environment |= {} if asked is None else {"HF_HUB_VERBOSITY": asked}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{level}\n"

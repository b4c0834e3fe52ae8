"""Trainings of a fraction of a second: every algorithm, with adapters and with all weights."""

import json
from pathlib import Path
from typing import Any

from smolt.config import make_recipe
from smolt.training.algorithms import STAGES
from smolt.training.stage import Training
from tests.tiny import tiny_model

UPDATES = 3
STAGE_NAMES = ("sft", "reward", "dpo", "ppo", "grpo")
SCENES = (
    *(f"{stage}-{weights}" for stage in STAGE_NAMES for weights in ("lora", "full")),
    "orpo-full",
    "one_trunk-full",
    "kto-lora",
    "decide-lora",
    "online_dpo-lora",
    "distill-full",
)
WITH_PRETRAINING = (*SCENES, "pretrain-full")

WORDS = ("the hen", "a tin", "no one in there", "her", "an inn by the sea", "he then ate", "eh", "the other heron")
REWARD = '''def reward(question, answer):
    """Between 0 and 1, different for nearly every answer."""
    return sum(answer.text.encode()) % 17 / 16
'''
SAMPLING = {"max_tokens": 6, "batch": 4}
OWN: dict[str, dict[str, Any]] = {
    "pretrain": {
        "data": "text.txt",
        "tokenizer": {"vocab": 270},
        "shape": {"hidden": 16, "layers": 1, "heads": 2, "mlp": 32, "window": 16},
        "batch": 2,
        "optim": {"lr": 0.01},
    },
    "sft": {
        "data": "demonstrations.jsonl",
        "dev": "dev.jsonl",
        "batch": 3,
        "watch": {"every": 1},
        "optim": {"lr": 0.01, "warmup": 2, "schedule": "cosine"},
    },
    "reward": {"data": "preferences.jsonl", "batch": 2, "gate": False, "optim": {"lr": 0.01}},
    "dpo": {"data": "preferences.jsonl", "dev": "preferences.jsonl", "batch": 3, "beta": 0.3, "optim": {"lr": 0.01}},
    "orpo": {"stage": "dpo", "data": "preferences.jsonl", "batch": 3, "loss": "orpo", "optim": {"lr": 0.01}},
    "kto": {"data": "preferences.jsonl", "dev": "preferences.jsonl", "batch": 3, "optim": {"lr": 0.01}},
    "decide": {"data": "decisions.jsonl", "dev": "decisions.jsonl", "batch": 3, "optim": {"lr": 0.01}},
    "ppo": {
        "data": "questions.jsonl",
        "reward": {"name": "python", "path": "reward.py:reward"},
        "prompts": 4,
        "inner": {"epochs": 2, "minibatches": 2},
        "critic": {"warmup": 1},
        "kl": {"mode": "adaptive", "target": 0.5, "coefficient": 0.2, "stop": 0.02},
        "sampling": SAMPLING,
        "optim": {"lr": 0.003},
    },
    "grpo": {
        "data": "questions.jsonl",
        "dev": {"path": "questions.jsonl", "limit": 2},
        "reward": {"name": "python", "path": "reward.py:reward"},
        "prompts": 2,
        "group": 4,
        "inner": {"epochs": 2},
        "advantage": {"resample": 1},
        "watch": {"every": 2},
        "sampling": SAMPLING,
        "optim": {"lr": 0.003},
    },
    "online_dpo": {
        "data": "questions.jsonl",
        "dev": {"path": "questions.jsonl", "limit": 2},
        "reward": {"name": "python", "path": "reward.py:reward"},
        "prompts": 3,
        "samples": 3,
        "inner": {"epochs": 2},
        "watch": {"every": 2},
        "sampling": SAMPLING,
        "optim": {"lr": 0.003},
    },
    "distill": {
        "data": "demonstrations.jsonl",
        "dev": "dev.jsonl",
        "teacher": "teacher.model",
        "prompts": 4,
        "own": 0.5,
        "beta": 0.5,
        "watch": {"every": 2},
        "sampling": SAMPLING,
        "optim": {"lr": 0.01},
    },
}
OWN["one_trunk"] = {**OWN["ppo"], "stage": "ppo", "critic": {"trunk": "policy", "warmup": 1}}


def write_inputs(folder: Path) -> Path:
    """The model, the records and the reward that all scenes share; returns `folder`."""
    tiny_model(folder / "model")
    (folder / "model" / "decision.json").write_text(json.dumps({"labels": {"noul": ["Y", "N"]}}))
    (folder / "model" / "decision_template.jinja").write_text("{{ state }} {{ question.instructions }}")
    tiny_model(folder / "teacher.model", seed=7)
    pairs = list(zip(WORDS, WORDS[1:] + WORDS[:1], strict=True))
    files: dict[str, list[dict[str, Any]]] = {
        "demonstrations": [{"prompt": ask, "completion": answer} for ask, answer in pairs],
        "dev": [{"prompt": answer, "completion": ask} for ask, answer in pairs[:3]],
        "preferences": [{"prompt": ask, "chosen": answer, "rejected": ask} for ask, answer in pairs],
        "decisions": [decision(number, text) for number, text in enumerate(WORDS)],
        "questions": [{"prompt": ask} for ask in WORDS[:5]],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "reward.py").write_text(REWARD)
    (folder / "text.txt").write_text(" ".join(WORDS * 8))
    return folder


def decision(number: int, state: str) -> dict[str, Any]:
    """Two questions about a text; of what is expected some is soft."""
    asked = {
        "hen": {"type": "noul", "instructions": "a hen?"},
        "where": {"type": "choice", "instructions": "where?", "criteria": {"in": None, "by": None, "there": None}},
    }
    return {"state": state, "questions": asked, "expected": {"hen": number / 10, "where": ("in", "by")[number % 2]}}


def open_scene(name: str, inputs: Path, out: Path, **changes: Any) -> Training:
    """A scene's training, built anew from its files.

    Args:
        name: one of WITH_PRETRAINING.
        inputs: what `write_inputs` wrote.
        out: the run directory.
        changes: recipe fields to set, dotted names with __ for the dot.
    """
    fields = scene_recipe(name, inputs)
    for key, value in changes.items():
        *above, last = key.split("__")
        block = fields
        for part in above:
            block = block.setdefault(part, {})
        block[last] = value
    stage = fields.pop("stage")
    return STAGES[stage](make_recipe(stage, **fields), out=out)


def scene_recipe(name: str, inputs: Path) -> dict[str, Any]:
    """A scene as the content of a recipe file."""
    kind, weights = name.split("-")
    fields = {key: _placed(value, inputs) for key, value in OWN[kind].items()}
    stage = fields.get("stage", kind)
    if weights == "lora":
        dropout = 0.2 if stage in ("sft", "reward", "dpo", "kto", "decide") else 0.0
        fields["lora"] = {"rank": 2, "alpha": 8.0, "dropout": dropout}
    model = {"device": "cpu", "threads": 1} | ({} if stage == "pretrain" else {"path": str(inputs / "model")})
    return fields | {"stage": stage, "model": model, "seed": 3, "budget": {"updates": UPDATES}, "save": {"every": 1}}


def run_scene(name: str, inputs: Path, out: Path, changes: dict[str, Any]) -> None:
    """A scene from where it stands to its end, for a process of its own."""
    open_scene(name, inputs, out, **changes).finish()


def _placed(value: Any, inputs: Path) -> Any:
    """File names become paths in the inputs' directory."""
    if isinstance(value, dict):
        return {key: _placed(inner, inputs) for key, inner in value.items()}
    is_file = isinstance(value, str) and (value.endswith((".jsonl", ".txt", ".model")) or ".py:" in value)
    return str(inputs / value) if is_file else value

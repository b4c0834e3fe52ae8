"""docs/reference/metrics.md names what the stages log, all of it and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smolt.cli.progress import FIGURES
from smolt.config import make_recipe
from smolt.serving.engine import Engine
from smolt.training.algorithms import STAGES
from tests.docs.workshop import ROOT, table
from tests.serving.conftest import serving

PAGE = ROOT / "docs" / "reference" / "metrics.md"
EVERY = "all"
NAMED = ("reward/", "dev/reward/")
LIMITS = {"max_tokens": 8, "batch": 8}
TWO = {"updates": 2}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "pretrain": [
        {
            "data": "text.jsonl",
            "dev": "text.jsonl",
            "tokenizer": {"vocab": 300},
            "shape": {"hidden": 16, "layers": 1, "heads": 2, "mlp": 16, "window": 16},
            "budget": TWO,
            "batch": 2,
        }
    ],
    "sft": [{"model": "my-model", "data": "demonstrations.jsonl", "dev": "demonstrations.jsonl", "budget": TWO}],
    "reward": [{"model": "my-model", "data": "preferences.jsonl", "budget": TWO}],
    "dpo": [
        {"model": "my-model", "data": "preferences.jsonl", "dev": "preferences.jsonl", "budget": TWO},
        {"model": "my-model", "data": "preferences.jsonl", "loss": "cpo", "budget": TWO},
    ],
    "kto": [{"model": "my-model", "data": "feedback.jsonl", "dev": "feedback.jsonl", "budget": TWO}],
    "decide": [{"model": "my-model", "data": "decisions.jsonl", "dev": "decisions.jsonl", "budget": TWO}],
    "online_dpo": [
        {
            "model": "my-model",
            "data": "questions.jsonl",
            "dev": "questions.jsonl",
            "reward": {"name": "length", "options": {"target": 3}},
            "inner": {"epochs": 2},  # before the first step no answer of a pair leads
            "budget": TWO,
        },
        {
            "model": "my-model",
            "data": "questions.jsonl",
            "dev": "questions.jsonl",
            "reward": "gsm8k",
            "budget": {"updates": 1},
            "checks": {"forecast": False},
        },
    ],
    "distill": [
        {
            "model": "my-model",
            "teacher": "my-teacher",
            "data": "questions.jsonl",
            "dev": "questions.jsonl",
            "budget": TWO,
        }
    ],
    # The first veto of the second recipe ends its inner epochs; its KL budget ends the run.
    "ppo": [
        {
            "model": "my-model",
            "data": "questions.jsonl",
            "dev": "questions.jsonl",
            "reward": "gsm8k",
            "budget": TWO,
            "checks": {"forecast": False},  # an untrained model is never right
        },
        {
            "model": "my-model",
            "data": "questions.jsonl",
            "reward": {"name": "length", "options": {"target": 3}},
            "kl": {"stop": 1e-9, "budget": 1e-9},
            "correction": {"weights": "always"},
            "critic": {"warmup": 0},
            "optim": {"lr": 1e-2},
            "budget": {"updates": 6},
        },
    ],
    "grpo": [
        {
            "model": "my-model",
            "data": "questions.jsonl",
            "dev": "questions.jsonl",
            "reward": {"name": "length", "options": {"target": 3}},
            "correction": {"weights": "always"},
            "advantage": {"resample": 1},
            "budget": TWO,
        },
        # Held-out rewards of the first are all equal and have no interval; those of 0 and 1 always have one.
        {
            "model": "my-model",
            "data": "questions.jsonl",
            "dev": "questions.jsonl",
            "reward": "gsm8k",
            "budget": {"updates": 1},
            "checks": {"forecast": False},
        },
    ],
}


def test_what_is_shown_while_a_stage_runs_is_logged() -> None:
    """The names of the progress line are names of the table."""
    assert {name for _, name, _ in FIGURES} <= {row[0] for row in table(PAGE, "name")}


def documented(stage: str) -> set[str]:
    """The names whose row says that the stage logs them."""
    rows = table(PAGE, "name")
    return {name for name, stages, *_ in rows if stages == EVERY or stage in stages.split()}


def general(name: str, known: set[str]) -> str:
    """`reward/gsm8k.correct` as `reward/NAME`, unless the table has it by its own name."""
    prefix = next((start for start in NAMED if name.startswith(start)), "")
    return name if not prefix or name in known else f"{prefix}NAME"


@pytest.fixture
def url(workshop: Path) -> Iterator[str]:
    """A server of the workshop's model."""
    engine = Engine({"my-model": "my-model"}, adapters=1)
    with serving(engine) as base:
        yield base
    engine.close()


def with_server(url: str) -> dict[str, list[dict[str, Any]]]:
    """The recipes, and of each stage that can have its answers from a server one that does."""
    served = {"lora": {"rank": 2}, "server": url, "budget": {"updates": 1}}
    return {
        stage: [*recipes, *([{**recipes[-1], **served}] if stage in ("ppo", "grpo", "online_dpo") else [])]
        for stage, recipes in RECIPES.items()
    }


def test_every_logged_name_is_documented_and_every_documented_name_is_logged(workshop: Path, url: str) -> None:
    """Per stage the two sets are equal, but for `events` and `stop`, which only some stage has to show."""
    rare = {"events", "stop"}
    seen: set[str] = set()
    for stage, recipes in with_server(url).items():
        known, logged = documented(stage), set[str]()
        for number, fields in enumerate(recipes):
            short = {"prompts": 4, "sampling": LIMITS} if stage in ("ppo", "grpo", "online_dpo", "distill") else {}
            recipe = make_recipe(stage, **short, **fields)
            for metrics in STAGES[stage](recipe, out=workshop / f"{stage}-{number}"):
                logged |= {general(name, known) for name in metrics}
        assert logged | rare == known | rare, stage
        seen |= logged
    assert rare <= seen

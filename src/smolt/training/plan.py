"""What a stage hands to its training: the stream, the loss, the learner, checks, dev measurement, and its record."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from smolt import processes
from smolt.config import TrainingRecipe, recipe_hash
from smolt.models.forward.precision import NAMES
from smolt.models.saving import other_inputs
from smolt.runs import PROCESSES
from smolt.runs.identity import package_versions
from smolt.runs.rated_answers import RatedAnswer
from smolt.training.fit import Learner, LossFunction, Stream
from smolt.training.memory.outlook import Outlook

FORECAST = 128
"""Answers of the first updates that tell whether a reward can be learned from."""


@dataclass
class Dev:
    """How a stage is measured on dev data while it trains.

    Attributes:
        measure: metrics of the model as it is now.
        metric: the one that decides, unless the recipe names another.
        better: which way is up.
        n: how many pairs, answers or questions are measured.
    """

    measure: Callable[[], dict[str, float]]
    metric: str
    better: Literal["max", "min"]
    n: int


@dataclass
class Plan:
    """Everything a stage hands to its training.

    Attributes:
        stage: its name.
        recipe: what was asked for.
        identity: data hashes, model, renderer: what a continued run must share with its start.
        stream, loss, learner, micro_tokens: see `fit`.
        save: writes the finished model into a directory.
        result: what the stage returns as its model.
        checks: run before the first update; each raises SelfCheckError.
        forecast: what the first `FORECAST` answers say, for the manifest, with `panels` for the report; may refuse.
        dev: measurement on dev data, or None.
        finish: last figures of the finished model; may refuse it (a gate).
        facts: what the record should hold (packed or padded, precision, counts of dropped records, ...).
        seconds: stop after so many seconds of training (budget.like); None leaves it to budget.minutes.
        outlook: the memory it was estimated to need, None where nothing was.
    """

    stage: str
    recipe: TrainingRecipe
    identity: dict[str, Any]
    stream: Stream
    loss: LossFunction
    learner: Learner
    micro_tokens: int
    save: Callable[[Path], None]
    result: object
    checks: list[Callable[[], None]] = field(default_factory=list)
    forecast: Callable[[list[RatedAnswer]], dict[str, Any]] | None = None
    dev: Dev | None = None
    finish: Callable[[], dict[str, Any]] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    outlook: Outlook | None = None


def manifest_of(plan: Plan) -> dict[str, Any]:
    """What a run of it records as it begins, and what a continued one must share with it."""
    recipe = plan.recipe.model_dump(mode="json")
    return {
        "stage": plan.stage,
        "recipe": recipe,
        "recipe_hash": recipe_hash(plan.recipe),
        **plan.identity,
        "data": {"data": plan.identity["data"], **other_inputs(recipe)},
        "versions": package_versions(),
        "threads": torch.get_num_threads(),
        **({PROCESSES: processes.size()} if processes.sharing() else {}),
        "dtype": NAMES.get(getattr(torch, str(plan.facts.get("dtype")), torch.int)),
        "checkpointing": plan.facts.get("checkpointing"),
        **({} if plan.outlook is None else {"memory": plan.outlook.record()}),
    }

"""smolt's side of the comparisons, through the functions that its commands themselves are made of."""

import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.alike import ANSWERS, BETA, CENTERING, EPOCHS, KL, LONGEST, LORA, PROMPTS, RATE
from bench.fill import fill
from bench.hh_pairs import read_rows
from bench.measuring import peak_memory
from smolt.config import Budget, DPORecipe, LoRA, Optim, RewardRecipe
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import Groups, from_answers
from smolt.models.locating import locate
from smolt.models.roles import Policy, open_policy
from smolt.models.saving import open_scorer
from smolt.training.algorithms.grpo import grpo
from smolt.training.algorithms.ppo import ppo
from smolt.training.algorithms.reward_model import reward_loss
from smolt.training.fit import Learner, LossFunction, Metrics, Update, accumulate, fit
from smolt.training.offline import dpo_loss, reference_column, sft_loss
from smolt.training.optimizers.parameter_groups import Role


@dataclass
class InOrder:
    """Updates of the pairs in file order.

    Attributes:
        groups: one Groups an update.
        total: updates in all.
        reference: whose log-probabilities are computed in the update; None where they are there already.
        micro_tokens: packed tokens of one forward.
    """

    groups: list[Groups]
    total: int
    reference: Policy | None
    micro_tokens: int

    def next(self, number: int) -> Update:
        groups = self.groups[number]
        if self.reference is not None:
            groups = reference_column(self.reference, self.micro_tokens, groups)
        return Update([groups])

    def veto(self, step: int, batch: Groups, metrics: Metrics) -> str | None:
        return None

    def observe(self, metrics: Metrics) -> str | None:
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


@dataclass
class Parts:
    """What `fit` takes, and what is trained."""

    parameters: Mapping[str, torch.nn.Parameter]
    stream: InOrder
    loss: LossFunction
    learner: Learner
    micro_tokens: int


def as_groups(rows: list[dict[str, list[int]]]) -> Groups:
    """Pairs with the columns of `smolt.models.items.preference_items`."""
    answers = [[row["chosen_ids"], row["rejected_ids"]] for row in rows]
    return from_answers([row["prompt_ids"] for row in rows], answers).with_columns(
        side=torch.tensor([0, 1] * len(rows)),
        weight=torch.ones(2 * len(rows)),
        pair=torch.arange(len(rows)).repeat_interleave(2),
    )


def open_parts(settings: dict[str, Any]) -> Parts:
    """The role with a fresh adapter and the updates of an offline work."""
    folder, size = settings["folder"], settings["pairs"]
    located, precision = (
        locate(str(Path(folder, "model"))),
        choose_precision("cpu", settings["dtype"], settings["threads"]),
    )
    optim, updates = Optim(lr=RATE, schedule="constant"), settings["updates"]
    rows = read_rows(folder)
    batches = [rows[start : start + size] for start in range(0, size * updates, size)]
    if settings["work"] == "reward":
        scorer = open_scorer(located, precision, LoRA(**LORA), 0)
        tokens = scorer.trunk.micro_tokens(Budget().memory)
        recipe = RewardRecipe.model_validate({"model": folder, "data": folder, "centering": CENTERING})
        learner = Learner({"reward": Role(scorer.parameters())}, optim, updates)
        stream = InOrder([as_groups(rows) for rows in batches], updates, None, tokens)
        return Parts(scorer.parameters(), stream, reward_loss(scorer, recipe), learner, tokens)
    policy = open_policy(located, precision, LoRA(**LORA), 0)
    tokens = policy.trunk.micro_tokens(Budget().memory)
    learner = Learner({"policy": Role(policy.parameters())}, optim, updates)
    if settings["work"] == "sft":
        groups = [
            from_answers([row["prompt_ids"] for row in rows], [[row["chosen_ids"]] for row in rows]) for rows in batches
        ]
        return Parts(policy.parameters(), InOrder(groups, updates, None, tokens), sft_loss(policy), learner, tokens)
    reference, cached = policy.as_reference(), settings.get("cached", False)
    groups = [as_groups(rows) for rows in batches]
    if cached:
        groups = [reference_column(reference, tokens, part) for part in groups]
    dpo = DPORecipe.model_validate({"model": folder, "data": folder, "beta": BETA})
    stream = InOrder(groups, updates, None if cached else reference, tokens)
    return Parts(policy.parameters(), stream, dpo_loss(policy, dpo), learner, tokens)


def seconds_of_updates(settings: dict[str, Any]) -> dict[str, Any]:
    """Updates of a work by smolt's own loop: seconds of each and mean answer length."""
    if settings["work"] in ("grpo", "ppo"):
        return _rollouts(settings)
    parts = open_parts(settings)
    loaded = peak_memory()
    steps = fit(parts.stream, parts.loss, parts.learner, parts.micro_tokens, 0)
    return {"seconds": [metrics["seconds"] for metrics, _ in steps], "loaded": loaded}


def _rollouts(settings: dict[str, Any]) -> dict[str, Any]:
    folder = Path(settings["folder"])
    questions = [row["question"] for row in read_rows(settings["folder"])]
    shared: dict[str, Any] = {
        "model.device": "cpu",
        "model.dtype": settings["dtype"],
        "model.threads": settings["threads"],
        "lora": LORA,
        "optim": {"lr": RATE, "schedule": "constant"},
        "budget": {"updates": settings["updates"]},
        "sampling": {"max_tokens": LONGEST, "batch": ANSWERS},
        "prompts": PROMPTS,
        "reward": lambda question, answer: float(len(answer.text) % 7),
        "out": Path(tempfile.mkdtemp(dir=folder)),
    }
    if settings["work"] == "grpo":
        training = grpo(str(folder / "model"), questions, group=ANSWERS // PROMPTS, kl={"beta": KL}, **shared)
    else:
        inner = {"epochs": EPOCHS, "minibatches": 1}
        training = ppo(str(folder / "model"), questions, samples=ANSWERS // PROMPTS, inner=inner, **shared)
    loaded, rows = peak_memory(), list(training)
    return {
        "seconds": [row["seconds"] for row in rows],
        "loaded": loaded,
        "length": statistics.mean(row["length"] for row in rows),
        "sampling": statistics.mean(row["sampling_seconds"] for row in rows[1:]),
    }


def first_loss(settings: dict[str, Any]) -> float:
    """The fp32 loss of the first update's rows, with the weights of `fill`."""
    parts = open_parts({**settings, "dtype": "fp32"})
    fill(parts.parameters)
    tally, _ = accumulate(parts.stream.next(0).minibatches[0], parts.loss, parts.micro_tokens)
    return float(tally.means()["reward_loss" if settings["work"] == "reward" else "loss"])

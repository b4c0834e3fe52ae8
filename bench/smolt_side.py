"""smolt's side of the comparison, through the functions that `smolt dpo` itself is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.dpo_against_trl import BETA, LORA, RATE
from bench.hh_pairs import read_rows
from smolt.algorithms.dpo import dpo_loss, reference_column
from smolt.config import Budget, DPORecipe, LoRA, Optim
from smolt.directories import locate
from smolt.fitting import Learner, LossFunction, Metrics, Role, Update, accumulate
from smolt.groups import Groups, from_answers
from smolt.models import Policy, open_policy
from smolt.trunk import choose_precision


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

    def veto(self, step: int, metrics: Metrics) -> str | None:
        return None

    def observe(self, metrics: Metrics) -> str | None:
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


@dataclass
class Parts:
    """What `fit` takes."""

    policy: Policy
    stream: InOrder
    loss: LossFunction
    learner: Learner
    micro_tokens: int


def as_groups(rows: list[dict[str, list[int]]]) -> Groups:
    """Pairs with the columns of `smolt.preparation.preference_items`."""
    answers = [[row["chosen_ids"], row["rejected_ids"]] for row in rows]
    return from_answers([row["prompt_ids"] for row in rows], answers).with_columns(
        side=torch.tensor([0, 1] * len(rows)),
        weight=torch.ones(2 * len(rows)),
        pair=torch.arange(len(rows)).repeat_interleave(2),
    )


def open_parts(settings: dict[str, Any]) -> Parts:
    """The policy with a fresh adapter, its reference, and the updates."""
    folder, pairs = settings["folder"], settings["pairs"]
    precision = choose_precision("cpu", settings["dtype"], settings["threads"])
    policy = open_policy(locate(str(Path(folder, "model"))), precision, LoRA(**LORA), 0)
    reference = policy.as_reference()
    micro_tokens = policy.trunk.micro_tokens(Budget().memory)
    rows = read_rows(folder)
    groups = [as_groups(rows[start : start + pairs]) for start in range(0, len(rows), pairs)]
    cached = settings.get("cached", False)
    if cached:
        groups = [reference_column(reference, micro_tokens, part) for part in groups]
    recipe = DPORecipe.model_validate({"model": folder, "data": folder, "beta": BETA})
    return Parts(
        policy,
        InOrder(groups, settings["updates"], None if cached else reference, micro_tokens),
        dpo_loss(policy, recipe),
        Learner({"policy": Role(policy.parameters())}, Optim(lr=RATE, schedule="constant"), settings["updates"]),
        micro_tokens,
    )


def first_loss(settings: dict[str, Any]) -> float:
    """The fp32 loss of the first update's pairs, with the adapter of `fill`."""
    parts = open_parts({**settings, "dtype": "fp32"})
    fill(parts.policy.parameters())
    tally, _ = accumulate(parts.stream.next(0).minibatches[0], parts.loss, parts.micro_tokens)
    return float(tally.means()["loss"])


def fill(adapter: Mapping[str, torch.nn.Parameter]) -> None:
    """Give an adapter weights that are a function of their order by name: both sides get the same ones."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in sorted(adapter.items()):
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=draw))

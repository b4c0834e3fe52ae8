"""What is measured on dev data is what is trained: the stage's own loss, with all its settings."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from smolt.config import DPORecipe, RewardRecipe
from smolt.models.groups import Groups, atoms, from_answers
from smolt.training.examination import Examination
from smolt.training.fit import accumulate
from smolt.training.offline import dev_loss, dpo_loss, interval_of_loss, led
from tests.reliability.scenes import open_scene, write_inputs

MEMORY: dict[str, Any] = {"model": "(in memory)", "data": "(in memory)"}


def one_pair() -> Groups:
    """A question with answers of two tokens, the first of which is the better one."""
    pair = from_answers([[1]], [[[2, 3], [4, 5]]])
    return pair.with_columns(side=torch.tensor([0, 1]), weight=torch.ones(2), pair=torch.zeros(2))


def test_the_smoothing_of_dpo_by_hand() -> None:
    """Log-ratios 2 and 0, beta 0.5, smoothing 0.1: 0.9 ln(1 + e^-1) + 0.1 ln(1 + e) = 0.4132617, not 0.3132617."""

    def policy(batch: Groups, temperature: float) -> tuple[Tensor, Tensor]:
        logprobs = torch.tensor([[-1.0, -1.0], [-3.0, -3.0]])
        return logprobs, torch.zeros_like(logprobs)

    def referred(groups: Groups) -> Groups:
        return groups.with_columns(reference=torch.tensor([[-2.0, -2.0], [-3.0, -3.0]]))

    recipe = DPORecipe.model_validate({**MEMORY, "beta": 0.5, "label_smoothing": 0.1})
    plan: Any = SimpleNamespace(loss=dpo_loss(policy, recipe), micro_tokens=100)  # type: ignore[arg-type]  # a stand-in
    dev = dev_loss(plan, [one_pair()], ("loss", "accuracy"), referred)
    assert dev is not None
    assert dev.measure() == {"loss": pytest.approx(0.4132617), "accuracy": 1.0}


def test_a_pair_in_which_no_answer_leads_is_neither_right_nor_wrong() -> None:
    """Leads of 1, -1 and 0: 1 of 2. Of 0 alone there is no accuracy, as before the first step of DPO."""
    chosen, rejected = torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0.0, 1.0, 0.5])
    right, count = led(chosen, rejected)
    assert (float(right), count) == (1.0, 2.0)

    def policy(batch: Groups, temperature: float) -> tuple[Tensor, Tensor]:
        return torch.full((2, 2), -1.0), torch.zeros(2, 2)

    same = one_pair().with_columns(reference=torch.full((2, 2), -1.0))
    recipe = DPORecipe.model_validate(MEMORY)
    tally, _ = accumulate(same, dpo_loss(policy, recipe), 100)  # type: ignore[arg-type]  # a stand-in
    found = tally.means()
    assert found["margin"] == 0.0 and "accuracy" not in found


def test_margin_and_centering_of_a_reward_model_by_hand() -> None:
    """Scores 1 and 0, margin 0.5, centering 0.1: ln(1 + e^-0.5) + 0.1 = 0.5740770, not ln(1 + e^-1) = 0.3132617."""
    scorer: Any = SimpleNamespace(
        verdicts=lambda batch: torch.tensor([1.0, 0.0]), trunk=SimpleNamespace(micro_tokens=lambda memory: 100)
    )
    recipe = RewardRecipe.model_validate({**MEMORY, "margin": 0.5, "centering": 0.1})
    ground: Any = None
    found = Examination(scorer, ground, [], [one_pair()], recipe).figures()
    assert found["loss"] == pytest.approx(0.5740770)
    assert found["accuracy"] == 1.0


def test_the_interval_of_the_loss_is_of_records() -> None:
    """Losses 1, 2, 3 of one token each: of 27 resamples of three the most extreme 2.5 % lie at 1 and 3.

    With the first two of one context there are two units: one is left out in half of the resamples.
    """
    contexts = [torch.tensor([number]) for number in (1, 2, 3)]
    assert interval_of_loss([1.0, 2.0, 3.0], [1.0] * 3, contexts) == {"loss_low": 1.0, "loss_high": 3.0}
    shared = interval_of_loss([1.0, 2.0, 3.0], [1.0] * 3, [contexts[0], *contexts[::2]])
    assert shared == {"loss_low": 1.5, "loss_high": 3.0}
    assert interval_of_loss([1.0], [1.0], contexts[:1]) == {}
    assert interval_of_loss([1.0, 2.0, 3.0], [1.0] * 3, contexts[:1] * 3) == {"loss_low": 1.0, "loss_high": 3.0}


@pytest.mark.parametrize(
    ("scene", "changes"),
    [
        ("sft-full", {}),
        ("reward-full", {"dev": "preferences.jsonl"}),
        ("dpo-full", {"nll": 0.5, "dev": "preferences.jsonl"}),
        ("kto-full", {"dev": "preferences.jsonl"}),
    ],
)
def test_what_each_record_has_of_the_loss_adds_up_to_it(scene: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """However the forward is cut; the interval lies around the loss."""
    inputs = write_inputs(tmp_path / "inputs")
    changes = {name: str(inputs / value) if name == "dev" else value for name, value in changes.items()}
    training: Any = open_scene(scene, inputs, tmp_path / "run", **changes, watch__every=1)
    for row in training:
        assert row["dev/loss_low"] < row["dev/loss"] < row["dev/loss_high"]
    plan = training._plan
    update = plan.stream.next(0).minibatches[0]
    for part in plan.loss(update) if scene != "reward-full" else ():  # whose examination scores the pairs itself
        totals, counts = part.each
        assert len(totals) == len(atoms(update))
        assert totals.sum().item() == pytest.approx(part.total.item(), rel=1e-5)
        assert float(counts.sum()) == part.count


@pytest.mark.parametrize(
    ("scene", "name", "changes"),
    [
        ("sft-full", "loss", {"data": "dev.jsonl", "batch": 3}),
        ("reward-full", "reward_loss", {"dev": "preferences.jsonl", "batch": 8, "margin": 0.5, "centering": 0.2}),
        ("dpo-full", "loss", {"batch": 8, "label_smoothing": 0.3, "beta": 5.0}),
        ("dpo-full", "loss", {"batch": 8, "loss": "ipo"}),
        ("dpo-full", "loss", {"batch": 8, "loss": "orpo"}),
    ],
)
def test_dev_loss_is_the_next_updates_loss_on_the_same_records(
    scene: str, name: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    """Learned from in one batch and measured on, the same records have one loss at one set of weights."""
    inputs = write_inputs(tmp_path / "inputs")
    for field in {"data", "dev"} & set(changes):
        changes = {**changes, field: str(inputs / changes[field])}
    training = open_scene(scene, inputs, tmp_path / "run", **changes, watch__every=1)
    rows = list(training)
    assert len({row[name] for row in rows}) == len(rows) == 3
    for before, after in itertools.pairwise(rows):
        assert before["dev/loss"] == pytest.approx(after[name], rel=1e-6)

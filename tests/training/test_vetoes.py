"""What stops a rollout's steps or a run: a first ratio that is not 1, a policy farther away than `kl.budget` allows."""

from pathlib import Path
from typing import Any

import pytest
import torch

import smolt
from smolt.config import make_recipe
from smolt.errors import SelfCheckError, UserError
from smolt.training.mismatch import check_first_ratio
from smolt.training.online.steps import over_budget
from tests import tiny

QUESTIONS = ["a b c", "b c d", "c d e", "d e f"]
FAST: dict[str, Any] = {
    "prompts": 4,
    "sampling": {"max_tokens": 6},
    "optim": {"lr": 0.05, "warmup": 0},
    "budget": {"updates": 8},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.tiny_model(tmp_path_factory.mktemp("budget") / "model"))


def test_over_budget() -> None:
    """At the budget a run goes on, above it it ends; without a budget or a KL it never does."""
    assert over_budget(2.0, 2.0) is None
    assert over_budget(9.0, None) is None
    assert over_budget(None, 2.0) is None
    assert over_budget(2.5, 2.0) == "KL to the reference 2.50 nats an answer exceeds kl.budget 2"


@pytest.mark.parametrize("stage", ["ppo", "grpo"])
def test_the_run_ends_at_the_first_update_over_its_budget(model: str, stage: str, tmp_path: Path) -> None:
    """A learning rate far too high: the KL is above the budget in the last of fewer than 8 rows and only there."""
    train = {"ppo": smolt.ppo, "grpo": smolt.grpo}[stage]
    more = {"critic": {"warmup": 0}} if stage == "ppo" else {}
    with_budget = {"kl": {"budget": 0.05}, **FAST, **more}
    rows = list(
        train(model, QUESTIONS, reward=lambda question, answer: answer.tokens, out=tmp_path / "run", **with_budget)
    )
    assert 1 < len(rows) < 8
    assert rows[-1]["kl"] > 0.05 and "exceeds kl.budget 0.05" in rows[-1]["stop"]
    assert all((row.get("kl") or 0.0) <= 0.05 and "stop" not in row for row in rows[:-1])


def test_a_budget_without_a_reference_is_refused() -> None:
    """GRPO with beta 0 computes no reference, so there is no KL to hold."""
    with pytest.raises(UserError, match="budget needs beta > 0"):
        make_recipe("grpo", model="m", data="d", reward="gsm8k", kl={"beta": 0, "budget": 1})


def test_the_first_ratio_is_1_as_far_as_the_precision_goes() -> None:
    """2e-5 is too much in fp32 and rounding in bf16, 2e-2 is too much in either; later steps may go where they will."""
    check_first_ratio(0, {"ratio_error": 2e-5}, torch.bfloat16)
    check_first_ratio(1, {"ratio_error": 2e-2}, torch.float32)
    for error, dtype in ((2e-5, torch.float32), (2e-2, torch.bfloat16)):
        with pytest.raises(SelfCheckError, match="off 1 by 2"):
            check_first_ratio(0, {"ratio_error": error}, dtype)


def test_an_update_without_signal_has_no_kl(model: str) -> None:
    """All rewards alike: the row says that the KL was not measured (null), and the next update goes on."""
    rows = list(smolt.grpo(model, QUESTIONS, reward=lambda question, answer: 1.0, checks={"forecast": False}, **FAST))
    assert len(rows) == 8
    assert all(row["kl"] is None and row["signal"] == 0 and row["optimizer_steps"] == 0 for row in rows)

"""Sampler and trainer of PPO and GRPO: what rounding does to them passes, and each planted fault is caught at update 1.

On a model whose bf16 log-probabilities scatter as a real model's do (tests/deep.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import smolt
from smolt.errors import SelfCheckError
from smolt.models.forward import packed_forward
from smolt.models.forward.logprobs import chosen_logprobs
from smolt.models.groups import Groups
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing, sample
from smolt.training.stage import Training
from tests.deep import deep_model

QUESTIONS = [f"What is {n} and {n * n} and how far are they apart? Say it twice." for n in range(4)]
TRAIN = {"grpo": smolt.grpo, "ppo": smolt.ppo}
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(deep_model(tmp_path_factory.mktemp("deep") / "model"))


def training(stage: str, model: str, dtype: str, updates: int = 1, **fields: Any) -> Training:
    shape: dict[str, Any] = {"group": 8} if stage == "grpo" else {"samples": 8}
    if stage == "ppo":
        shape |= {"inner": {"epochs": 2, "minibatches": 2}, "critic": {"warmup": 0}}
    started: Training = TRAIN[stage](
        model,
        QUESTIONS,
        reward=lambda question, answer: float(len(answer.text) % 7),
        prompts=4,
        lora={"rank": 8},
        sampling={"max_tokens": 24},
        optim={"lr": 1e-3},
        checks={"forecast": False},
        **{"model.dtype": dtype, "model.threads": 1},
        **shape,
        **{"budget": {"updates": updates}, **fields},
    )
    return started


def another_template(patch: Patch) -> None:
    """The sampler's contexts lack the last token of the template."""

    def drawn(policy: Policy, contexts: Any, *rest: Any, **named: Any) -> Groups:
        groups = sample(policy, [context[:-1] for context in contexts], *rest, **named)
        return replace(groups, contexts=tuple(torch.tensor(context) for context in contexts))

    patch.setattr("smolt.training.online.rollouts.sample", drawn)


def another_temperature(patch: Patch) -> None:
    """The sampler draws at 1.1, training computes at 1."""

    def drawn(policy: Policy, contexts: Any, n: int, drawing: Drawing, *rest: Any, **named: Any) -> Groups:
        return sample(policy, contexts, n, replace(drawing, temperature=1.1), *rest, **named)

    patch.setattr("smolt.training.online.rollouts.sample", drawn)


def padding_seen(patch: Patch) -> None:
    """The sampler's contexts stand behind three pad tokens that its attention sees."""

    def drawn(policy: Policy, contexts: Any, *rest: Any, **named: Any) -> Groups:
        groups = sample(policy, [[0, 0, 0, *context] for context in contexts], *rest, **named)
        return replace(groups, contexts=tuple(torch.tensor(context) for context in contexts))

    patch.setattr("smolt.training.online.rollouts.sample", drawn)


def dropout_on(patch: Patch) -> None:
    """A tenth of what every feed-forward layer gives is dropped in the training forward."""
    whole = packed_forward._fed_forward

    def dropping(mlp: Any, states: Tensor) -> Tensor:
        return torch.nn.functional.dropout(whole(mlp, states), 0.1)

    patch.setattr(packed_forward, "_fed_forward", dropping)


def targets_off_by_one(patch: Patch) -> None:
    """Each position is asked for the token before the one it predicts."""

    def shifted(states: Tensor, head: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        return chosen_logprobs(states, head, targets.roll(1), temperature)

    patch.setattr("smolt.models.roles.chosen_logprobs", shifted)


FAULTS: list[Callable[[Patch], None]] = [
    another_template,
    another_temperature,
    padding_seen,
    dropout_on,
    targets_off_by_one,
]


@contextmanager
def planted(fault: Callable[[Patch], None]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        yield


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", TRAIN)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_caught_at_update_1(
    fault: Callable[[Patch], None], stage: str, dtype: str, model: str
) -> None:
    """5 faults x 2 algorithms x 2 precisions: SelfCheckError before the first step, never taken for rounding.

    Dropout is met by the check that the policy is its reference, which comes before; GRPO without one has only this.
    """
    steps = training(stage, model, dtype, kl={"beta": 0} if stage == "grpo" else {})
    found = rf"in {dtype}" if stage == "grpo" or fault is not dropout_on else "at step 0 is not 0"
    with planted(fault), pytest.raises(SelfCheckError, match=found) as caught:
        next(steps)
    if dtype == "bf16":
        assert "not a fault" not in str(caught.value)


@pytest.mark.parametrize("stage", TRAIN)
def test_rounding_alone_passes(stage: str, model: str) -> None:
    """Eight updates in bf16: no alarm, a mean difference of 0.02 to 0.05, and first ratios of exactly 1."""
    rows = list(training(stage, model, "bf16", updates=8))
    assert len(rows) == 8
    assert all(0.02 < row["mismatch"] < 0.05 and row["mismatch_max"] > 0.1 for row in rows)
    assert all(row["mismatch"] < row["mismatch_99"] < row["mismatch_999"] <= row["mismatch_max"] for row in rows)
    assert all(0.9 < row["importance_weight"] < 1.1 and row["importance_truncated"] == 0 for row in rows)


def test_the_first_ratio_of_every_rollout_is_exactly_1(model: str) -> None:
    """PPO, bf16, four minibatches cut into many micro-batches: old and new come from one forward and one cut."""
    errors = []
    steps = training("ppo", model, "bf16", updates=3, budget={"updates": 3, "memory": 0.001})
    plan: Any = steps
    veto = plan._plan.stream.veto

    def watch(step: int, batch: Groups, metrics: dict[str, Any]) -> str | None:
        if step == 0:
            errors.append(metrics["ratio_error"])
        refused: str | None = veto(step, batch, metrics)
        return refused

    plan._plan.stream.veto = watch
    list(steps)
    assert errors == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("stage", TRAIN)
def test_fp32_has_no_weights_unless_asked(stage: str, model: str) -> None:
    """`auto` weighs nothing in fp32; `always` does, by weights within 1e-4 of 1; `never` leaves bf16 as it is."""
    (plain,) = training(stage, model, "fp32")
    assert "importance_weight" not in plain and plain["mismatch_max"] <= 1e-4
    (asked,) = training(stage, model, "fp32", correction={"weights": "always"})
    assert asked["importance_weight"] == pytest.approx(1.0, abs=1e-4)
    (never,) = training(stage, model, "bf16", correction={"weights": "never"})
    assert "importance_weight" not in never


def test_a_small_cap_truncates(model: str) -> None:
    """cap 1: every weight above 1 becomes 1, about half of them, and the mean falls below 1."""
    (row,) = training("grpo", model, "bf16", correction={"cap": 1.0})
    assert 0.3 < row["importance_truncated"] < 0.7
    assert row["importance_weight"] < 1


def test_a_run_that_failed_before_update_1_gives_way(model: str, tmp_path: Path) -> None:
    """The retry in another precision starts in the same directory; a run with one update is refused as before."""
    with planted(another_temperature), pytest.raises(SelfCheckError):
        next(training("grpo", model, "bf16", out=tmp_path / "run"))
    assert training("grpo", model, "fp32", out=tmp_path / "run").finish().metrics["updates"] == 1
    with pytest.raises(smolt.UserError, match="started with something else"):
        training("grpo", model, "bf16", out=tmp_path / "run")

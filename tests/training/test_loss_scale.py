"""Loss scaling: a power of two changes no bit, overflow halves it, good steps double it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from smolt.config import Optim
from smolt.errors import SelfCheckError
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import Groups, from_answers
from smolt.models.locating import locate
from smolt.models.roles import open_policy
from smolt.training.fit import Learner, Loss, LossFunction, Metrics, fit
from smolt.training.offline import sft_loss
from smolt.training.optimizers.loss_scale import CEILING, PATIENCE, START, LossScale
from smolt.training.optimizers.parameter_groups import Role
from tests.tiny import tiny_model
from tests.training.test_fit import WHOLE, Fixed, learner_of, linear, rows, run, scalar, whole


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("scaling") / "model")


def trained(folder: Path, scale: LossScale) -> tuple[dict[str, bytes], list[float]]:
    """A tiny model and its optimizer after 5 updates, and the gradient norms."""
    policy = open_policy(locate(str(folder)), choose_precision("cpu", "fp32"), None, 0)
    learner = Learner({"policy": Role(policy.parameters())}, Optim(lr=1e-2, clip=0.5), 5)
    learner.scale = scale
    groups = from_answers([[5, 6, 7], [8, 9]], [[[10, 11, 12]], [[13, 14]]])
    found = [metrics for metrics, _ in fit(Fixed([groups], 5), sft_loss(policy), learner, WHOLE, 0)]
    return whole(learner), [row["gradient_norm"] for row in found]


def test_a_power_of_two_changes_no_bit(folder: Path) -> None:
    """fp32, 5 clipped updates: weights, moments and norms are equal for 1 and any other power of two."""
    plain = trained(folder, LossScale())
    for exponent in (-6, 1, 9, 16):
        assert trained(folder, LossScale(2.0**exponent)) == plain
    assert trained(folder, LossScale(3.0)) != plain  # the control: 3 is none


def through_half(weight: torch.Tensor) -> LossFunction:
    """A loss whose gradient passes through fp16, which ends at 65504."""

    def loss(batch: Groups) -> Iterator[Loss]:
        yield Loss((weight.half() * batch.columns["x"].half()).float().sum(), float(len(batch)))

    return loss


def halved(x: float, scale: LossScale, updates: int) -> tuple[list[Metrics], Learner]:
    weight = scalar()
    learner = learner_of(weight, clip=0.0)
    learner.scale = scale
    return run(Fixed([rows(x)], updates), through_half(weight), learner), learner


def test_overflow_halves_and_skips_without_counting_as_failure() -> None:
    """4 x 2^16, 2^15, 2^14 exceed 65504, 4 x 2^13 does not: three skipped in a row, the fourth is taken."""
    metrics, learner = halved(4.0, LossScale.for_half(), 5)
    assert [row["optimizer_steps"] for row in metrics] == [0, 0, 0, 1, 1]
    event = "step 1 of 1 skipped: gradients overflow fp16; the loss scale is halved to 8192"
    assert metrics[2]["events"] == [event]
    assert [row["gradient_norm"] for row in metrics[3:]] == [4.0, 4.0]
    assert (learner.scale.value, learner.scale.good, learner.bad) == (START / 8, 2, 0)


def test_at_the_floor_it_is_a_failure() -> None:
    """From 2: halved once to 1 without counting; then three in a row end the run, at update 4."""
    weight = scalar()
    learner = learner_of(weight)
    learner.scale = LossScale(2.0, dynamic=True)
    steps = fit(Fixed([rows(float("inf"))], 9), through_slope(weight), learner, WHOLE, 0)
    for _ in range(3):
        next(steps)
    with pytest.raises(SelfCheckError, match="update 4: gradient of policy is inf, 3 steps in a row"):
        next(steps)


def through_slope(weight: torch.Tensor) -> LossFunction:
    """A finite loss with an infinite gradient."""

    def loss(batch: Groups) -> Iterator[Loss]:
        yield Loss(weight.sqrt().sum(), 1.0)

    return loss


def test_a_loss_that_is_not_finite_is_not_the_scales_doing() -> None:
    """NaN counts at once, and the scale stays."""
    weight = scalar()
    learner = learner_of(weight)
    learner.scale = LossScale.for_half()
    with pytest.raises(SelfCheckError, match="update 3: loss is nan"):
        run(Fixed([rows(float("nan"))], 9), linear(weight), learner)
    assert learner.scale.value == START


def test_good_steps_double_it_up_to_the_ceiling() -> None:
    scale = LossScale(CEILING / 2, dynamic=True)
    values = []
    for _ in range(3):
        for _ in range(PATIENCE):
            scale.stepped()
        values.append(scale.value)
    assert values == [CEILING] * 3
    fixed = LossScale()
    for _ in range(PATIENCE):
        fixed.stepped()
    assert (fixed.value, fixed.overflowed()) == (1.0, None)


def test_its_state_is_in_the_learners() -> None:
    """Halved to 2^13 with two good steps: the same after restore."""
    _, learner = halved(4.0, LossScale.for_half(), 5)
    other = learner_of(scalar())
    other.scale = LossScale.for_half()
    other.restore(learner.state())
    assert other.state() == learner.state()
    assert (other.scale.value, other.scale.good) == (START / 8, 2)

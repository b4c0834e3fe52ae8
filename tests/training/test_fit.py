"""The one loop, on a weight or two: hand-computed steps, and every reason for which a step is not taken."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smolt.config import Optim
from smolt.errors import SelfCheckError
from smolt.models.groups import Groups, from_answers
from smolt.runs.chunks import COUNTED
from smolt.training.fit import Learner, Loss, LossFunction, Metrics, Update, accumulate, fit
from smolt.training.optimizers.parameter_groups import Role

WHOLE = 10**9


@dataclass
class Fixed:
    """A stream that gives the same minibatches in every update."""

    minibatches: Sequence[Groups]
    total: int
    vetoes: Callable[[int, Metrics], str | None] = lambda step, metrics: None
    observer: Callable[[Metrics], str | None] = lambda metrics: None
    roles: frozenset[str] | None = None
    asked: list[int] = field(default_factory=list)
    judged: list[tuple[int, Metrics]] = field(default_factory=list)

    def next(self, number: int) -> Update:
        self.asked.append(number)
        return Update(self.minibatches, {"known": number}, roles=self.roles)

    def veto(self, step: int, batch: Groups, metrics: Metrics) -> str | None:
        self.judged.append((step, metrics))
        return self.vetoes(step, metrics)

    def observe(self, metrics: Metrics) -> str | None:
        return self.observer(metrics)

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


def rows(*values: float) -> Groups:
    """One answer for each value, of one token; the column `x` holds the values."""
    groups = from_answers([[1]] * len(values), [[[2]]] * len(values))
    return groups.with_columns(x=torch.tensor(values))


def scalar(value: float = 0.0) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value]))


def linear(weight: Tensor, role: str = "policy") -> LossFunction:
    """Sum of w x over the answers, counted one each: the gradient of an update is the mean of x."""

    def loss(batch: Groups) -> Iterator[Loss]:
        x = batch.columns["x"]
        yield Loss((weight * x).sum(), float(len(batch)), {"x": (x.sum(), float(len(batch)))}, role)

    return loss


def learner_of(weight: nn.Parameter, total: int = 10, **optim: Any) -> Learner:
    return Learner({"policy": Role({"w": weight})}, Optim(**{"lr": 0.1, "schedule": "constant", **optim}), total)


def whole(learner: Learner) -> dict[str, bytes]:
    """The files of a checkpoint, copied."""
    return {name: b"".join(parts) for name, parts in learner.blobs().items()}


def run(stream: Fixed, loss: LossFunction, learner: Learner, start: int = 0) -> list[Metrics]:
    return [metrics for metrics, _ in fit(stream, loss, learner, WHOLE, 0, start)]


# --- schedule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {0: 0.5, 1: 1, 2: 1, 9: 1}),
        ("linear", {0: 0.5, 1: 1, 2: 1, 6: 0.5, 9: 1 / 8}),
        ("cosine", {0: 0.5, 1: 1, 2: 1, 6: 0.5, 9: 0.5 * (1 + math.cos(7 * math.pi / 8))}),
    ],
)
def test_the_schedule_by_hand(schedule: str, expected: dict[int, float]) -> None:
    """10 updates, 2 of warm-up: (n + 1) / 2, then 1 - (n - 2) / 8 or half a cosine of it."""
    learner = learner_of(scalar(), total=10, schedule=schedule, warmup=2)
    assert {number: learner.factor(number) for number in expected} == pytest.approx(expected)


def test_without_warmup_the_first_update_has_the_full_rate_and_the_last_one_some() -> None:
    """Linear over 4 updates: 1, 3/4, 1/2, 1/4; no update is taken at rate 0."""
    learner = learner_of(scalar(), total=4, schedule="linear")
    assert [learner.factor(number) for number in range(4)] == [1, 0.75, 0.5, 0.25]


def test_warmup_as_long_as_the_run() -> None:
    """4 of 4 updates: 1/4, 2/4, 3/4, 1."""
    learner = learner_of(scalar(), total=4, schedule="cosine", warmup=4)
    assert [learner.factor(number) for number in range(4)] == [0.25, 0.5, 0.75, 1]


def test_the_rate_is_what_the_record_says() -> None:
    """AdamW's first step moves a weight by the learning rate: -0.05 in the first update (warm-up 1 of 2)."""
    weight = scalar()
    metrics = run(Fixed([rows(3.0)], 1), linear(weight), learner_of(weight, warmup=2))
    assert metrics[0]["learning_rate"] == pytest.approx(0.05)
    assert float(weight.detach()) == pytest.approx(-0.05)


# --- division ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_tokens", [1, 4, WHOLE])
def test_gradients_are_divided_by_the_count_of_the_whole_step(micro_tokens: int) -> None:
    """x = 1, 2, 3, 10: (1 + 2 + 3 + 10) / 4 = 4, not the mean of micro-batch means, (1.5 + 6.5) / 2 or any other."""
    weight = scalar(2.0)
    learner = learner_of(weight)
    tally, counts = accumulate(rows(1.0, 2.0, 3.0, 10.0), linear(weight), micro_tokens)
    assert counts == {"policy": 4.0}
    assert learner.divide(counts) == {"policy": pytest.approx(4.0)}
    assert weight.grad is not None
    assert float(weight.grad) == pytest.approx(4.0)
    assert tally.means() == pytest.approx({"loss": 8.0, "x": 4.0})


def test_two_roles_are_divided_by_counts_of_their_own() -> None:
    """Policy: (1 + 5) / 2 = 3; critic, counted 4 times an answer: (1 + 5) / 8 = 0.75, logged as critic_loss."""
    actor, critic = scalar(1.0), scalar(1.0)
    learner = Learner({"policy": Role({"w": actor}), "critic": Role({"w": critic})}, Optim(), 1)

    def loss(batch: Groups) -> Iterator[Loss]:
        yield from linear(actor)(batch)
        yield Loss((critic * batch.columns["x"]).sum(), 4.0 * len(batch), role="critic")

    tally, counts = accumulate(rows(1.0, 5.0), loss, 1)
    assert learner.divide(counts) == pytest.approx({"policy": 3.0, "critic": 0.75})
    assert tally.means() == pytest.approx({"loss": 3.0, "critic_loss": 0.75, "x": 3.0})


def test_clipping_bounds_the_norm() -> None:
    """Epsilon 1 makes AdamW's first step lr g / (|g| + 1): gradient 4 clipped to 1 gives 0.05, unclipped 0.08."""
    clipped, free, small = scalar(), scalar(), scalar()
    for weight, clip, x in ((clipped, 1.0, 4.0), (free, 0.0, 4.0), (small, 1.0, 0.5)):
        metrics = run(Fixed([rows(x)], 1), linear(weight), learner_of(weight, clip=clip, eps=1.0))
        assert metrics[0]["gradient_norm"] == pytest.approx(x)
    assert [float(w.detach()) for w in (clipped, free, small)] == pytest.approx([-0.05, -0.08, -0.1 * 0.5 / 1.5])


def test_a_roles_rate_is_a_multiple() -> None:
    """lr 0.1, critic 5 times that: the first steps are -0.1 and -0.5; a role that does not learn stays."""
    for roles, expected in ((None, [-0.1, -0.5]), (frozenset({"critic"}), [0.0, -0.5])):
        actor, critic = scalar(), scalar()
        parts = {"policy": Role({"w": actor}), "critic": Role({"w": critic}, lr_scale=5.0)}
        learner = Learner(parts, Optim(lr=0.1, schedule="constant"), 1)

        def loss(batch: Groups, actor: Tensor = actor, critic: Tensor = critic) -> Iterator[Loss]:
            yield from linear(actor)(batch)
            yield from linear(critic, "critic")(batch)

        run(Fixed([rows(2.0)], 1, roles=roles), loss, learner)
        assert [float(actor.detach()), float(critic.detach())] == pytest.approx(expected)


# --- steps that are not taken -----------------------------------------------------------------------------------------


def test_three_losses_in_a_row_that_are_not_finite_stop_the_run() -> None:
    """NaN in updates 1, 2, 3: two are skipped and recorded, the third raises; the weight keeps its bits (trap 21)."""
    weight = scalar(0.3)
    steps = fit(Fixed([rows(math.nan)], 9), linear(weight), learner_of(weight), WHOLE, 0)
    for _ in range(2):
        metrics, _ = next(steps)
        assert metrics["optimizer_steps"] == 0
        assert metrics["events"] == ["step 1 of 1 skipped: loss is nan"]
        assert "loss" not in metrics
    with pytest.raises(SelfCheckError, match="update 3: loss is nan, 3 steps in a row"):
        next(steps)
    assert torch.equal(weight.detach(), torch.tensor([0.3]))


def test_a_good_step_between_bad_ones_starts_the_count_again() -> None:
    """Minibatches NaN, NaN, 1, NaN, NaN: no three in a row, one step of -0.1 is taken, four are recorded."""
    weight = scalar()
    bad, good = rows(math.nan), rows(1.0)
    metrics = run(Fixed([bad, bad, good, bad, bad], 1), linear(weight), learner_of(weight))
    assert metrics[0]["optimizer_steps"] == 1
    assert len(metrics[0]["events"]) == 4
    assert metrics[0]["loss"] == 0
    assert float(weight.detach()) == pytest.approx(-0.1)


def test_a_gradient_that_is_not_finite_is_found_behind_a_finite_loss() -> None:
    """sqrt(w) at w = 0 is 0 and its slope infinite: the step is skipped and the weight is still 0."""
    weight = scalar(0.0)

    def loss(batch: Groups) -> Iterator[Loss]:
        yield Loss(weight.sqrt().sum(), 1.0)

    metrics = run(Fixed([rows(1.0)], 1), loss, learner_of(weight))
    assert metrics[0]["events"] == ["step 1 of 1 skipped: gradient of policy is inf"]
    assert float(weight.detach()) == 0


def test_a_veto_leaves_every_bit() -> None:
    """Trap 8: after two steps the third is vetoed; weight and Adam's moments stay, step four is not even computed."""
    weight = scalar()
    learner = learner_of(weight)

    def vetoes(step: int, metrics: Metrics) -> str | None:
        if step == 2:
            kept.update(whole(learner))
            return "moved too far"
        return None

    kept: dict[str, bytes] = {}
    stream = Fixed([rows(1.0), rows(2.0), rows(3.0), rows(4.0)], 1, vetoes)
    metrics = run(stream, linear(weight), learner)
    assert whole(learner) == kept
    assert weight.grad is None
    assert [step for step, _ in stream.judged] == [0, 1, 2]
    assert metrics[0]["optimizer_steps"] == 2
    assert metrics[0]["events"] == ["step 3 of 4 skipped: moved too far"]


def test_a_veto_sees_the_metrics_of_its_own_step() -> None:
    """Step 0 has x = 1, step 1 has x = 2; the update's record has their mean."""
    weight = scalar()
    stream = Fixed([rows(1.0), rows(2.0)], 1)
    metrics = run(stream, linear(weight), learner_of(weight))
    assert [seen["x"] for _, seen in stream.judged] == [1.0, 2.0]
    assert metrics[0]["x"] == 1.5


def test_an_update_without_minibatches_changes_nothing() -> None:
    """Every group without signal: no step, no loss in the record, the weight as it was."""
    weight = scalar(0.5)
    metrics = run(Fixed([], 2), linear(weight), learner_of(weight))
    assert [(row["optimizer_steps"], row["tokens"], "loss" in row) for row in metrics] == [(0, 0, False)] * 2
    assert float(weight.detach()) == 0.5


# --- parameters that do not learn -------------------------------------------------------------------------------------


def test_a_parameter_without_a_gradient_raises_at_once() -> None:
    """An unused weight is named in update 1, before any step."""
    used, unused = scalar(), scalar()
    learner = Learner({"policy": Role({"used": used, "unused": unused})}, Optim(lr=0.1), 5)
    with pytest.raises(SelfCheckError, match="policy: unused gets no gradient"):
        run(Fixed([rows(1.0)], 5), linear(used), learner)
    assert float(used.detach()) == 0


def both(first: Tensor, second: Tensor, factors: Iterator[float]) -> LossFunction:
    """A loss whose gradient of `second` is the next of some factors."""

    def loss(batch: Groups) -> Iterator[Loss]:
        yield Loss((first + next(factors) * second).sum(), 1.0)

    return loss


def test_a_gradient_still_exactly_zero_in_the_third_step_raises() -> None:
    """Zero, zero, zero: the weight is named in step 3."""
    first, second = scalar(), scalar()
    learner = Learner({"policy": Role({"first": first, "second": second})}, Optim(lr=0.1), 5)
    stream = Fixed([rows(1.0)], 5)
    with pytest.raises(SelfCheckError, match=r"after 3 steps the gradient of policy/second and 0 more"):
        run(stream, both(first, second, iter([0.0] * 5)), learner)
    assert stream.asked == [0, 1, 2]


def test_a_gradient_that_is_zero_at_first_is_legitimate() -> None:
    """LoRA's A under a zero B: zero, zero, then 1 passes, and later zeros are no matter."""
    first, second = scalar(), scalar()
    learner = Learner({"policy": Role({"first": first, "second": second})}, Optim(lr=0.1), 5)
    assert len(run(Fixed([rows(1.0)], 5), both(first, second, iter([0.0, 0.0, 1.0, 0.0, 0.0])), learner)) == 5


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_what_an_update_records() -> None:
    """Two updates of two steps: numbered from 1, with what the stream knew, tokens of all minibatches, and times."""
    weight = scalar()
    metrics = run(Fixed([rows(1.0), rows(2.0, 3.0)], 2), linear(weight), learner_of(weight))
    assert [(row["step"], row["known"], row["tokens"], row["optimizer_steps"]) for row in metrics] == [
        (1, 0, 6, 2),
        (2, 1, 6, 2),
    ]
    assert all(row["seconds"] >= row["training_seconds"] >= 0 for row in metrics)
    assert all(row["tokens_per_second"] > 0 and "events" not in row for row in metrics)


def test_a_run_starts_where_it_is_told() -> None:
    """3 of 5 updates done: the stream is asked for 3 and 4."""
    weight, stream = scalar(), Fixed([rows(1.0)], 5)
    assert [row["step"] for row in run(stream, linear(weight), learner_of(weight), start=3)] == [4, 5]
    assert stream.asked == [3, 4]


def test_an_observer_ends_the_run_with_its_reason() -> None:
    """A stop in update 2 of 5 is in that update's record, and the last one."""
    weight = scalar()
    stream = Fixed([rows(1.0)], 5, observer=lambda row: "enough" if row["step"] == 2 else None)
    metrics = run(stream, linear(weight), learner_of(weight))
    assert [row.get("stop") for row in metrics] == [None, "enough"]


def test_dropout_is_a_function_of_seed_and_update() -> None:
    """What torch draws inside an update is the same whatever was drawn before, and differs between updates."""

    def drawn(start: int, noise: int) -> list[float]:
        seen: list[float] = []
        weight = scalar()

        def loss(batch: Groups) -> Iterator[Loss]:
            seen.append(float(torch.rand(())))
            yield Loss(weight.sum(), 1.0)

        torch.manual_seed(noise)
        run(Fixed([rows(1.0)], 3), loss, learner_of(weight), start)
        return seen

    assert drawn(0, 1) == drawn(0, 2)
    assert len(set(drawn(0, 1))) == 3
    assert drawn(2, 3) == drawn(0, 1)[2:]


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_learner_taken_up_again_goes_on_bit_for_bit() -> None:
    """6 updates at a stretch, against 3, blobs and JSON into a new learner, and 3 more: the same bytes."""

    def square(weight: Tensor) -> LossFunction:
        def loss(batch: Groups) -> Iterator[Loss]:
            yield Loss(((weight - batch.columns["x"]) ** 2).sum(), float(len(batch)))

        return loss

    weights = [nn.Parameter(torch.tensor([0.3, -0.7, 5.0])) for _ in range(3)]
    learners = [learner_of(weight, total=6, schedule="cosine", weight_decay=0.1) for weight in weights]
    stream = Fixed([rows(1.0)], 6)
    run(stream, square(weights[0]), learners[0])
    run(Fixed([rows(1.0)], 3), square(weights[1]), learners[1])
    blobs = whole(learners[1])
    learners[2].load_weights(blobs["weights.safetensors"])
    learners[2].load_moments(blobs["optimizer.safetensors"])
    learners[2].restore(learners[1].state())
    run(stream, square(weights[2]), learners[2], start=3)
    assert whole(learners[2]) == whole(learners[0])
    assert learners[2].state() == learners[0].state()


def test_the_optimizer_steps_of_an_update_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Told before the first, and after each."""
    weight = scalar()
    with caplog.at_level(logging.DEBUG, COUNTED):
        run(Fixed([rows(1.0), rows(2.0)], 1), linear(weight), learner_of(weight))
    told = [record.args for record in caplog.records if record.name == COUNTED]
    assert told == [(done, 2, "optimizer steps of update 1") for done in (0, 1, 2)]

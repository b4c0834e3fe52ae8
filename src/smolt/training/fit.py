"""The one loop: an algorithm is a stream of updates plus a loss.

A loss gives sums and counts; gradients of sums are added up and divided once by the count of the whole optimizer step,
so how a step is cut into micro-batches, or shared out to processes, never changes it. A loss may concern several roles
on one trunk: it yields one Loss a role, and each is sent backward before the next is computed (switching adapters
between a forward and its backward would lose or falsify gradients).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from smolt import processes, randomness
from smolt.config import Optim
from smolt.errors import SelfCheckError
from smolt.models.forward.process_group import add_up_gradients
from smolt.models.groups import Groups, cut, own_share
from smolt.runs.chunks import counted
from smolt.training.checks import Divergence, non_finite
from smolt.training.objectives import distribution
from smolt.training.optimizers.loss_scale import LossScale
from smolt.training.optimizers.parameter_groups import Role, optimizers_of
from smolt.training.optimizers.tensorfile import file_parts

Metrics = dict[str, Any]
Parts = Mapping[str, tuple[float | Tensor, float]]

ENDLESS = 2**31  # updates of a training that only the clock ends
NON_FINITE_LIMIT = 3  # optimizer steps in a row without a finite loss and gradient before the run stops
WITNESSED_UPDATES = 3  # by now every trained parameter has shown a gradient other than zero


@dataclass(frozen=True)
class Loss:
    """A loss over a micro-batch, not yet divided.

    Attributes:
        total: scalar with a gradient; without one where that came with another role's.
        count: what the sum of totals is divided by, summed over the optimizer step.
        metrics: name -> (sum, count), divided the same way for the record.
        role: whose parameters it trains.
        spread: name -> values whose distribution over the optimizer step is wanted, [any number].
        each: what every record of the micro-batch has of `total` and of `count`, [records] each, in `atoms`' order.
    """

    total: Tensor
    count: float
    metrics: Parts = field(default_factory=dict)
    role: str = "policy"
    spread: Mapping[str, Tensor] = field(default_factory=dict)
    each: tuple[Tensor, Tensor] | None = None

    @property
    def figures(self) -> Parts:
        """Its metrics, and itself under its role's name."""
        name = "loss" if self.role == "policy" else f"{self.role}_loss"
        return {name: (self.total, self.count), **self.metrics}


LossFunction = Callable[[Groups], Iterator[Loss]]


@dataclass
class Update:
    """One update of a stream: its optimizer steps, in order, and what is known before they are taken."""

    minibatches: Sequence[Groups]
    metrics: Metrics = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    roles: frozenset[str] | None = None  # roles that learn in this update; None = all


class Stream(Protocol):
    """What an algorithm learns from. Its state, beyond the number of updates done, is what `state` returns."""

    @property
    def total(self) -> int:
        """Updates in all."""

    def next(self, number: int) -> Update:
        """The update after `number` updates are done: a function of its arguments, the weights and the state."""

    def veto(self, step: int, batch: Groups, metrics: Metrics) -> str | None:
        """After the backward pass of optimizer step `step` of an update, over `batch`: why it must not be taken."""

    def observe(self, metrics: Metrics) -> str | None:
        """After an update: adapt what adapts; a reason ends the run."""

    def state(self) -> dict[str, Any]:
        """JSON of what `next` depends on besides the number of updates."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""


class Learner:
    """The optimizers over the roles' parameters, with the schedule and the checks that come before every step."""

    def __init__(self, roles: Mapping[str, Role], optim: Optim, total: int) -> None:
        self.roles = dict(roles)
        self.optim = optim
        self.total = total
        self.unwitnessed = {f"{role}/{name}" for role, part in roles.items() for name in part.parameters}
        self.steps: dict[str, int] = dict.fromkeys(roles, 0)
        self.bad = 0  # optimizer steps in a row without a finite loss and gradient
        self.scale = LossScale()
        self.divergence = Divergence(optim.divergence)
        device = next(iter(next(iter(roles.values())).parameters.values())).device
        self.fused = device.type in ("cpu", "cuda")
        self.optimizers = optimizers_of(roles, optim, self.fused)
        groups = [(group, optimizer) for optimizer in self.optimizers for group in optimizer.param_groups]
        self._holder = {parameter: optimizer for group, optimizer in groups for parameter in group["params"]}

    def factor(self, number: int) -> float:
        """The learning rate of update `number` (0-based) as a share of the peak."""
        if number < self.optim.warmup:
            return (number + 1) / self.optim.warmup
        left = max(1, self.total - self.optim.warmup)
        done = (number - self.optim.warmup) / left
        if self.optim.schedule == "linear":
            return 1 - done
        if self.optim.schedule == "cosine":
            return 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi, dtype=torch.float64))))
        return 1.0

    def divide(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Divide each role's summed gradients by its count and the loss scale; their norms before clipping, by role."""
        norms = {}
        for role, count in counts.items():
            gradients = add_up_gradients(self.roles[role].parameters.values()) if count else []
            if gradients:
                torch._foreach_mul_(gradients, 1 / (count * self.scale.value))
                norms[role] = float(torch.nn.utils.get_total_norm(gradients))
        return norms

    def step(self, norms: Mapping[str, float], number: int, learning: frozenset[str]) -> None:
        """Clip and step the roles that have a gradient and are learning; forget the gradients of the others."""
        for role in sorted(norms.keys() & learning):
            self._witness(role)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            role = group["role"]
            group["lr"] = self.optim.lr * group["rate"] * self.factor(number)
            if role not in norms or role not in learning:
                for parameter in group["params"]:
                    parameter.grad = None
                continue
            if self.optim.clip and norms[role] > self.optim.clip:
                shrink = self.optim.clip / norms[role]
                torch._foreach_mul_([p.grad for p in group["params"] if p.grad is not None], shrink)
        for optimizer in self.optimizers:
            optimizer.step()
        self.scale.stepped()
        self.forget()

    def problem(self, means: Metrics, norms: Mapping[str, float], number: int) -> str | None:
        """Why a step of update `number` (0-based) cannot be taken, or None.

        Raises:
            SelfCheckError: three in a row without a finite loss and gradient. Gradients that a smaller loss scale may
                make finite do not count.
        """
        loss = non_finite(means)
        gradient = non_finite({f"gradient of {role}": norm for role, norm in norms.items()})
        if not loss and gradient:
            overflow = self.scale.overflowed()
            if overflow:
                return overflow
        found = loss or gradient
        self.bad = self.bad + 1 if found else 0
        if self.bad == NON_FINITE_LIMIT:
            raise SelfCheckError(f"update {number + 1}: {found}, {self.bad} steps in a row; lower optim.lr")
        return found

    def forget(self) -> None:
        """Drop all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _witness(self, role: str) -> None:
        """Every trained parameter has a gradient at once, and one other than zero within three steps.

        Raises:
            SelfCheckError: names the parameters that do not learn.
        """
        if self.steps[role] >= WITNESSED_UPDATES:
            return
        self.steps[role] += 1
        for name, parameter in self.roles[role].parameters.items():
            if parameter.grad is None:
                raise SelfCheckError(f"{role}: {name} gets no gradient: it is trained but not used by the loss")
            if f"{role}/{name}" in self.unwitnessed and bool(parameter.grad.any()):
                self.unwitnessed.discard(f"{role}/{name}")
        still = sorted(name for name in self.unwitnessed if name.startswith(f"{role}/"))
        if self.steps[role] == WITNESSED_UPDATES and still:
            raise SelfCheckError(
                f"after {WITNESSED_UPDATES} steps the gradient of {still[0]} and {len(still) - 1} more is still "
                "exactly zero: an adapter that is not switched on, or a dtype that underflows"
            )

    def weights(self) -> dict[str, Tensor]:
        """All trained parameters, `role/name`."""
        return {
            f"{role}/{name}": value.detach()
            for role, part in self.roles.items()
            for name, value in part.parameters.items()
        }

    def blobs(self) -> dict[str, list[bytes | memoryview]]:
        """Weights and optimizer state as safetensors, in parts that are to be written before the next step."""
        moments: dict[str, Tensor] = {}
        for role, part in self.roles.items():
            for name, parameter in part.parameters.items():
                for key, value in self._holder[parameter].state.get(parameter, {}).items():
                    moments[f"{role}/{name}/{key}"] = value
        return {"weights.safetensors": file_parts(self.weights()), "optimizer.safetensors": file_parts(moments)}

    def load_weights(self, blob: bytes) -> None:
        """Put saved weights back, exactly."""
        saved = load_tensors(blob)
        with torch.no_grad():
            for name, value in self.weights().items():
                value.copy_(saved[name])

    def load_moments(self, blob: bytes) -> None:
        """Put the saved optimizer state back, exactly."""
        saved = load_tensors(blob)
        for role, part in self.roles.items():
            for name, parameter in part.parameters.items():
                prefix = f"{role}/{name}/"
                state = {key.removeprefix(prefix): value for key, value in saved.items() if key.startswith(prefix)}
                if state:
                    # The fused optimizer wants its step count on the device too.
                    self._holder[parameter].state[parameter] = {
                        key: value if key == "step" and not self.fused else value.to(parameter.device)
                        for key, value in state.items()
                    }

    def state(self) -> dict[str, Any]:
        """JSON of what the checks depend on."""
        return {
            "unwitnessed": sorted(self.unwitnessed),
            "steps": self.steps,
            "bad": self.bad,
            "scale": self.scale.state(),
            "divergence": self.divergence.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.unwitnessed, self.steps, self.bad = set(state["unwitnessed"]), dict(state["steps"]), state["bad"]
        self.scale.restore(state["scale"])
        self.divergence.restore(state["divergence"])


class Tally:
    """Sums and counts of metrics over micro-batches, and values whose distribution is wanted."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, float] = {}
        self.spread: dict[str, list[Tensor]] = {}

    def add(self, parts: Parts) -> None:
        """Another micro-batch's."""
        for name, (total, count) in parts.items():
            value = float(total.detach()) if isinstance(total, Tensor) else float(total)
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0.0) + count

    def gather(self, spread: Mapping[str, Tensor]) -> None:
        """Values of another micro-batch."""
        for name, values in spread.items():
            self.spread.setdefault(name, []).append(values.detach().cpu())

    def merge(self, other: "Tally") -> None:
        """All of another tally."""
        self.add({name: (total, other.counts[name]) for name, total in other.sums.items()})
        self.gather({name: torch.cat(values) for name, values in other.spread.items()})

    def means(self) -> Metrics:
        """Each sum by its count, where there is any; the distributions."""
        found: Metrics = {name: total / self.counts[name] for name, total in self.sums.items() if self.counts[name]}
        for name, values in self.spread.items():
            found |= distribution(name, torch.cat(values))
        return found


def of_all(tally: Tally, counts: dict[str, float]) -> tuple[Tally, dict[str, float]]:
    """What all processes have counted."""
    if not processes.sharing():
        return tally, counts
    whole, together = Tally(), dict[str, float]()
    for part, own in processes.gather((tally, counts)):
        whole.merge(part)
        together |= {role: together.get(role, 0.0) + count for role, count in own.items()}
    return whole, together


def accumulate(
    minibatch: Groups,
    loss: LossFunction,
    micro_tokens: int,
    scale: float = 1.0,
    shown: tuple[str, int, int] = ("", 0, 1),
) -> tuple[Tally, dict[str, float]]:
    """Backward over the micro-batches of one optimizer step, times `scale`: metrics, and each role's count.

    Each of several processes goes over its share; metrics and counts are those of all. `shown` is what of a count this
    step is, for whoever watches: its name, the steps before, all.
    """
    tally, counts = Tally(), dict[str, float]()
    own, (named, before, total) = own_share(minibatch), shown
    micros = [*cut(own, micro_tokens)] if own is not None else []
    for number, micro in enumerate(micros, 1):
        for part in loss(micro):
            counts[part.role] = counts.get(part.role, 0.0) + part.count
            tally.add(part.figures)
            tally.gather(part.spread)
            if part.count and part.total.requires_grad:
                (part.total if scale == 1 else part.total * scale).backward()
        counted(before + number / len(micros), total, named)
    return of_all(tally, counts)


def fit(
    stream: Stream, loss: LossFunction, learner: Learner, micro_tokens: int, seed: int, start: int = 0
) -> Iterator[tuple[Metrics, Update]]:
    """Train; yields after each update. Whoever iterates decides when to log, evaluate, save or stop.

    Args:
        stream: the updates.
        loss: Losses of a micro-batch, one a role.
        learner: the optimizer.
        micro_tokens: packed tokens of one forward; never changes the result.
        seed: with the update's number, seeds what dropout draws, in each process its own.
        start: updates already done.

    Raises:
        SelfCheckError: three steps in a row without a finite loss and gradient, a parameter that does not learn, or a
            training that diverged.
    """
    for number in range(start, stream.total):
        began = time.perf_counter()
        torch.manual_seed(randomness.key(seed, number, *processes.ordinal()) % 2**63)
        update = stream.next(number)
        prepared = time.perf_counter()
        named = f"optimizer steps of update {number + 1}"
        counted(0, len(update.minibatches), named)
        tally, events, steps, norm = Tally(), list[str](), 0, 0.0
        learning = update.roles if update.roles is not None else frozenset(learner.roles)
        for index, minibatch in enumerate(update.minibatches):
            parts, counts = accumulate(
                minibatch, loss, micro_tokens, learner.scale.value, (named, index, len(update.minibatches))
            )
            means, norms = parts.means(), learner.divide(counts)
            problem = learner.problem(means, norms, number)
            reason = problem or stream.veto(index, minibatch, means)
            if not problem:
                tally.merge(parts)
            if reason:
                learner.forget()
                events.append(f"step {index + 1} of {len(update.minibatches)} skipped: {reason}")
                if not problem:
                    break
                continue
            norm = max([norm, *norms.values()])
            learner.step(norms, number, learning)
            steps += 1
        ended = time.perf_counter()
        tokens = sum(minibatch.tokens for minibatch in update.minibatches)
        metrics: Metrics = {
            "step": number + 1,
            "seconds": ended - began,
            "tokens": tokens,
            "tokens_per_second": tokens / max(ended - began, 1e-9),
            **update.metrics,
            **tally.means(),
            "gradient_norm": norm,
            "learning_rate": learner.optim.lr * learner.factor(number),
            "optimizer_steps": steps,
            "training_seconds": ended - prepared,
        }
        stop = stream.observe(metrics)
        if not stop:  # a limit of the user's own comes first
            learner.divergence.look(metrics)
        if stop:
            metrics["stop"] = stop
        if events:
            metrics["events"] = [*metrics.get("events", []), *events]
        yield metrics, update
        if stop:
            return

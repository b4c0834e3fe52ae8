"""Checks before the first update, and of its course. Each names the likely cause: of an error, or in a warning."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from smolt import processes
from smolt.data import Question
from smolt.errors import SelfCheckError
from smolt.models.forward.kernels import kernels
from smolt.models.forward.trunk import Trunk
from smolt.models.groups import Groups, from_answers
from smolt.models.rendering import Renderer
from smolt.models.roles import Policy

LOG = logging.getLogger(__name__)
LOOKED_AT = 64
MANY, LATEST = 4, 5
"""So many of the latest updates with a loss that has risen are no accident of their records."""
SAME_POLICY = 1e-6
MANY_DROPPED = 0.1
"""Of the records, a share that is left out and worth a warning of the finished training."""
LITTLE = 5e-4
"""How far the weights of an adapter may come at the least, in a budget that doctor has nothing to say of."""
BALANCED = (1.0, 4 / 3)
"""Of the weights of all desirable and all undesirable answers, the ratio that the paper advises (eq. 8)."""


def forward_facts(trunk: Trunk) -> dict[str, Any]:
    """How the forward is computed, for the record."""
    precision = trunk.precision
    facts: dict[str, Any] = {
        "forward": "packed" if trunk.packed else "padded",
        "decoding": _decoding(trunk),
        "checkpointing": bool(trunk.recomputed),
        "device": precision.device.type,
        "dtype": str(precision.dtype).removeprefix("torch."),
        "parameters": sum(value.numel() for name, value in trunk.network.named_parameters() if not _added(name)),
    }
    notes = {
        "forward_note": trunk.why,
        "decoding_note": trunk.why_not_lean,
        "checkpointing_note": trunk.recomputed,
    }
    return facts | {name: note for name, note in notes.items() if note}


def _decoding(trunk: Trunk) -> str:
    """How an answer's next token is computed: through modules, straight over the weights, or so and compiled."""
    if not trunk.lean:
        return "modules"
    stored: torch.dtype = trunk.network.get_input_embeddings().weight.dtype
    alike = trunk.precision.device.type == "cpu" and stored == trunk.precision.dtype
    return "compiled" if alike and kernels(stored) is not None else "lean"


def _added(name: str) -> bool:
    """Whether a parameter is an adapter's: an arm with one is no larger than its base, and merged it is gone."""
    return any(part.startswith("lora_") or part == "modules_to_save" for part in name.split("."))


def answer_tokens_only(items: Sequence[Groups], renderer: Renderer) -> None:
    """The loss is on each answer and its stop token, exactly: that token ends the answer and stands nowhere else."""
    for number, item in enumerate(items[:LOOKED_AT]):
        for answer in item.answers:
            ids = answer.tolist()
            if ids[-1] != renderer.stop_id or renderer.stop_id in ids[:-1]:
                raise SelfCheckError(
                    f"record {number + 1}: the answer must end with the stop token {renderer.stop_id} and hold no "
                    f"other; it ends with {ids[-3:]} (chat template?)"
                )
        if int(item.mask.sum()) != sum(len(answer) for answer in item.answers):
            raise SelfCheckError(f"record {number + 1}: the loss mask is not the answer (padding)")


def stop_reachable(policy: Policy, renderer: Renderer, max_tokens: int, question: Question) -> None:
    """An answer can end: there is room for its stop token, the head has a row for it, its probability is not 0.

    Args:
        policy: who will answer.
        renderer: knows the stop token.
        max_tokens: longest answer, its stop token included.
        question: any; see `stop_probe`.

    Raises:
        SelfCheckError: it cannot.
    """
    stop = renderer.stop_id
    if max_tokens < 2:
        raise SelfCheckError(f"sampling.max_tokens is {max_tokens}: no room for an answer and its stop token")
    rows = policy.trunk.head.shape[0]
    if stop >= rows:
        raise SelfCheckError(f"the stop token {stop} has no row in the head of {rows} (another model's tokenizer?)")
    probe = stop_probe(renderer, question)
    with torch.no_grad():
        logprobs = policy(probe)[0][probe.mask.to(policy.trunk.precision.device)]
    if not bool(logprobs.isfinite().all()):
        raise SelfCheckError(f"the stop token {stop} can never be sampled: its log-probability is {logprobs.min():g}")


def stop_probe(renderer: Renderer, question: Question) -> Groups:
    """A question whose answer is the stop token twice, so after the context and after a token of the answer."""
    return from_answers(renderer.contexts([question.context]), [[[renderer.stop_id] * 2]])


def same_policy(policy: Policy, reference: Policy, groups: Groups) -> None:
    """At step 0 the policy is its reference: their log-probabilities are equal."""
    with torch.no_grad():
        difference = float((policy(groups)[0] - reference(groups)[0]).abs().max())
    if not difference <= SAME_POLICY:
        raise SelfCheckError(
            f"KL(policy, reference) at step 0 is not 0: log-probabilities differ by {difference:.1e} "
            "(another adapter, a different precision, or dropout that is on)"
        )


def balance_of_feedback(items: Sequence[Groups], desirable_weight: float, undesirable_weight: float) -> dict[str, int]:
    """How many answers are desirable and undesirable; a warning where their weights are far from balanced."""
    desirable = sum(int(item.columns["desirable"].sum()) for item in items)
    undesirable = len(items) - desirable
    ratio = desirable_weight * desirable / (undesirable_weight * undesirable)
    low, high = BALANCED
    if not low <= ratio <= high:
        least, most = (bound * undesirable_weight * undesirable / desirable for bound in BALANCED)
        LOG.warning(
            "%d desirable and %d undesirable answers weigh %.2f to 1, and %.2f to %.2f is advised: "
            "desirable_weight between %.2f and %.2f",
            *(desirable, undesirable, ratio, low, high, least, most),
        )
    return {"desirable": desirable, "undesirable": undesirable}


def hardly_moves(recipe: Any) -> list[str]:
    """Where a policy's adapter cannot go far within the budget, the sentence that says so.

    An adapter begins at no change, and Adam moves a weight by about the learning rate a step. SmolLM2-135M's answers
    moved by 0.00026 nats in 30 steps of GRPO at 1e-5 (bench/results/2026-11-30-published-smollm2.md).
    """
    updates, inner = recipe.budget.updates, getattr(recipe, "inner", None)
    if recipe.lora is None or updates is None or recipe.stage == "reward":
        return []
    if recipe.stage == "ppo":
        updates = max(0, updates - recipe.critic.warmup)
    steps = updates * (1 if inner is None else inner.epochs * inner.minibatches)
    far = steps * recipe.optim.lr
    if far >= LITTLE:
        return []
    return [
        f"{steps} optimizer steps at optim.lr {recipe.optim.lr:g} move a weight of the adapter by {far:.2g} at most: "
        "expect the model to answer as before (3e-4 moved SmolLM2-135M by 0.0003 nats an answer)"
    ]


def only_warmup(recipe: Any, updates: int | None, stays: str = "will stay") -> list[str]:
    """Where a PPO's updates are all for its critic, the sentence that says so."""
    warmup = recipe.critic.warmup if recipe.stage == "ppo" else 0
    if updates is None or not warmup or warmup < updates:
        return []
    counted = "1 update is" if warmup == 1 else f"{warmup} updates are"
    return [f"critic.warmup: {counted} all of the budget: the policy {stays} as it is"]


def cautions(recipe: Any, facts: Mapping[str, Any], updates: Sequence[Mapping[str, Any]]) -> list[str]:
    """What nobody should overlook who takes up a finished training: nothing was learned, or from little of the data.

    Args:
        recipe: the stage's.
        facts: counts `records` (used), `too_long` and `identical` of its data, as far as there are any.
        updates: rows of metrics.jsonl.
    """
    said = only_warmup(recipe, len(updates), "has stayed")
    if updates and all(row.get("optimizer_steps") == 0 for row in updates):
        silent = sum(row.get("abstained") or 0 for row in updates)
        said.append(
            f"none of {len(updates):,} updates took a step, so nothing was learned: no rewards that differ, or steps "
            "that were skipped" + (f"; {silent:,} answers got no reward, samples.jsonl says why" if silent else "")
        )
    dropped = {
        "they exceed the window": facts.get("too_long") or 0,
        "their two answers are the same": facts.get("identical") or 0,
    }
    whole = sum(dropped.values()) + facts.get("records", 0)
    said += [
        f"{count:,} of {whole:,} records ({count / whole:.0%}) were left out, for {why}"
        for why, count in dropped.items()
        if count > MANY_DROPPED * whole
    ]
    return said


def same_everywhere(weights: Mapping[str, Tensor]) -> None:
    """What is trained is the same in all processes, to the last bit."""
    if not processes.sharing():
        return
    sums = processes.gather([float(value.double().sum()) for value in weights.values()])
    other = next((rank for rank, found in enumerate(sums) if found != sums[0]), None)
    if other is not None:
        raise SelfCheckError(
            f"rank {other} has other weights than rank 0: all processes decide by the same numbers, so machines or "
            "libraries of several kinds, or several numbers of threads, are the likely cause"
        )


def non_finite(values: Mapping[str, Any]) -> str | None:
    """The first value that is not finite, named; None where all are."""
    for name, value in values.items():
        if value != value or value in (float("inf"), float("-inf")):
            return f"{name} is {value}"
    return None


class Divergence:
    """Stops a training that moves away from everything it knew, which more updates do not mend.

    Args:
        most: nats. A loss that stood so far above that of update 1 in four of the last five updates has diverged; and
            so has a policy that one update moves by a third of it, a token: by its KL to the reference where that is
            measured, else by its entropy. 0 never stops.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._first: float | None = None
        self._risen: list[bool] = []
        self._range: list[float] = []

    @property
    def suspected(self) -> bool:
        """The loss has risen, but not for long enough to tell; weights of now are not worth a checkpoint."""
        return self._risen[-1:] == [True]

    def look(self, metrics: Mapping[str, Any]) -> None:
        """After an update.

        Raises:
            SelfCheckError: it has diverged.
        """
        samples = "sampling_seconds" in metrics  # then the loss says nothing of how good the policy is
        found = None if not self._most else self._moved(metrics) if samples else self._rose(metrics)
        if found:
            raise SelfCheckError(
                f"update {metrics['step']}: the training diverged: {found}. Lower optim.lr (now "
                f"{metrics['learning_rate']:.2g}); checkpoints from before are kept, and --fresh starts over. "
                f"optim.divergence ({self._most:g}) says from where it counts; 0 never stops"
            )

    def _rose(self, metrics: Mapping[str, Any]) -> str | None:
        name = next((name for name in ("nll", "loss", "reward_loss") if name in metrics), None)  # CPO's sums are noisy
        if name is None:
            return None
        loss = metrics[name]
        if self._first is None:
            self._first = loss
        self._risen = [*self._risen, loss > self._first + self._most][-LATEST:]
        if sum(self._risen) < MANY:
            return None
        return f"its {'NLL' if name == 'nll' else 'loss'} is {loss:.3g}, and {self._first:.3g} in update 1"

    def _moved(self, metrics: Mapping[str, Any]) -> str | None:
        name, value = "entropy", metrics.get("entropy")
        if "kl" in metrics:
            name, value = "KL to its reference", metrics["kl"] and metrics["kl"] / metrics["length"]
        if value is None:
            return None
        low, high = self._range or ([0.0, 0.0] if "kl" in metrics else [value, value])
        self._range = [min(low, value), max(high, value)]
        if low - self._most / 3 <= value <= high + self._most / 3:
            return None
        return f"its {name} a token is {value:.3g} nats, and was {low:.3g} to {high:.3g} before"

    def state(self) -> dict[str, Any]:
        """JSON of what it remembers."""
        return {"first": self._first, "risen": self._risen, "range": self._range}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self._first, self._risen, self._range = state["first"], list(state["risen"]), list(state["range"])

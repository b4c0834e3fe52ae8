"""Checks before the first update. Each raises SelfCheckError and names the likely cause; nothing else stops a run."""

from collections.abc import Sequence
from typing import Any

import torch

from smolt.errors import SelfCheckError
from smolt.models.forward.trunk import Trunk
from smolt.models.groups import Groups
from smolt.models.rendering import Renderer
from smolt.models.roles import Policy

LOOKED_AT = 64
SAME_POLICY = 1e-6


def forward_facts(trunk: Trunk) -> dict[str, Any]:
    """How the forward is computed, for the record."""
    precision = trunk.precision
    facts: dict[str, Any] = {
        "forward": "packed" if trunk.packed else "padded",
        "decoding": "lean" if trunk.lean else "modules",
        "checkpointing": bool(trunk.recomputed),
        "device": precision.device.type,
        "dtype": str(precision.dtype).removeprefix("torch."),
        "parameters": sum(parameter.numel() for parameter in trunk.network.parameters()),
    }
    notes = {
        "forward_note": trunk.why,
        "decoding_note": trunk.why_not_lean,
        "checkpointing_note": trunk.recomputed,
    }
    return facts | {name: note for name, note in notes.items() if note}


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


def stop_reachable(policy: Policy, renderer: Renderer, max_tokens: int, probe: Groups) -> None:
    """An answer can end: there is room for its stop token, the head has a row for it, its probability is not 0.

    Args:
        policy: who will answer.
        renderer: knows the stop token.
        max_tokens: longest answer, its stop token included.
        probe: groups whose answers hold the stop token, after a context and after an answer token.

    Raises:
        SelfCheckError: it cannot.
    """
    stop = renderer.stop_id
    if max_tokens < 2:
        raise SelfCheckError(f"sampling.max_tokens is {max_tokens}: no room for an answer and its stop token")
    rows = policy.trunk.head.shape[0]
    if stop >= rows:
        raise SelfCheckError(f"the stop token {stop} has no row in the head of {rows} (another model's tokenizer?)")
    with torch.no_grad():
        logprobs = policy(probe)[0][probe.mask.to(policy.trunk.precision.device)]
    if not bool(logprobs.isfinite().all()):
        raise SelfCheckError(f"the stop token {stop} can never be sampled: its log-probability is {logprobs.min():g}")


def same_policy(policy: Policy, reference: Policy, groups: Groups) -> None:
    """At step 0 the policy is its reference: their log-probabilities are equal."""
    with torch.no_grad():
        difference = float((policy(groups)[0] - reference(groups)[0]).abs().max())
    if not difference <= SAME_POLICY:
        raise SelfCheckError(
            f"KL(policy, reference) at step 0 is not 0: log-probabilities differ by {difference:.1e} "
            "(another adapter, a different precision, or dropout that is on)"
        )

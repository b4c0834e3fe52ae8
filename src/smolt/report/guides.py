"""The headline metrics of a training curve, in the order they are shown, and what good looks like for each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MOST_PANELS = 6
MOST_POINTS = 300


@dataclass(frozen=True)
class Guide:
    """A metric of metrics.jsonl under the names it goes by."""

    title: str
    names: tuple[str, ...]
    good: str


@dataclass(frozen=True)
class Panel:
    """One metric of one arm's run: points (update, value), averaged to at most MOST_POINTS."""

    arm: str
    metric: str
    title: str
    good: str
    points: list[tuple[float, float]]


GUIDES = (
    Guide(
        "Reward", ("reward", "mean_reward", "reward_mean", "score"), "Good: rises, then levels off; a jump is suspect."
    ),
    Guide("Accuracy", ("accuracy",), "Good: rises above the starting point and stays there."),
    Guide("Margin", ("margin", "reward_margin"), "Good: grows slowly from 0; a fast climb is overfitting."),
    Guide(
        "KL to reference",
        ("kl_reference", "kl_sequence", "sequence_kl", "kl", "kl_k1", "k1"),
        "Good: grows slowly and stays small; never below 0 for long.",
    ),
    Guide("Loss", ("loss",), "Good: falls and flattens; below the held-out loss for long is overfitting."),
    Guide("Policy loss", ("policy_loss", "surrogate"), "Good: small, around 0, without spikes; its level says little."),
    Guide("Value loss", ("value_loss", "critic_loss"), "Good: falls early, then follows the reward."),
    Guide("Explained variance", ("explained_variance",), "Good: rises from 0 towards 1; below 0 the critic misleads."),
    Guide("Entropy", ("entropy",), "Good: falls gently; near 0 the answers have become all alike."),
    Guide(
        "Log-probability of the chosen",
        ("logp_chosen", "chosen_logp", "logprobs_chosen", "chosen_logprobs", "chosen_logprob"),
        "Good: does not fall; a fall means good answers become less likely too.",
    ),
    Guide(
        "Answer length",
        ("length", "answer_length", "mean_length", "answer_tokens"),
        "Good: no drift that the task does not explain.",
    ),
    Guide("Stopped by itself", ("stop_rate", "stopped"), "Good: close to 1; a fall means answers run into the limit."),
    Guide(
        "Clipped share", ("clip_fraction", "clipped"), "Good: below about 0.2; 0 throughout means the clip never acts."
    ),
    Guide(
        "Groups without signal",
        ("groups_without_signal", "no_signal", "empty_groups", "dropped_groups"),
        "Good: well below 1; such groups teach nothing.",
    ),
    Guide("Gradient norm", ("gradient_norm", "grad_norm"), "Good: steady; spikes come before collapses."),
)
_NOT_METRICS = frozenset({"step", "update", "seconds", "tokens", "tokens_per_second", "time", "epoch", "seed"})


def panels(arm: str, curve: Sequence[dict[str, Any]]) -> list[Panel]:
    """The headline metrics of a run as panels, in the order of GUIDES; a metric with fewer than two points is left out.

    Where no name is known, the first metrics of the rows are shown without a word on what good looks like.
    """
    names = list(dict.fromkeys(name for row in curve for name in row if name not in _NOT_METRICS))
    known = [(guide, name) for guide in GUIDES for name in [_named(guide, names)] if name is not None]
    chosen = [Panel(arm, name, guide.title, guide.good, _points(curve, name)) for guide, name in known]
    if not chosen:
        chosen = [Panel(arm, name, name, "", _points(curve, name)) for name in names]
    return [panel for panel in chosen if len(panel.points) > 1][:MOST_PANELS]


def _named(guide: Guide, names: Sequence[str]) -> str | None:
    """The first name of the rows that the guide knows; `train/loss` counts as `loss`, held-out ones do not."""
    for wanted in guide.names:
        for name in names:
            if name in (wanted, f"train/{wanted}", f"train_{wanted}"):
                return name
    return None


def _points(curve: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    points = [
        (float(_finite(row.get("step")) or 0.0) if _finite(row.get("step")) is not None else float(place), value)
        for place, row in enumerate(curve)
        if (value := _finite(row.get(name))) is not None
    ]
    stride = math.ceil(len(points) / MOST_POINTS)
    if stride <= 1:
        return points
    cut = [points[start : start + stride] for start in range(0, len(points), stride)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in cut]


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)

"""The headline metrics of a training curve, in the order they are shown, and what good looks like for each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MOST_PANELS = 6
MOST_POINTS = 300
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One metric of one arm's run: points (update, value), those of the run averaged to at most MOST_POINTS.

    Attributes:
        held_out: what was measured on held-out data.
        ends: of these, where it is known, the 95 % interval: (update, low, high).
    """

    arm: str
    metric: str
    title: str
    good: str
    points: Points
    held_out: Points
    ends: tuple[tuple[float, float, float], ...] = ()


GUIDES: dict[str, tuple[str, str]] = {
    "reward": ("Reward", "Good: rises, then levels off; a sudden jump is suspect."),
    "loss": ("Loss", "Good: falls and flattens; held out, it must not turn upwards."),
    "reward_loss": ("Loss", "Good: falls below 0.69, a coin's; held out, it must not turn upwards."),
    "accuracy": ("Accuracy on pairs", "Good: rises from 0.5; held out, it follows."),
    "margin": ("Margin", "Good: grows slowly from 0; a fast climb is overfitting."),
    "nll": ("NLL of the better answers", "Good: falls or stays; a rise means the pairs cost fluency."),
    "chosen_reward": (
        "Reward, chosen",
        "Good: stays where it begins (0 beside a reference) or rises; a fall makes good answers less likely too.",
    ),
    "rejected_reward": ("Reward, rejected", "Good: falls, but gently; a plunge drags the chosen along."),
    "desirable_reward": ("Reward, desirable", "Good: rises above 0, then levels off."),
    "undesirable_reward": ("Reward, undesirable", "Good: falls below 0, gently; a plunge drags the desirable along."),
    "kl": ("KL to reference", "Good: grows slowly and stays small; never below 0 for long."),
    "entropy": ("Entropy", "Good: falls gently; near 0 the answers have become all alike."),
    "stop_rate": ("Stopped by itself", "Good: close to 1; a fall means answers run into the limit."),
    "length": ("Answer length", "Good: no drift that the task does not explain."),
    "signal": ("Groups with signal", "Good: stays well above 0; a group whose rewards are all equal teaches nothing."),
    "explained_variance": ("Explained variance", "Good: rises from 0 towards 1; below 0 the critic misleads."),
    "critic_loss": ("Critic loss", "Good: falls early, then follows the reward."),
    "clip_fraction": ("Clipped share", "Good: below about 0.2."),
    "brier": ("Brier score", "Good: falls below what the commonest answer's share would give everywhere."),
    "gradient_norm": ("Gradient norm", "Good: steady; spikes come before collapses."),
}
"""Metric -> (title, what good looks like)."""

HEADLINES: dict[str, tuple[str, ...]] = {
    "pretrain": ("loss", "entropy", "gradient_norm"),
    "sft": ("loss", "entropy", "gradient_norm"),
    "reward": ("reward_loss", "accuracy", "margin"),
    "dpo": ("loss", "accuracy", "margin", "nll", "chosen_reward", "rejected_reward", "gradient_norm"),
    "decide": ("loss", "accuracy", "brier", "gradient_norm"),
    "kto": ("loss", "accuracy", "kl", "desirable_reward", "undesirable_reward", "gradient_norm"),
    "ppo": ("reward", "kl", "entropy", "stop_rate", "length", "explained_variance"),
    "grpo": ("reward", "kl", "entropy", "stop_rate", "length", "signal"),
    "online_dpo": ("reward", "kl", "margin", "chosen_reward", "rejected_reward", "length"),
    "distill": ("loss", "entropy", "stop_rate", "length", "gradient_norm"),
}
"""Stage -> its headline metrics; a run with none of them shows what GUIDES knows, in that order."""

_NOT_METRICS = frozenset(
    {"step", "seconds", "tokens", "tokens_per_second", "epoch", "learning_rate", "optimizer_steps"}
)


def curves_of(arm: str, stage: str, curve: Sequence[dict[str, Any]]) -> list[Curve]:
    """The headline metrics of a run; one with fewer than two points is left out.

    Where no name is known, the first metrics of the rows are shown without a word on what good looks like.
    """
    recorded = [name for name in dict.fromkeys(name for row in curve for name in row) if name not in _NOT_METRICS]
    drawable = [name for name in recorded if len(_points(curve, name)) > 1]
    names: list[str] = []
    for known in (HEADLINES.get(stage, ()), tuple(GUIDES), drawable):
        names = names or [name for name in known if name in drawable]
    found = []
    for name in names[:MOST_PANELS]:
        title, good = GUIDES.get(name, (name, ""))
        measured = f"dev/{'loss' if name == 'reward_loss' else name}"
        points, held_out = _thinned(_points(curve, name)), _points(curve, measured)
        highs = dict(_points(curve, f"{measured}_high"))
        ends = tuple((step, low, highs[step]) for step, low in _points(curve, f"{measured}_low") if step in highs)
        found.append(Curve(arm, name, title, good, points, held_out, ends))
    return found


def running_mean(values: Sequence[float]) -> list[float]:
    """A centred running mean over a tenth of the run."""
    reach = max(1, len(values) // 20)
    windows = [values[max(0, place - reach) : place + reach + 1] for place in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _points(curve: Sequence[dict[str, Any]], name: str) -> Points:
    """(update, value) of the rows that carry a finite value; a row without a step counts by its place.

    An accuracy says nothing where the margin is exactly 0, as before the first step: no pair could lead, so it is 0.
    """
    points = []
    curve = [row for row in curve if name != "accuracy" or row.get("margin") != 0]
    for place, row in enumerate(curve, start=1):
        step, value = _finite(row.get("step")), _finite(row.get(name))
        if value is not None:
            points.append((float(place) if step is None else step, value))
    return points


def _thinned(points: Points) -> Points:
    """Neighbours averaged until at most MOST_POINTS are left."""
    stride = math.ceil(len(points) / MOST_POINTS)
    if stride <= 1:
        return points
    cut = [points[start : start + stride] for start in range(0, len(points), stride)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in cut]


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)

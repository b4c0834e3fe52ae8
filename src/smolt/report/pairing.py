"""Answers side by side: an answer's number in a metric, who answered the same question, the paired test of two arms."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from smolt import statistics
from smolt.report.record import Arm, StudyRecord
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics import Comparison, Measure

METRICS = ("accuracy", "reward", "kl", "length", "stop_rate")
PART = "reward/"
"""Before the name of a part of the reward."""
RATES = frozenset({"accuracy", "stop_rate"})
_LEARNED = re.compile(r"(model|ensemble)(_\d+)?(\.|$)")
Pair = tuple[RatedAnswer, RatedAnswer]


@dataclass(frozen=True)
class Compared:
    """A comparison in its family.

    Attributes:
        against: what a is to b.
        both_right: of the ties, the answers that both have right; None where the metric is not right or wrong.
    """

    comparison: Comparison
    against: Literal["baseline", "control"]
    both_right: int | None = None


def rating(item: RatedAnswer, metric: str) -> float | None:
    """An answer's number in a metric, or in a part of its reward (`reward/NAME`); None where it has none."""
    values: dict[str, float | None] = {
        "accuracy": None if item.correct is None else float(item.correct),
        "reward": item.reward,
        "kl": item.kl,
        "length": float(item.tokens) if item.tokens else None,
        "stop_rate": float(item.stopped) if item.tokens else None,
    }
    value = values[metric] if metric in values else item.components.get(metric.removeprefix(PART))
    return value if value is not None and math.isfinite(value) else None


def parts_of(arms: Sequence[Arm]) -> list[str]:
    """The names of the parts of the reward that any answer carries."""
    return sorted({name for arm in arms for item in arm.items for name in item.components})


def bounded(items: Sequence[RatedAnswer], metric: str) -> bool:
    """Whether the numbers come from a range: a rule's, a judge's grades, tokens up to a limit; a KL's do not."""
    return has_range(metric, {name for item in items for name in item.components})


def has_range(metric: str, parts: Iterable[str]) -> bool:
    """The same of a metric's name and the names of the reward's parts."""
    return metric != "kl" and ranged(parts if metric == "reward" else [metric.removeprefix(PART)])


def ranged(parts: Iterable[str]) -> bool:
    """Whether a reward of these parts has a range: the score of a reward model may be any number."""
    return not any(_LEARNED.match(name) for name in parts)


def measure(items: Sequence[RatedAnswer], metric: str) -> Measure | None:
    """A metric, or a part of the reward, over answers; None where none carries it."""
    rows = [(value, item.key) for item in items if (value := rating(item, metric)) is not None]
    values, prompts = [value for value, _ in rows], [prompt for _, prompt in rows]
    if metric == "length":  # a count: 0 and 1 mean nothing special
        return statistics.mean(values, prompts, bounded=True)
    return statistics.measure(values, prompts, rate=metric in RATES, bounded=bounded(items, metric))


def paired(a: Arm, b: Arm) -> list[Pair]:
    """The answers of two arms to the same questions, in the order of the arm that was trained more often.

    The k-th answer to a question goes with the other arm's k-th; training runs are paired by seed, and an arm that was
    trained once is paired with every run of the other.
    """
    if len(seeds(a)) > len(seeds(b)):
        return [(first, second) for second, first in paired(b, a)]
    single = next(iter(seeds(a))) if len(seeds(a)) == 1 else None
    places = {(item.seed, item.key, count): item for item, count in _counted(a.items)}
    pairs = []
    for item, count in _counted(b.items):
        other = places.get((item.seed if single is None else single, item.key, count))
        if other is not None:
            pairs.append((other, item))
    return pairs


def rated(pairs: Sequence[Pair], metric: str) -> list[tuple[float, float, str]]:
    """The pairs of which both have a number in the metric, as (a, b, question key)."""
    rows = [(rating(first, metric), rating(second, metric), second.key) for first, second in pairs]
    return [(first, second, key) for first, second, key in rows if first is not None and second is not None]


def compare(a: Arm, b: Arm, metric: str) -> Comparison | None:
    """One paired comparison; None where one of the two carries no such metric at all."""
    if all(rating(item, metric) is None for item in a.items) or all(rating(item, metric) is None for item in b.items):
        return None
    return compare_rated(a.name, b.name, metric, rated(paired(a, b), metric))


def compare_rated(a: str, b: str, metric: str, rows: Sequence[tuple[float, float, str]]) -> Comparison:
    """The paired test of rows (a's number, b's, question key)."""
    first, second, prompts = ([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    return statistics.compare(a, b, metric, first, second, prompts, rate=metric in RATES)


def seeds(arm: Arm) -> set[int]:
    """The training runs that the arm's answers come from."""
    return {item.seed for item in arm.items}


def both_right(a: Arm, b: Arm, metric: str) -> int | None:
    """On how many shared questions both arms are right; None for a metric that is no rate."""
    if metric not in RATES:
        return None
    return sum(bool(first and second) for first, second, _ in rated(paired(a, b), metric))


def _counted(items: Sequence[RatedAnswer]) -> list[tuple[RatedAnswer, int]]:
    """Each item with the number of earlier answers of the same run to the same question."""
    seen: Counter[tuple[int, str]] = Counter()
    counted = []
    for item in items:
        counted.append((item, seen[item.seed, item.key]))
        seen[item.seed, item.key] += 1
    return counted


def of_role(record: StudyRecord, *roles: str) -> list[Arm]:
    """Arms of these roles that have answers, the baseline left out."""
    return [arm for arm in record.arms if arm.role in roles and arm.name != record.baseline and arm.items]


def baseline_of(record: StudyRecord) -> Arm | None:
    """The arm the others are compared with, where it has answers."""
    return next((arm for arm in record.arms if arm.name == record.baseline and arm.items), None)

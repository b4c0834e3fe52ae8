"""The reward's parts: what each arm got from which, and the parts that say nothing as they never or always fire."""

import math
from collections import Counter

from smolt.panels import Panel, Table
from smolt.report.analysis import Analysis
from smolt.report.records import Arm, StudyRecord
from smolt.statistics import Measure, proportion

SATURATED = 0.99
FEWEST = 20  # answers below which nothing is called saturated


def panel(record: StudyRecord, analysis: Analysis) -> Panel | None:
    """Means and shares by arm with alarms; None where no answer has parts."""
    names = sorted({name for arm in record.arms for item in arm.items for name in item.components})
    arms = [arm for arm in record.arms if any(item.components for item in arm.items)]
    if not names:
        return None
    columns = ("Part", *(arm.name for arm in arms))
    means = tuple((name, *(analysis.measures[arm.name].get(f"reward/{name}") for arm in arms)) for name in names)
    fired = tuple((name, *(_fired(arm, name) for arm in arms)) for name in names)
    return Panel(
        name="components",
        title="Reward by part",
        sentences=tuple(sentence for name in names if (sentence := _saturated(arms, name))),
        warnings=tuple(sentence for name in names if (sentence := _never(arms, name))),
        tables=(
            Table("Mean of each part, before its weight, with 95 % intervals.", columns, means),
            Table(
                "Share of answers on which a part fired (was not 0), with 95 % intervals.", columns, fired, rate=True
            ),
        ),
    )


def _values(arm: Arm, name: str) -> list[float]:
    found = (item.components.get(name) for item in arm.items)
    return [value for value in found if value is not None and math.isfinite(value)]


def _fired(arm: Arm, name: str) -> Measure | None:
    rows = [(item.components.get(name), item.key) for item in arm.items]
    kept = [(value != 0, key) for value, key in rows if value is not None and math.isfinite(value)]
    return proportion([flag for flag, _ in kept], [key for _, key in kept])


def _never(arms: list[Arm], name: str) -> str:
    values = [value for arm in arms for value in _values(arm, name)]
    if not values or any(values):
        return ""
    return f"{name} never fired: 0 on all {len(values):,} answers, so it rewarded nothing."


def _saturated(arms: list[Arm], name: str) -> str:
    """A part with one and the same value on nearly all answers, other than 0."""
    values = [value for arm in arms for value in _values(arm, name)]
    if len(values) < FEWEST:
        return ""
    (common, count), *_ = Counter(values).most_common(1)
    if common == 0 or count < SATURATED * len(values):
        return ""
    return (
        f"{name} is saturated: {common:.3g} on {count:,} of {len(values):,} answers, so it cannot tell answers apart."
    )

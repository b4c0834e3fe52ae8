"""The reward's parts: what each arm got from which, and the parts that say nothing as they never or always fire.

Of the final answers and of those that ppo and grpo gave at the end of their training.
"""

from collections import Counter

from smolt.report.analysis import Analysis
from smolt.report.pairing import PART, parts_of, rating
from smolt.report.panels import Panel, Table
from smolt.report.record import Arm, LatePart, StudyRecord
from smolt.statistics import Measure, proportion

SATURATED = 0.99
FEWEST = 20  # answers below which nothing is called saturated
SPENT = 0.95  # share of a training's answers at a part's maximum, above which few groups have any signal from it


def panel(record: StudyRecord, analysis: Analysis) -> Panel | None:
    """Means and shares by arm with alarms; None where no answer has parts."""
    names = parts_of(record.arms)
    told = [name for name in names if PART + name not in analysis.repeats]
    arms = [arm for arm in record.arms if any(item.components for item in arm.items)]
    late = tuple(warning for arm in record.arms for warning in _in_training(arm))
    if not names and not late:
        return None
    columns = ("Part", *(arm.name for arm in arms))
    means = tuple((name, *(analysis.measures[arm.name].get(PART + name) for arm in arms)) for name in told)
    fired = tuple((name, *(_fired(arm, name) for arm in arms)) for name in told)
    return Panel(
        name="components",
        title="Reward by part",
        sentences=tuple(sentence for name in names if (sentence := _saturated(arms, name))),
        warnings=(*(sentence for name in names if (sentence := _never(arms, name))), *late),
        tables=(
            Table("Mean of each part, before its weight, with 95 % intervals.", columns, means),
            Table(
                "Share of answers to which a part gave anything but 0, with 95 % intervals.", columns, fired, rate=True
            ),
        ),
    )


def _in_training(arm: Arm) -> list[str]:
    """The parts from which there was nothing left to learn at the end of an arm's training.

    Of the parts of a part (`format.boxed`) only those that never fired: whether another is to vary, its rule knows.
    """
    silent = {name for name, part in arm.late_parts.items() if _silent(part)}
    found = []
    for name, part in arm.late_parts.items():
        whole = name.partition(".")[0]
        if name in silent and (name == whole or whole not in silent):
            found.append(f"{arm.name}, in training: {name} {_since(part)}: {_span(part, part.zeros, 0.0)}.")
        elif name == whole and _spent(part):
            found.append(
                f"{arm.name}, in training: {name} is saturated: {_span(part, part.at_most, part.most)}, so answers "
                "to one question hardly differ in it."
            )
    return found


def _penalty(part: LatePart) -> bool:
    """Whether it only ever took away: then 0 is its best, and to fire rarely is its success."""
    return part.least < 0 and part.most <= 0


def _silent(part: LatePart) -> bool:
    """Whether it was 0 throughout at the end."""
    return part.answers >= FEWEST and part.zeros == part.answers and not _penalty(part)


def _spent(part: LatePart) -> bool:
    """Whether it stood at its maximum nearly always."""
    constant = part.least == part.most
    return part.answers >= FEWEST and part.at_most >= SPENT * part.answers and (constant or not _penalty(part))


def _since(part: LatePart) -> str:
    return "never fired" if part.least == part.most == 0 else "no longer fires"


def _span(part: LatePart, count: int, value: float) -> str:
    return f"{value:.3g} on {count:,} of {part.answers:,} answers in updates {part.first} to {part.last}"


def _values(arm: Arm, name: str) -> list[float]:
    return [value for item in arm.items if (value := rating(item, PART + name)) is not None]


def _fired(arm: Arm, name: str) -> Measure | None:
    kept = [(value != 0, item.key) for item in arm.items if (value := rating(item, PART + name)) is not None]
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

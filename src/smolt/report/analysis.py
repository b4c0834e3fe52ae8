"""From a study record to measures, paired comparisons and the sentences of the verdict."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from smolt import statistics
from smolt.report.records import Arm, Item, StudyRecord
from smolt.statistics import Comparison, Measure

METRICS = ("accuracy", "reward", "kl", "length", "stop_rate")
RATES = frozenset({"accuracy", "stop_rate"})
ONE_RUN = "There was one training run per arm: run-to-run variation was not measured."
Pair = tuple[Item, Item]


@dataclass(frozen=True)
class Compared:
    """A comparison with its Holm-adjusted p-value over all comparisons of its metric, and what a is to b."""

    comparison: Comparison
    p_holm: float | None
    against: Literal["baseline", "control"]


@dataclass(frozen=True)
class Analysis:
    """All numbers of a report.

    Attributes:
        measures: arm -> metric -> measure; a metric no answer of the arm carries is absent.
        by_kind: kind -> arm -> the headline metric; empty with fewer than two kinds.
        length_reward: arm -> correlation of length (tokens) and reward over answers.
        best: the candidate with the largest difference from the baseline in the headline metric.
        caveats: what was left out, in sentences.
    """

    headline: str
    measures: dict[str, dict[str, Measure]]
    comparisons: list[Compared]
    by_kind: dict[str, dict[str, Measure]]
    length_reward: dict[str, Measure]
    best: str | None
    verdicts: list[str]
    caveats: list[str]


def analyse(record: StudyRecord) -> Analysis:
    """Measure every arm, compare candidates and controls with the baseline and candidates with controls."""
    measures = {arm.name: measure_arm(arm) for arm in record.arms}
    comparisons = _comparisons(record)
    headline = _headline(record, measures)
    return Analysis(
        headline=headline,
        measures=measures,
        comparisons=comparisons,
        by_kind=_by_kind(record, headline),
        length_reward=_length_reward(record),
        best=_best(record, comparisons, headline),
        verdicts=_verdicts(record, measures, comparisons, headline),
        caveats=_caveats(record),
    )


def rating(item: Item, metric: str) -> float | None:
    """An answer's number in a metric; None where it has none."""
    values: dict[str, float | None] = {
        "accuracy": None if item.correct is None else float(item.correct),
        "reward": item.reward,
        "kl": item.kl,
        "length": float(item.tokens),
        "stop_rate": float(item.stopped),
    }
    value = values[metric]
    return value if value is not None and math.isfinite(value) else None


def measure_arm(arm: Arm) -> dict[str, Measure]:
    """The metrics of one arm, its reward's components as `reward/NAME`, and its extra measures."""
    found = {metric: _measure(arm.items, metric) for metric in METRICS}
    for name in sorted({name for item in arm.items for name in item.components}):
        found[f"reward/{name}"] = _component(arm.items, name)
    measured = {metric: measure for metric, measure in found.items() if measure is not None}
    return measured | arm.extra_measures


def paired(a: Arm, b: Arm) -> list[Pair]:
    """The answers of two arms to the same questions, in the order of the arm that was trained more often.

    The k-th answer to a question goes with the other arm's k-th; training runs are paired by seed, and an arm that was
    trained once is paired with every run of the other.
    """
    if len(_seeds(a)) > len(_seeds(b)):
        return [(first, second) for second, first in paired(b, a)]
    single = next(iter(_seeds(a))) if len(_seeds(a)) == 1 else None
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
    rows = rated(paired(a, b), metric)
    first, second, prompts = ([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    if metric in RATES:
        right, other = [bool(value) for value in first], [bool(value) for value in second]
        return statistics.compare_binary(a.name, b.name, metric, right, other, prompts)
    return statistics.compare_scores(a.name, b.name, metric, first, second, prompts)


def _seeds(arm: Arm) -> set[int]:
    return {item.seed for item in arm.items}


def _counted(items: Sequence[Item]) -> list[tuple[Item, int]]:
    """Each item with the number of earlier answers of the same run to the same question."""
    seen: Counter[tuple[int, str]] = Counter()
    counted = []
    for item in items:
        counted.append((item, seen[item.seed, item.key]))
        seen[item.seed, item.key] += 1
    return counted


def _measure(items: Sequence[Item], metric: str) -> Measure | None:
    rows = [(value, item.key) for item in items if (value := rating(item, metric)) is not None]
    values, prompts = [value for value, _ in rows], [prompt for _, prompt in rows]
    if metric in RATES:
        return statistics.proportion([bool(value) for value in values], prompts)
    return statistics.mean(values, prompts)


def _component(items: Sequence[Item], name: str) -> Measure | None:
    rows = [(item.components.get(name), item.key) for item in items]
    kept = [(value, prompt) for value, prompt in rows if value is not None and math.isfinite(value)]
    return statistics.mean([value for value, _ in kept], [prompt for _, prompt in kept])


def _of_role(record: StudyRecord, *roles: str) -> list[Arm]:
    return [arm for arm in record.arms if arm.role in roles and arm.name != record.baseline and arm.items]


def _baseline(record: StudyRecord) -> Arm | None:
    return next((arm for arm in record.arms if arm.name == record.baseline and arm.items), None)


def _comparisons(record: StudyRecord) -> list[Compared]:
    planned: list[tuple[Arm, Arm, Literal["baseline", "control"]]] = []
    baseline = _baseline(record)
    candidates, controls = _of_role(record, "candidate"), _of_role(record, "control")
    if baseline is not None:
        planned += [(baseline, arm, "baseline") for arm in candidates]
    planned += [(control, arm, "control") for control in controls for arm in candidates]
    if baseline is not None:
        planned += [(baseline, arm, "baseline") for arm in controls]
    metrics = sorted(("accuracy", "reward"), key=lambda metric: metric != record.metric)
    return [compared for metric in metrics for compared in _family(planned, metric)]


def _family(planned: Sequence[tuple[Arm, Arm, Literal["baseline", "control"]]], metric: str) -> list[Compared]:
    """All comparisons of one metric, adjusted together."""
    found = [(compare(a, b, metric), against) for a, b, against in planned]
    kept = [(comparison, against) for comparison, against in found if comparison is not None]
    adjusted = statistics.holm([comparison.p_value for comparison, _ in kept])
    size = sum(p_value is not None for p_value in adjusted)
    return [
        Compared(statistics.with_verdict(comparison, p_holm, size), p_holm, against)
        for (comparison, against), p_holm in zip(kept, adjusted, strict=True)
    ]


def _headline(record: StudyRecord, measures: dict[str, dict[str, Measure]]) -> str:
    """The record's metric where any arm carries it, else the first metric that one does."""
    for metric in (record.metric, *METRICS):
        if any(metric in measured for measured in measures.values()):
            return metric
    return record.metric


def _by_kind(record: StudyRecord, metric: str) -> dict[str, dict[str, Measure]]:
    counts = Counter(item.kind for arm in record.arms for item in arm.items)
    if len(counts) < 2:
        return {}
    table: dict[str, dict[str, Measure]] = {}
    for kind, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        cells = {arm.name: _measure([item for item in arm.items if item.kind == kind], metric) for arm in record.arms}
        table[kind] = {name: cell for name, cell in cells.items() if cell is not None}
    return {kind: cells for kind, cells in table.items() if cells}


def _length_reward(record: StudyRecord) -> dict[str, Measure]:
    found = {}
    for arm in record.arms:
        rows = [(float(item.tokens), value) for item in arm.items if (value := rating(item, "reward")) is not None]
        found[arm.name] = statistics.correlation([length for length, _ in rows], [value for _, value in rows])
    return {name: measure for name, measure in found.items() if measure is not None}


def _best(record: StudyRecord, comparisons: Sequence[Compared], headline: str) -> str | None:
    candidates = {arm.name for arm in record.arms if arm.role == "candidate"}
    ranked = [
        (entry.comparison.difference, entry.comparison.b)
        for entry in comparisons
        if entry.against == "baseline" and entry.comparison.metric == headline and entry.comparison.b in candidates
    ]
    known = [(difference, name) for difference, name in ranked if difference is not None]
    return max(known, key=lambda entry: entry[0])[1] if known else None


def _verdicts(
    record: StudyRecord,
    measures: dict[str, dict[str, Measure]],
    comparisons: Sequence[Compared],
    headline: str,
) -> list[str]:
    sentences = [entry.comparison.sentence for entry in comparisons if entry.comparison.metric == headline]
    if not sentences:
        return [f"Nothing was compared: {_why_not(record, measures, headline)}."]
    return [*sentences, *_runs(record, headline)]


def _why_not(record: StudyRecord, measures: dict[str, dict[str, Measure]], headline: str) -> str:
    answered = [name for name, measured in measures.items() if headline in measured]
    if not answered:
        return "no answer has been rated"
    if len(answered) == 1:
        return f"{answered[0]} is the only arm with {headline}"
    if not record.baseline:
        return "the study names no baseline"
    return f"{record.baseline}, the baseline, and the other arms share no metric"


def _runs(record: StudyRecord, headline: str) -> list[str]:
    """What is known of the variation between training runs: the difference from the baseline in each."""
    baseline = _baseline(record)
    others = _of_role(record, "candidate", "control")
    if baseline is None or max(len(_seeds(arm)) for arm in (baseline, *others)) == 1:
        return [ONE_RUN]
    listed = [(arm, _differences_by_run(baseline, arm, headline)) for arm in others]
    scale, unit = (100.0, " points") if headline in RATES else (1.0, "")
    sentences = [
        f"{arm.name} against {baseline.name}, {headline} by training run: "
        f"{', '.join(f'{scale * difference:+.3g}' for difference in differences)}{unit}."
        for arm, differences in listed
        if len(differences) > 1
    ]
    return [*sentences, "The tests above resample questions, not training runs."]


def _differences_by_run(a: Arm, b: Arm, metric: str) -> list[float]:
    by_run: dict[tuple[int, int], list[Pair]] = {}
    for first, second in paired(a, b):
        by_run.setdefault((first.seed, second.seed), []).append((first, second))
    rows = [rated(pairs, metric) for _, pairs in sorted(by_run.items())]
    return [sum(second - first for first, second, _ in run) / len(run) for run in rows if run]


def _caveats(record: StudyRecord) -> list[str]:
    """Answers without a rating, and questions that only one of two arms answered."""
    sentences = []
    for arm in record.arms:
        for metric in ("accuracy", "reward"):
            missing = sum(rating(item, metric) is None for item in arm.items)
            if 0 < missing < len(arm.items):
                sentences.append(f"{arm.name}: {missing:,} of {len(arm.items):,} answers have no {metric}.")
    baseline = _baseline(record)
    asked = {item.key for item in baseline.items} if baseline is not None else set()
    for arm in _of_role(record, "candidate", "control") if asked else []:
        answered = {item.key for item in arm.items}
        if answered != asked:
            sentences.append(
                f"{arm.name} against {record.baseline}: {len(asked ^ answered):,} of {len(asked | answered):,} "
                "questions were answered by only one of the two and are left out."
            )
    return sentences

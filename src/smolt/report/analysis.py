"""From a study record to all numbers of its report: measures, paired comparisons, verdicts, caveats."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from smolt import statistics
from smolt.report.pairing import METRICS, RATES, Compared, baseline_of, both_right, compare, of_role, rating
from smolt.report.record import Arm, StudyRecord
from smolt.report.sections.headline import sentences, summary
from smolt.report.sections.seeds import Runs, over_runs
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics import Measure


@dataclass(frozen=True)
class Analysis:
    """All numbers of a report.

    Attributes:
        measures: arm -> metric -> measure; a metric no answer of the arm carries is absent.
        by_kind: kind -> arm -> the headline metric; empty with fewer than two kinds.
        length_reward: arm -> correlation of length (tokens) and reward over answers.
        best: the candidate with the largest difference from the baseline in the headline metric.
        runs: candidates and controls against the baseline by training run; empty with one run per arm.
        summary: what the verdicts come to, in a sentence or two.
        verdicts: the sentence of each comparison in the headline metric, then what is known of other training runs.
        caveats: what was left out, in sentences.
    """

    headline: str
    measures: dict[str, dict[str, Measure]]
    comparisons: list[Compared]
    by_kind: dict[str, dict[str, Measure]]
    length_reward: dict[str, Measure]
    best: str | None
    runs: list[Runs]
    summary: list[str]
    verdicts: list[str]
    caveats: list[str]


def analyse(record: StudyRecord) -> Analysis:
    """Measure every arm, compare candidates and controls with the baseline and candidates with controls."""
    measures = {arm.name: measure_arm(arm) for arm in record.arms}
    comparisons = _comparisons(record)
    headline = _headline(record, measures)
    compared = [entry for entry in comparisons if entry.comparison.metric == headline]
    runs = over_runs(record, headline)
    return Analysis(
        headline=headline,
        measures=measures,
        comparisons=comparisons,
        by_kind=_by_kind(record, headline),
        length_reward=_length_reward(record),
        best=_best(record, comparisons, headline),
        runs=runs,
        summary=summary(compared, runs),
        verdicts=sentences(record, measures, compared, headline, runs),
        caveats=[*_caveats(record), *_cautions(comparisons)],
    )


def measure_arm(arm: Arm) -> dict[str, Measure]:
    """The metrics of one arm, its reward's components as `reward/NAME`, and its extra measures."""
    found = {metric: _measure(arm.items, metric) for metric in METRICS}
    for name in sorted({name for item in arm.items for name in item.components}):
        found[f"reward/{name}"] = _component(arm.items, name)
    measured = {metric: measure for metric, measure in found.items() if measure is not None}
    return measured | arm.extra_measures


def _measure(items: Sequence[RatedAnswer], metric: str) -> Measure | None:
    rows = [(value, item.key) for item in items if (value := rating(item, metric)) is not None]
    values, prompts = [value for value, _ in rows], [prompt for _, prompt in rows]
    if metric in RATES:
        return statistics.proportion([bool(value) for value in values], prompts)
    return statistics.mean(values, prompts)


def _component(items: Sequence[RatedAnswer], name: str) -> Measure | None:
    rows = [(item.components.get(name), item.key) for item in items]
    kept = [(value, prompt) for value, prompt in rows if value is not None and math.isfinite(value)]
    return statistics.mean([value for value, _ in kept], [prompt for _, prompt in kept])


def _comparisons(record: StudyRecord) -> list[Compared]:
    planned: list[tuple[Arm, Arm, Literal["baseline", "control"]]] = []
    baseline = baseline_of(record)
    candidates, controls = of_role(record, "candidate"), of_role(record, "control")
    if baseline is not None:
        planned += [(baseline, arm, "baseline") for arm in candidates]
    planned += [(control, arm, "control") for control in controls for arm in candidates]
    if baseline is not None:
        planned += [(baseline, arm, "baseline") for arm in controls]
    metrics = sorted(("accuracy", "reward"), key=lambda metric: metric != record.metric)
    return [compared for metric in metrics for compared in _family(planned, metric)]


def _family(planned: Sequence[tuple[Arm, Arm, Literal["baseline", "control"]]], metric: str) -> list[Compared]:
    """All comparisons of one metric, adjusted together."""
    found = [(compare(a, b, metric), both_right(a, b, metric), against) for a, b, against in planned]
    kept = [(comparison, right, against) for comparison, right, against in found if comparison is not None]
    adjusted = statistics.holm([comparison.p_value for comparison, *_ in kept])
    size = sum(p_value is not None for p_value in adjusted)
    return [
        Compared(statistics.with_verdict(comparison, p_holm, size), p_holm, against, right)
        for (comparison, right, against), p_holm in zip(kept, adjusted, strict=True)
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


def _cautions(comparisons: Sequence[Compared]) -> list[str]:
    """Comparisons whose interval or test is worth less than it looks, and why."""
    tests = [entry.comparison for entry in comparisons if entry.comparison.caution]
    return [f"{test.b} against {test.a}, {test.metric}: {test.caution}." for test in tests]


def _caveats(record: StudyRecord) -> list[str]:
    """Answers without a rating, and questions that only one of two arms answered."""
    sentences = []
    for arm in record.arms:
        for metric in ("accuracy", "reward"):
            missing = sum(rating(item, metric) is None for item in arm.items)
            if 0 < missing < len(arm.items):
                sentences.append(f"{arm.name}: {missing:,} of {len(arm.items):,} answers have no {metric}.")
    baseline = baseline_of(record)
    asked = {item.key for item in baseline.items} if baseline is not None else set()
    for arm in of_role(record, "candidate", "control") if asked else []:
        answered = {item.key for item in arm.items}
        if answered != asked:
            sentences.append(
                f"{arm.name} against {record.baseline}: {len(asked ^ answered):,} of {len(asked | answered):,} "
                "questions were answered by only one of the two and are left out."
            )
    return sentences

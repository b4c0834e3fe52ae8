"""From a study record to all numbers of its report: measures, paired comparisons, verdicts, caveats."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from smolt import statistics
from smolt.report.pairing import (
    METRICS,
    PART,
    Compared,
    baseline_of,
    both_right,
    compare,
    measure,
    of_role,
    parts_of,
    rating,
)
from smolt.report.record import Arm, StudyRecord
from smolt.report.sections.headline import sentences, summary
from smolt.report.sections.seeds import Runs, over_runs
from smolt.statistics import Measure

MOSTLY = 0.5


CORRECT = ".correct"
"""Ends the name of a part's component that is 1 for a right answer and 0 for a wrong one."""


@dataclass(frozen=True)
class Analysis:
    """All numbers of a report.

    Attributes:
        measures: arm -> metric -> measure; a metric no answer of the arm carries is absent.
        repeats: metric -> the one it equals on every answer of every arm, such as a reward that is the accuracy. Such a
            metric is in no table and no comparison.
        by_kind: kind -> arm -> the headline metric; empty with fewer than two kinds.
        length_reward: arm -> correlation of length (tokens) and reward over answers; none of an arm `mostly_cut`.
        best: the candidate with the largest difference from the baseline in the headline metric.
        runs: candidates and controls against the baseline by training run; empty with one run per arm.
        summary: what the verdicts come to, in a sentence or two.
        verdicts: the sentence of each comparison in the headline metric, then what is known of other training runs.
        caveats: what was left out, in sentences.
    """

    headline: str
    measures: dict[str, dict[str, Measure]]
    repeats: dict[str, str]
    comparisons: list[Compared]
    by_kind: dict[str, dict[str, Measure]]
    length_reward: dict[str, Measure]
    best: str | None
    runs: list[Runs]
    summary: list[str]
    verdicts: list[str]
    caveats: list[str]

    @property
    def few(self) -> str:
        """What is to be said of the arms' intervals where they are of few values, or nothing."""
        return statistics.few_values(found for measures in self.measures.values() for found in measures.values())

    def shown(self, arm: str) -> dict[str, Measure]:
        """The arm's measures, each once."""
        return {name: found for name, found in self.measures[arm].items() if name not in self.repeats}


def analyse(record: StudyRecord) -> Analysis:
    """Measure every arm, compare candidates and controls with the baseline and candidates with controls."""
    measures = {arm.name: measure_arm(arm) for arm in record.arms}
    repeats = _repeats(record)
    comparisons = _comparisons(record, repeats)
    headline = _headline(record, measures)
    compared = [entry for entry in comparisons if entry.comparison.metric == headline]
    runs = over_runs(record, headline)
    return Analysis(
        headline=headline,
        measures=measures,
        repeats=repeats,
        comparisons=comparisons,
        by_kind=_by_kind(record, headline),
        length_reward=_length_reward(record, measures),
        best=_best(record, comparisons, headline),
        runs=runs,
        summary=summary(compared, runs),
        verdicts=sentences(record, measures, compared, headline, runs),
        caveats=[*_once(repeats), *_caveats(record), *_cautions(comparisons)],
    )


def measure_arm(arm: Arm) -> dict[str, Measure]:
    """The metrics of one arm, its reward's components as `reward/NAME`, and its extra measures."""
    metrics = [*METRICS, *(PART + name for name in parts_of([arm]))]
    found = {metric: measure(arm.items, metric) for metric in metrics}
    return {metric: number for metric, number in found.items() if number is not None} | arm.extra_measures


def _repeats(record: StudyRecord) -> dict[str, str]:
    """Accuracy, reward and its parts, in this order (the record's own metric first): what repeats an earlier one.

    Numbers that are the same throughout, such as two patterns that no answer shows, repeat nothing, unless they tell of
    one thing: a part with a component `correct`, a reward of such parts alone, and the accuracy; or a reward and its
    only part.
    """
    metrics = sorted(("accuracy", "reward"), key=lambda metric: metric != record.metric)
    metrics += [PART + name for name in parts_of(record.arms)]
    items = [item for arm in record.arms for item in arm.items]
    columns = {metric: tuple(rating(item, metric) for item in items) for metric in metrics}
    first: dict[tuple[float | None, ...], str] = {}
    right = _rightness(parts_of(record.arms))
    fewest = {metric: 0 if metric in right else 1 for metric in columns}
    known = [(metric, column) for metric, column in columns.items() if len({*column} - {None}) > fewest[metric]]
    found = {metric: first[column] for metric, column in known if first.setdefault(column, metric) != metric}
    whole, *others = sorted({PART + name.partition(".")[0] for name in parts_of(record.arms)}) or [""]
    if not others and columns.get(whole) == columns["reward"]:
        found.setdefault(whole, found.get("reward", "reward"))
    shared = set.intersection(*(set(arm.repeated.items()) for arm in record.arms)) if record.arms else set()
    return found | dict(sorted(shared))


def _rightness(parts: Sequence[str]) -> set[str]:
    """The metrics that say whether an answer is right, and nothing else."""
    judging = {name.removesuffix(CORRECT) for name in parts if name.endswith(CORRECT)}
    alone = {name.partition(".")[0] for name in parts} == judging
    told = {PART + name for whole in judging for name in (whole, whole + CORRECT)}
    return {"accuracy", *told, *(["reward"] if alone else [])}


def _comparisons(record: StudyRecord, repeats: dict[str, str]) -> list[Compared]:
    planned: list[tuple[Arm, Arm, Literal["baseline", "control"]]] = []
    baseline = baseline_of(record)
    candidates, controls = of_role(record, "candidate"), of_role(record, "control")
    if baseline is not None:
        planned += [(baseline, arm, "baseline") for arm in candidates]
    planned += [(control, arm, "control") for control in controls for arm in candidates]
    if baseline is not None:
        planned += [(baseline, arm, "baseline") for arm in controls]
    metrics = sorted({"accuracy", "reward"} - repeats.keys(), key=lambda metric: metric != record.metric)
    return [compared for metric in metrics for compared in _family(planned, metric)]


def _family(planned: Sequence[tuple[Arm, Arm, Literal["baseline", "control"]]], metric: str) -> list[Compared]:
    """All comparisons of one metric, adjusted together."""
    kept = [(test, a, b, against) for a, b, against in planned if (test := compare(a, b, metric)) is not None]
    tests = statistics.family([test for test, *_ in kept])
    return [
        Compared(test, against, both_right(a, b, metric)) for test, (_, a, b, against) in zip(tests, kept, strict=True)
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
        cells = {arm.name: measure([item for item in arm.items if item.kind == kind], metric) for arm in record.arms}
        table[kind] = {name: cell for name, cell in cells.items() if cell is not None}
    return {kind: cells for kind, cells in table.items() if cells}


def mostly_cut(measures: Mapping[str, Measure]) -> bool:
    """Whether most of an arm's answers ran into the limit of tokens, so that their lengths are the limit's."""
    return "stop_rate" in measures and measures["stop_rate"].value < MOSTLY


def _length_reward(record: StudyRecord, measures: Mapping[str, Mapping[str, Measure]]) -> dict[str, Measure]:
    found = {}
    for arm in record.arms:
        if mostly_cut(measures[arm.name]):
            continue
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


def _once(repeats: dict[str, str]) -> list[str]:
    """Which measures are left out because they repeat another one."""
    groups = {metric: [name for name, of in repeats.items() if of == metric] for metric in repeats.values()}
    return [
        f"{metric.capitalize()} is shown once: {', '.join(names)} {'is' if len(names) == 1 else 'are'} the same number "
        "on every answer."
        for metric, names in groups.items()
    ]


def _cautions(comparisons: Sequence[Compared]) -> list[str]:
    """Comparisons whose interval or test is worth less than it looks, and why: each reason once."""
    found: dict[str, list[str]] = {}
    for test in (entry.comparison for entry in comparisons if entry.comparison.caution):
        found.setdefault(test.caution, []).append(f"{test.b} against {test.a}, {test.metric}")
    return [f"{'; '.join(tests)}: {caution}." for caution, tests in found.items()]


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

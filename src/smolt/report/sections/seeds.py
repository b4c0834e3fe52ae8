"""What several training runs of an arm say: each run tested on the same questions, and an interval over runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from smolt.report import wording
from smolt.report.pairing import (
    RATES,
    Pair,
    baseline_of,
    bounded,
    compare_rated,
    of_role,
    paired,
    rated,
    rating,
    seeds,
)
from smolt.report.panels import Chart, Panel, Table, measured_series
from smolt.report.record import Arm, StudyRecord
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics import Comparison, Measure, difference_of, format_difference, over_seeds


@dataclass(frozen=True)
class Runs:
    """One arm against the baseline, run by run.

    Attributes:
        by_run: (seed of b, the paired test over the questions of that run), in the order of the seeds.
        overall: mean difference over runs with its interval by Student's t over runs (n = runs).
    """

    a: str
    b: str
    metric: str
    by_run: list[tuple[int, Comparison]]
    overall: Measure


def over_runs(record: StudyRecord, metric: str) -> list[Runs]:
    """Candidates and controls that were trained more than once (or stand against such a baseline)."""
    baseline = baseline_of(record)
    if baseline is None:
        return []
    found = [_against(baseline, arm, metric) for arm in of_role(record, "candidate", "control")]
    return [runs for runs in found if runs is not None]


def sentence(runs: Runs) -> str:
    """What the runs say of the difference: every run's, their mean and its interval."""
    rate = runs.metric in RATES
    scale, unit = (100.0, " points") if rate else (1.0, "")
    listed = ", ".join(f"{scale * (entry.difference or 0.0):+.3g}" for _, entry in runs.by_run)
    overall, count = runs.overall, len(runs.by_run)
    text = f"{runs.b} against {runs.a}, {runs.metric} over {count} training runs: {listed}{unit}"
    if overall.low is None or overall.high is None:
        return f"{text}." if count == 1 else f"{text} (the same in every run, so no interval, n = {count} runs)."
    bounds = f"{scale * overall.low:+.3g} to {scale * overall.high:+.3g}"
    return f"{text} (mean {scale * overall.value:+.3g}{unit}, 95 % interval over runs {bounds}, n = {count} runs)."


def panel(record: StudyRecord, metric: str, runs: Sequence[Runs]) -> Panel | None:
    """Rows by seed, the spread over seeds, and the interval over them; None with one run per arm."""
    if not runs:
        return None
    rate = metric in RATES
    spread = [row for arm in record.arms if (row := _spread(arm, metric)) is not None]
    rows = tuple(
        (f"{entry.b}, seed {seed}", *_differences(test), f"{test.wins:,} / {test.regressions:,}", _p(test), test.n)
        for entry in runs
        for seed, test in entry.by_run
    )
    per_seed = Table(
        caption="Each training run against the baseline's on the same questions: difference in "
        + wording.title(metric).lower()
        + (", in points." if rate else "."),
        columns=("Run", "Difference", "95 % interval", "Wins / regressions", "p", "n"),
        rows=rows,
    )
    spread_table = Table(
        caption="Spread over training runs: the mean of the runs, the smallest and the largest run.",
        columns=("Arm", "Runs", wording.title(metric), "Smallest run", "Largest run"),
        rows=tuple(spread),
        rate=rate,
    )
    return Panel(
        name="seeds",
        title="Training runs",
        sentences=tuple(sentence(entry) for entry in runs),
        tables=(spread_table, per_seed),
        charts=(_chart(metric, runs),),
    )


def _against(baseline: Arm, arm: Arm, metric: str) -> Runs | None:
    by_run: dict[tuple[int, int], list[Pair]] = {}
    for first, second in paired(baseline, arm):
        by_run.setdefault((first.seed, second.seed), []).append((first, second))
    tests = []
    own = len(seeds(arm)) >= len(seeds(baseline))
    for (seed, other), pairs in sorted(by_run.items()):
        rows = rated(pairs, metric)
        if rows:
            tests.append((other if own else seed, compare_rated(baseline.name, arm.name, metric, rows)))
    reach = _limits([*baseline.items, *arm.items], metric)
    apart = None if reach is None else (reach[0] - reach[1], reach[1] - reach[0])
    overall = over_seeds([test.difference for _, test in tests if test.difference is not None], apart)
    if overall is None or len(tests) < 2:
        return None
    return Runs(baseline.name, arm.name, metric, tests, overall)


def _limits(items: Sequence[RatedAnswer], metric: str) -> tuple[float, float] | None:
    """Between which a run's mean lies: 0 and 1 for a rate, else the values seen; None for what has no range."""
    if metric in RATES:
        return 0.0, 1.0
    values = [value for item in items if (value := rating(item, metric)) is not None]
    return (min(values), max(values)) if values and bounded(items, metric) else None


def _spread(arm: Arm, metric: str) -> tuple[str, int, Measure, float, float] | None:
    """Name, runs, mean over runs, smallest and largest run's mean."""
    by_seed: dict[int, list[float]] = {}
    for item in arm.items:
        value = rating(item, metric)
        if value is not None:
            by_seed.setdefault(item.seed, []).append(value)
    means = [math.fsum(values) / len(values) for _, values in sorted(by_seed.items())]
    measure = over_seeds(means, _limits(arm.items, metric))
    return None if measure is None else (arm.name, len(means), measure, min(means), max(means))


def _differences(test: Comparison) -> tuple[str, str]:
    if test.difference is None or test.low is None or test.high is None:
        return "", "no interval"
    difference, low, high = (format_difference(value, test) for value in (test.difference, test.low, test.high))
    return wording.signed(difference), wording.signed(f"{low} to {high}")


def _p(test: Comparison) -> str:
    return wording.p_text(test.p_value)


def _chart(metric: str, runs: Sequence[Runs]) -> Chart:
    scale, unit = (100.0, ", points") if metric in RATES else (1.0, "")
    series = tuple(
        measured_series(
            entry.b,
            [found for _, test in entry.by_run if (found := difference_of(test)) is not None],
            labels=[f"seed {seed}" for seed, test in entry.by_run if test.difference is not None],
            scale=scale,
        )
        for entry in runs
    )
    return Chart(
        name="difference-by-seed",
        caption="Each training run's difference from the baseline with its interval over questions. "
        "Good: all runs on one side.",
        kind="bars",
        x="training run",
        y=f"difference in {wording.title(metric).lower()}{unit}",
        series=series,
    )

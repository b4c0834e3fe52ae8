"""The sentences at the top of a report, each generated from a test or a count; nothing here is an opinion."""

from collections.abc import Mapping, Sequence

from smolt.report import wording
from smolt.report.pairing import RATES, Compared
from smolt.report.record import StudyRecord
from smolt.report.sections import seeds as training_runs
from smolt.report.sections.seeds import Runs
from smolt.statistics import Measure, format_difference, shown

ONE_RUN = "There was one training run per arm: run-to-run variation was not measured."


def sentences(
    record: StudyRecord,
    measures: Mapping[str, Mapping[str, Measure]],
    compared: Sequence[Compared],
    headline: str,
    runs: Sequence[Runs],
) -> list[str]:
    """The sentence of each comparison in the headline metric, then what is known of other training runs."""
    if not compared:
        return [
            _measured(record, measures, headline) or f"Nothing was compared: {_why_not(record, measures, headline)}."
        ]
    tested = [entry.comparison.sentence for entry in compared]
    if not runs:
        return [*tested, ONE_RUN]
    return [*tested, *map(training_runs.sentence, runs), "The paired tests resample questions, not training runs."]


def summary(compared: Sequence[Compared], runs: Sequence[Runs]) -> list[str]:
    """What the tests of one metric come to: for each arm compared with, who is higher, who lower, who not shown.

    Of several training runs, which arms' interval over runs leaves out 0.
    """
    lines = []
    for a in dict.fromkeys(entry.comparison.a for entry in compared):
        entries = [entry for entry in compared if entry.comparison.a == a]
        metric = entries[0].comparison.metric
        rising = [entry for entry in entries if _direction(entry) > 0]
        falling = [entry for entry in entries if _direction(entry) < 0]
        level = [entry.comparison.b for entry in entries if _direction(entry) == 0]
        if rising:
            lines.append(f"Higher {metric} than {a}: {_listed([_sized(entry) for entry in rising])}.")
        if falling:
            lines.append(f"Lower {metric} than {a}: {_listed([_sized(entry) for entry in falling])}.")
        if level:
            lines.append(f"No difference in {metric} from {a} could be shown: {_listed(level)}.")
    return [*lines, *_over_runs(runs)]


def _over_runs(runs: Sequence[Runs]) -> list[str]:
    spread = [
        (entry.b, entry.overall.low, entry.overall.high)
        for entry in runs
        if entry.overall.low is not None and entry.overall.high is not None
    ]
    if not spread:
        return []  # runs that all gave one number have no interval
    first = runs[0]
    apart = [name for name, low, high in spread if low * high > 0]
    over = f"Over {len(first.by_run)} training runs the interval of the difference from {first.a}"
    every = "every arm" if len(spread) == len(runs) else _listed([name for name, _, _ in spread])
    return [f"{over} leaves out 0 for {_listed(apart)}." if apart else f"{over} holds 0 for {every}."]


def _direction(entry: Compared) -> int:
    """1 or -1 where a difference is shown at 5 % after Holm, else 0."""
    difference = entry.comparison.difference
    if difference is None or not shown(entry.comparison):
        return 0
    return 1 if difference > 0 else -1


def _sized(entry: Compared) -> str:
    comparison = entry.comparison
    unit = " points" if comparison.metric in RATES else ""
    return f"{comparison.b} ({format_difference(comparison.difference or 0.0, comparison)}{unit})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _measured(record: StudyRecord, measures: Mapping[str, Mapping[str, Measure]], headline: str) -> str:
    """What is said where nothing was to be compared: one model's figure, or where to look; else nothing."""
    if record.baseline:
        return ""
    verdict = headline in ("accuracy", "reward")
    rated = [(name, found[headline]) for name, found in measures.items() if headline in found]
    if verdict and len(rated) == 1:
        name, measure = rated[0]
        ends = "no interval" if measure.low is None else f"95 % interval {wording.range_text(measure)}"
        return f"{name}: {headline} {wording.value_text(measure)} ({ends}, n = {measure.n:,})."
    if verdict and rated:
        return ""
    if record.arms and all(arm.stage == "suite" for arm in record.arms):
        return _suites(sum(panel.tests for panel in record.panels))
    if record.panels:
        return "There is no total: what was found stands in the sections below."
    return ""


def _suites(tests: int) -> str:
    """Where to look in a report of suites alone."""
    held = wording.counted(tests, "paired comparison") if tests else "what was measured"
    return f"Suites have no total; their sections below hold {held}."


def _why_not(record: StudyRecord, measures: Mapping[str, Mapping[str, Measure]], headline: str) -> str:
    answered = [name for name, measured in measures.items() if headline in measured]
    if not answered:
        return "no answer has been rated"
    if len(answered) == 1:
        return f"{answered[0]} is the only arm with {headline}"
    if not record.baseline:
        return "the study names no baseline"
    return f"{record.baseline}, the baseline, and the other arms share no metric"

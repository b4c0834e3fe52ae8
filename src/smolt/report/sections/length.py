"""Length: how long each arm's answers are, whether they grew, and whether the reward likes long answers."""

from collections.abc import Mapping
from itertools import pairwise

from smolt.report import wording
from smolt.report.analysis import Analysis, mostly_cut
from smolt.report.pairing import baseline_of, compare, of_role, rating
from smolt.report.panels import Chart, Panel, Series, Table, measured_series
from smolt.report.record import StudyRecord
from smolt.statistics import Comparison, Measure, difference_of, format_difference, shown

FEW_VALUES = 4
LEANING = 0.3  # a correlation whose whole interval lies above is said to lean on length


def panel(record: StudyRecord, analysis: Analysis) -> Panel | None:
    """Length by arm and against reward; None where no arm answered."""
    lengths = {name: found["length"] for name, found in analysis.measures.items() if "length" in found}
    if not lengths:
        return None
    baseline = baseline_of(record)
    others = of_role(record, "candidate", "control") if baseline is not None else []
    grown = {arm.name: test for arm in others if baseline and (test := compare(baseline, arm, "length")) is not None}
    related = analysis.length_reward
    columns = ["Arm", "Length, tokens"]
    columns += [f"Longer than {record.baseline} by"] if grown else []
    columns += ["Correlation with reward"] if related else []
    rows = []
    for name, length in lengths.items():
        row: list[str | Measure | None] = [name, length]
        if grown:
            row.append(difference_of(grown[name]) if name in grown else "")
        if related:
            row.append(related.get(name))
        rows.append(tuple(row))
    return Panel(
        name="verbosity",
        title="Verbosity",
        sentences=(*_growth(record.baseline, grown), *_leaning(related), *_unrelated(analysis)),
        warnings=tuple(cut_short(analysis.measures)),
        tables=(
            Table(
                "Length of the answers with 95 % intervals; paired by question where arms are compared.",
                tuple(columns),
                tuple(rows),
            ),
        ),
        charts=tuple(chart for chart in (_against_reward(record, related), _bars(lengths)) if chart is not None),
    )


def cut_short(measures: Mapping[str, Mapping[str, Measure]]) -> list[str]:
    """A sentence on the arms most of whose answers ran into the limit of tokens, where there are any."""
    stops = {name: found["stop_rate"] for name, found in measures.items() if mostly_cut(found)}
    if not stops:
        return []
    alike = dict[str, list[str]]()
    for name, stop in stops.items():
        alike.setdefault(f"{1 - stop.value:.0%} of {stop.n:,} answers", []).append(name)
    shares = "; ".join(f"{', '.join(names)}: {share}" for share, names in alike.items())
    whose = "its" if len(stops) == 1 else "their"
    return [
        f"{shares} were cut at the limit of tokens, so {whose} figures are of beginnings; allow more tokens "
        "(max_tokens)."
    ]


def _growth(baseline: str, grown: dict[str, Comparison]) -> list[str]:
    """Which arms' answers became longer or shorter, by the paired test, unadjusted: nothing is claimed better."""
    sentences = []
    for name, test in grown.items():
        if test.difference is not None and shown(test):
            size, interval = format_difference(test.difference, test), "no interval"
            if test.low is not None and test.high is not None:
                low, high = (wording.signed(format_difference(end, test)) for end in (test.low, test.high))
                interval = f"95 % interval {low} to {high}"
            word = "longer" if test.difference > 0 else "shorter"
            sentences.append(
                f"{name}'s answers are {word} than {baseline}'s by {size.lstrip('+-')} tokens "
                f"({interval}, n = {test.n:,})."
            )
    level = [name for name in grown if not shown(grown[name])]
    if level:
        sentences.append(f"No difference in length from {baseline} could be shown: {', '.join(level)}.")
    return sentences


def _leaning(related: dict[str, Measure]) -> list[str]:
    """Which arms' longer answers have more reward; the correlations stand in the table."""
    arms = [name for name, r in related.items() if r.low is not None and r.low > LEANING]
    return [f"Longer answers have more reward: {', '.join(arms)} (correlation above {LEANING})."] if arms else []


def _unrelated(analysis: Analysis) -> list[str]:
    """Which arms have no correlation with their reward, and why: the few lengths below the limit would make it."""
    arms = [name for name, found in analysis.measures.items() if "reward" in found and mostly_cut(found)]
    said = "no correlation of length with reward: most of the lengths are the limit of tokens."
    return [f"{', '.join(arms)}: {said}"] if arms else []


def _against_reward(record: StudyRecord, related: dict[str, Measure]) -> Chart | None:
    """A dot an answer; where the reward knows only a few values, dots would hide one another: means by length."""
    if not related:
        return None
    rows = {
        arm.name: [(float(item.tokens), value) for item in arm.items if (value := rating(item, "reward")) is not None]
        for arm in record.arms
        if arm.name in related
    }
    few = len({value for found in rows.values() for _, value in found}) <= FEW_VALUES
    drawn = {name: _by_length(found) if few else found for name, found in rows.items()}
    return Chart(
        name="length-reward",
        caption=("Mean reward of each fifth of the answers, by length. " if few else "")
        + "Where the correlation is near 0, length does not buy reward; well above 0, the reward likes long answers.",
        kind="lines" if few else "points",
        x="answer length, tokens",
        y="reward",
        series=tuple(
            Series(name, tuple(x for x, _ in found), tuple(y for _, y in found)) for name, found in drawn.items()
        ),
    )


def _by_length(rows: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """(mean length, mean reward) of each fifth of the answers, the shortest first."""
    ranked = sorted(rows)
    edges = [round(len(ranked) * part / 5) for part in range(6)]
    parts = [ranked[start:end] for start, end in pairwise(edges) if end > start]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _bars(lengths: dict[str, Measure]) -> Chart | None:
    """One bar an arm; nothing to see with one arm."""
    if len(lengths) < 2:
        return None
    series = tuple(measured_series(name, [length], labels=[name]) for name, length in lengths.items())
    return Chart(
        name="length",
        caption="Mean length with 95 % intervals. Good: no drift that the task does not explain.",
        kind="bars",
        x="arm",
        y="answer length, tokens",
        series=series,
    )

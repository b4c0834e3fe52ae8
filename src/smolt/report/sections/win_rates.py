"""How often an arm's answer has a higher reward than the baseline's to the same question: raw, and at equal length."""

from collections.abc import Sequence
from dataclasses import dataclass

from smolt.report.pairing import baseline_of, of_role, paired, rating
from smolt.report.panels import Chart, Panel, Series, Table, measured_series
from smolt.report.record import Arm, StudyRecord
from smolt.statistics import Measure, length_controlled, win_rate, won

EVEN = 0.5
HALF = "50\u00a0%"


@dataclass(frozen=True)
class Won:
    """One arm over the baseline.

    Attributes:
        wins, ties, losses: pairs of answers.
        raw: the share of wins, a tie counted half.
        equal_length: what a regression on the difference of lengths gives for answers of one length, where it can.
    """

    arm: str
    wins: int
    ties: int
    losses: int
    raw: Measure
    equal_length: Measure | None


def panel(record: StudyRecord) -> Panel | None:
    """Win rates of candidates and controls over the baseline; None where no answers with a reward are paired."""
    baseline = baseline_of(record)
    arms = of_role(record, "candidate", "control") if baseline is not None else []
    found = [entry for arm in arms if baseline is not None and (entry := _won(baseline, arm)) is not None]
    if not found:
        return None
    rows = tuple(
        (entry.arm, entry.raw, entry.equal_length, f"{entry.wins:,} / {entry.ties:,} / {entry.losses:,}")
        for entry in found
    )
    return Panel(
        name="win-rates",
        title=f"Win rates over {record.baseline}",
        sentences=(
            f"A win is a question to which an arm's answer has a higher reward than {record.baseline}'s; "
            f"a tie counts half, so that {HALF} is no lead.",
            *filter(None, map(_remark, found)),
            *_unformed(found),
            "These intervals are not adjusted for the number of arms: which arms differ the paired tests say.",
        ),
        tables=(
            Table(
                caption=f"Win rate by reward over {record.baseline}, with 95 % intervals. At equal length: by a "
                "logistic regression on the difference of lengths.",
                columns=("Arm", "Win rate", "At equal length", "Wins / ties / losses"),
                rows=rows,
                rate=True,
            ),
        ),
        charts=(_chart(found, record.baseline),),
    )


def _won(baseline: Arm, arm: Arm) -> Won | None:
    rows = [
        (one, other, float(first.tokens), float(second.tokens), second.key)
        for first, second in paired(baseline, arm)
        if (one := rating(first, "reward")) is not None and (other := rating(second, "reward")) is not None
    ]
    if not rows:
        return None
    ones, others, lengths, own_lengths, keys = (list(column) for column in zip(*rows, strict=True))
    results = won(ones, others)
    raw = win_rate(ones, others, keys)
    if raw is None:
        return None
    wins, ties, losses = (results.count(value) for value in (1.0, 0.5, 0.0))
    return Won(arm.name, wins, ties, losses, raw, length_controlled(results, own_lengths, lengths, keys))


def _leads(measure: Measure | None) -> int:
    """1 where the interval lies above a half, -1 where below, 0 where neither is shown."""
    if measure is None or measure.low is None or measure.high is None:
        return 0
    return int(measure.low > EVEN) - int(measure.high < EVEN)


def _remark(entry: Won) -> str:
    """What it means where only one of the two figures, which stand in the table, lies apart from a half."""
    if entry.equal_length is None or _leads(entry.raw) == _leads(entry.equal_length):
        return ""
    if _leads(entry.equal_length) == 0:
        return f"{entry.arm}: apart from {HALF} only as long as length counts, so length may be what decides."
    return f"{entry.arm}: with length set aside the picture changes."


def _unformed(found: Sequence[Won]) -> list[str]:
    """Which arms have no figure at equal length."""
    arms = [entry.arm for entry in found if entry.equal_length is None]
    return [f"No win rate at equal length can be formed: {', '.join(arms)}."] if arms else []


def _chart(found: Sequence[Won], baseline: str) -> Chart:
    return Chart(
        name="over-the-baseline",
        caption=f"Win rate over {baseline} with 95 % intervals, raw and at equal length; {HALF}, the dashed line, "
        "is no lead. Good: the two agree, so that length is not what wins.",
        kind="bars",
        x="arm",
        y="win rate, %",
        even=100 * EVEN,
        series=(
            _series("raw", {entry.arm: entry.raw for entry in found}),
            _series("at equal length", {e.arm: e.equal_length for e in found if e.equal_length is not None}),
        ),
    )


def _series(name: str, rates: dict[str, Measure]) -> Series:
    return measured_series(name, list(rates.values()), labels=list(rates), scale=100.0)

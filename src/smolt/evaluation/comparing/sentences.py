"""Findings for a terminal: the verdict, the table, and some of the items. Text of files is made inert."""

import io
import shutil
import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smolt.evaluation.comparing.paired import ArmPair, ComparedItem, Findings
from smolt.report import tables, wording
from smolt.report.inert import visible
from smolt.statistics import Measure

LONGEST = 100
LISTED: tuple[tuple[str, str], ...] = (("win", "Wins"), ("regression", "Regressions"))


def as_words(findings: Findings, show: int) -> str:
    """The verdicts, a table of the arms, one of the pairs, and `show` wins and regressions of each pair."""
    buffer = io.StringIO()
    width = max(80, shutil.get_terminal_size().columns)
    console = Console(file=buffer, width=width, force_terminal=sys.stdout.isatty(), highlight=False, markup=False)
    for sentence in findings.sentences():
        console.print(Text(inert(sentence)), soft_wrap=True)
    for warning in findings.warnings:
        console.print(Text(f"warning: {inert(warning)}."), style="bold", soft_wrap=True)
    console.print()
    for table in (_arms(findings), _pairs(findings), _counts(findings)):
        console.print(table)
    for pair in findings.pairs:
        for outcome, title in LISTED:
            _list(console, pair, [item for item in pair.items if item.outcome == outcome][:show], title)
    for remark in findings.remarks:
        console.print(Text(f"note: {inert(remark)}"), style="dim", soft_wrap=True)
    return buffer.getvalue().rstrip("\n")


def inert(text: str) -> str:
    """Text of a file on one line, with nothing in it that a terminal would obey."""
    return visible(" ".join(text.split()))


def stated(measure: Measure, metric: str, rate: bool) -> tuple[str, str]:
    """A measure and its interval: percent for a rate."""
    if not rate:
        return wording.measured(metric, measure), wording.interval(metric, measure)
    bounds = [None if bound is None else f"{100 * bound:.1f}" for bound in (measure.low, measure.high)]
    return f"{100 * measure.value:.1f} %", "no interval" if None in bounds else f"{bounds[0]} to {bounds[1]}"


def _table(first: str, *columns: str) -> Table:
    """A table whose first column alone gives way where the terminal is narrow."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(Text(inert(first)), overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _arms(findings: Findings) -> Table:
    table = _table("arm", findings.metric, "95 % interval", "n", "interval by")
    for name, measure in findings.arms.items():
        value, interval = stated(measure, findings.metric, findings.rate)
        _row(table, [name, value, interval, f"{measure.n:,}", measure.source])
    return table


def _pairs(findings: Findings) -> Table:
    """One row an arm against the baseline."""
    compared = findings.compared()
    several = len(compared) > 1
    unit = " (points)" if findings.rate else ""
    against = f"against {next(iter(findings.arms))}{unit}"
    table = _table(against, "b - a", "95 % interval", "p", *(["p, Holm"] if several else []), "detectable")
    for entry in compared:
        shown = tables.comparison_row(entry, compared)
        numbers = [shown["difference"], shown["interval"], shown["p_value"]]
        numbers += [*([shown["p_holm"]] if several else []), shown["detectable"]]
        _row(table, [entry.comparison.b, *(number.removesuffix(" points") for number in numbers)])
    return table


def _counts(findings: Findings) -> Table:
    """The counts of the four-way chart."""
    compared = findings.compared()
    split = compared[0].both_right is not None
    table = _table("items", *(("both right", "won", "lost", "both wrong") if split else ("won", "tied", "lost")))
    for entry in compared:
        test, right = entry.comparison, entry.both_right
        ways = [test.wins, test.ties, test.regressions]
        if right is not None:
            ways = [right, test.wins, test.regressions, test.ties - right]
        _row(table, [test.b, *(f"{count:,}" for count in ways)])
    return table


def _row(table: Table, cells: Sequence[str]) -> None:
    table.add_row(*(Text(inert(cell)) for cell in cells))


def _list(console: Console, pair: ArmPair, items: Sequence[ComparedItem], title: str) -> None:
    if not items:
        return
    console.print(Text(f"{title} of {inert(pair.comparison.b)} (the first {len(items)})"))
    for item in items:
        text = "  " + ": ".join(dict.fromkeys(inert(part) for part in (item.key, item.question) if part))
        console.print(Text(wording.shortened(text, LONGEST)), soft_wrap=True)

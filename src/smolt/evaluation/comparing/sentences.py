"""Findings for a terminal: the verdict, the table, and some of the items. Text of files is made inert."""

import io
import shutil
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from smolt.evaluation.comparing.paired import ArmPair, ComparedItem, Findings
from smolt.report import tables, terminal, wording

LONGEST = 100
LISTED: tuple[tuple[str, str], ...] = (("win", "Wins"), ("regression", "Regressions"))


def as_words(findings: Findings, show: int) -> str:
    """The verdicts, a table of the arms, one of the pairs, and `show` wins and regressions of each pair."""
    buffer = io.StringIO()
    width = max(80, shutil.get_terminal_size().columns)
    console = Console(file=buffer, width=width, force_terminal=sys.stdout.isatty(), highlight=False, markup=False)
    for sentence in findings.sentences():
        console.print(Text(terminal.inert(sentence)), soft_wrap=True)
    for warning in findings.warnings:
        console.print(Text(f"warning: {terminal.inert(warning)}."), style="bold", soft_wrap=True)
    console.print()
    arms = terminal.measure_grid("arm", findings.metric, findings.arms)
    for table in (arms, _pairs(findings), _counts(findings)):
        console.print(table)
    for pair in findings.pairs:
        for outcome, title in LISTED:
            _list(console, pair, [item for item in pair.items if item.outcome == outcome][:show], title)
    for remark in findings.remarks:
        console.print(Text(f"note: {terminal.inert(remark)}"), style="dim", soft_wrap=True)
    return buffer.getvalue().rstrip("\n")


def _pairs(findings: Findings) -> Table:
    """One row an arm against the baseline."""
    compared = findings.compared()
    several = len(compared) > 1
    unit = " (points)" if findings.rate else ""
    against = f"against {next(iter(findings.arms))}{unit}"
    table = terminal.grid(against, "b - a", "95 % interval", "p", *(["p, Holm"] if several else []), "detectable")
    for entry in compared:
        shown = tables.comparison_row(entry, compared)
        numbers = [shown["difference"], shown["interval"], shown["p_value"]]
        numbers += [*([shown["p_holm"]] if several else []), shown["detectable"]]
        terminal.add_row(table, [entry.comparison.b, *(number.removesuffix(" points") for number in numbers)])
    return table


def _counts(findings: Findings) -> Table:
    """The counts of the four-way chart."""
    compared = findings.compared()
    split = compared[0].both_right is not None
    table = terminal.grid("items", *(("both right", "won", "lost", "both wrong") if split else ("won", "tied", "lost")))
    for entry in compared:
        test, right = entry.comparison, entry.both_right
        ways = [test.wins, test.ties, test.regressions]
        if right is not None:
            ways = [right, test.wins, test.regressions, test.ties - right]
        terminal.add_row(table, [test.b, *(f"{count:,}" for count in ways)])
    return table


def _list(console: Console, pair: ArmPair, items: Sequence[ComparedItem], title: str) -> None:
    if not items:
        return
    console.print(Text(f"{title} of {terminal.inert(pair.comparison.b)} (the first {len(items)})"))
    for item in items:
        text = "  " + ": ".join(dict.fromkeys(terminal.inert(part) for part in (item.key, item.question) if part))
        console.print(Text(wording.shortened(text, LONGEST)), soft_wrap=True)

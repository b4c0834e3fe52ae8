"""The commands on answers that exist already, of any tool: grade, compare."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smolt.cli.outcomes import Outcome, delivered

if TYPE_CHECKING:
    from smolt.evaluation.grading import Graded

Rule = Annotated[str, typer.Option("--rule", help="gsm8k, math, choice, string, regex:PATTERN or file.py:function.")]
MaybeRule = Annotated[
    str | None, typer.Option("--rule", help="Grade pred against gold by this rule (see smolt grade).")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("grade")(grade)
    app.command("compare")(compare)


@delivered
def grade(
    files: Annotated[list[Path], typer.Argument(metavar="FILE ...", help="Answers: JSONL, JSON, CSV or Parquet.")],
    rule: Rule = "gsm8k",
    answer_field: Annotated[
        str | None, typer.Option(help="Column of the answers (resps.0.0 looks inside); found by its name unless given.")
    ] = None,
    gold_field: Annotated[str | None, typer.Option(help="Column of the gold answers; likewise.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Directory for the graded rows.")] = None,
) -> Outcome:
    """Grade the answers of any tool against gold answers."""
    from smolt.evaluation.comparing.results import arm_names
    from smolt.evaluation.grading import grade_file, rule_named, write_graded

    chosen = rule_named(rule)
    names = arm_names(files)
    graded = [grade_file(path, chosen, answer_field, gold_field, name) for path, name in zip(files, names, strict=True)]
    facts: dict[str, Any] = graded[0].facts() if len(graded) == 1 else {}
    facts |= {
        "arms": {entry.name: entry.facts() for entry in graded},
        "warnings": [warning for entry in graded for warning in entry.warnings()],
    }
    if out is not None:
        facts["out"] = [str(path) for path in write_graded(out, graded)]
    return Outcome(facts, graded_words(graded, facts))


@delivered
def compare(
    files: Annotated[
        list[Path], typer.Argument(metavar="A B ...", help="Per-item results of two or more arms, the baseline first.")
    ],
    metric: Annotated[str | None, typer.Option(help="Column of the value, where a file holds several.")] = None,
    rule: MaybeRule = None,
    harness_filter: Annotated[
        str | None, typer.Option("--filter", help="Filter of lm-evaluation-harness, where a file holds several.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Column that identifies an item; id or question unless given.")
    ] = None,
    intersect: Annotated[
        bool, typer.Option("--intersect", help="Compare the items that all files have, instead of refusing.")
    ] = False,
    margin: Annotated[
        float | None, typer.Option(help="Test non-inferiority: the largest loss accepted, 0.02 = 2 points of a rate.")
    ] = None,
    retest: Annotated[
        Path | None, typer.Option(help="The baseline measured again: how much changes by itself.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Wins and regressions to list.")] = 3,
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory for comparison.html, comparison.json and items.jsonl.")
    ] = None,
) -> Outcome:
    """Pair arms item by item: wins, regressions, exact tests, what could have been shown."""
    from smolt.evaluation.comparing import as_words, compare_files, write_comparison
    from smolt.evaluation.comparing.results import Reading

    reading = Reading(metric=metric, rule=rule, filter=harness_filter, key=key, lenient=intersect)
    findings = compare_files(files, reading, intersect=intersect, margin=margin, again=retest)
    facts, words = findings.facts(), as_words(findings, show)
    if out is not None:
        page = write_comparison(out, findings)
        facts["out"], words = str(out), f"{words}\nthe page is {page}"
    return Outcome(facts, words)


def graded_words(graded: Sequence["Graded"], facts: dict[str, Any]) -> str:
    """A line or two for each file, then the warnings."""
    from smolt.report.wording import stated

    lines = []
    for entry in graded:
        shown = entry.facts()
        lines.append(
            f"{entry.name}: {stated(entry.accuracy)} right, {shown['correct']:,} of "
            f"{shown['n']:,}; {shown['unextracted']:,} could not be read; by string equality "
            f"{100 * shown['string_accuracy']:.1f} % (rule {shown['rule_version']})"
        )
    lines += [f"warning: {warning}" for warning in facts["warnings"]]
    return "\n".join([*lines, *(f"written: {path}" for path in facts.get("out", []))])

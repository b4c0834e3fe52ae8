"""The finding of a measurement on decisions: proper scores, calibration, what is decided alone, trivial baselines."""

from collections.abc import Mapping, Sequence

from smolt import statistics
from smolt.data import Decision
from smolt.evaluation.decided.decided_measures import calibration, part, state_of
from smolt.evaluation.decided.decision_charts import reliability_chart, risk_chart
from smolt.evaluation.decided.trivial_decisions import trivial
from smolt.report.panels import Cell, Panel, Table
from smolt.report.wording import number, stated
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics import Comparison
from smolt.statistics.calibration import calibration_error
from smolt.statistics.proper_scores import decided_alone

ERROR = 0.03
"""The share of wrong answers up to which a model is said to decide alone."""

Arms = Mapping[str, Sequence[RatedAnswer]]


def decision_panel(arms: Arms, decisions: Sequence[Decision], name: str = "decisions") -> Panel:
    """Models, and what needs none, on the same decisions.

    Args:
        arms: model -> its answers, one a question.
        decisions: what was decided.
        name: unique in a report.
    """
    everybody: Arms = {**arms, **trivial(decisions)}
    rows = tuple((who, *_cells(items)) for who, items in everybody.items())
    columns = ("model", "accuracy", "Brier score", "log score", "calibration error", "decides alone")
    caption = f"Brier, log score (nats) and calibration error: less is better. Alone: at most {ERROR:.0%} wrong."
    return Panel(
        name,
        "Decisions",
        sentences=(*_alone(arms), *_tests(arms, everybody), *_temperature(arms)),
        tables=(Table(caption, columns, rows), _by_type(arms)),
        charts=(reliability_chart(name, arms), risk_chart(name, everybody)),
    )


def _cells(items: Sequence[RatedAnswer]) -> tuple[Cell, ...]:
    states = [state_of(item) for item in items]
    alone = decided_alone(part(items, "confidence"), part(items, "right"), ERROR)
    return (
        statistics.proportion([bool(item.correct) for item in items], states),
        statistics.mean(part(items, "brier"), states, bounded=True),
        statistics.mean(part(items, "log_score"), states),
        calibration_error(part(items, "confidence"), part(items, "right"), states),
        f"{0 if alone is None else alone[0]:.0%}",
    )


def _by_type(arms: Arms) -> Table:
    rows = []
    for who, items in arms.items():
        for kind in dict.fromkeys(item.kind for item in items):
            own = [item for item in items if item.kind == kind]
            rows.append((f"{who}, {kind}", len(own), *_cells(own)))
    columns = (
        "model and type",
        "questions",
        "accuracy",
        "Brier score",
        "log score",
        "calibration error",
        "decides alone",
    )
    return Table("The same for each type of question.", columns, tuple(rows))


def _alone(arms: Arms) -> list[str]:
    said = []
    for who, items in arms.items():
        found = decided_alone(part(items, "confidence"), part(items, "right"), ERROR)
        if found is None:
            said.append(
                f"{who}: even its surest answers are wrong more often than {ERROR:.0%}; it decides nothing alone."
            )
        else:
            said.append(f"{who} decides alone in {found[0]:.0%} of the questions, at an error of {found[1]:.1%}.")
    return said


def _tests(arms: Arms, everybody: Arms) -> list[str]:
    """Each model against what needs none, by Brier score, adjusted together."""
    tests: list[Comparison] = []
    for who, items in arms.items():
        for other in everybody.keys() - arms.keys():
            values = [[-value for value in part(side, "brier")] for side in (everybody[other], items)]
            states = [state_of(item) for item in items]
            tests.append(statistics.compare_scores(other, who, "negative Brier score", values[0], values[1], states))
    return sorted(test.sentence for test in statistics.family(tests))


def _temperature(arms: Arms) -> list[str]:
    said = []
    for who, items in arms.items():
        found = calibration(items)
        if "ece_change" in found:
            before, after, change = (found[key] for key in ("ece_without_temperature", "ece", "ece_change"))
            moves = "lowers" if change.high is not None and change.high < 0 else "is not shown to lower"
            said.append(
                f"{who}: its temperature {moves} the calibration error: {number(before.value)} without, "
                f"{number(after.value)} with, difference {stated(change)}."
            )
    return said

"""The numbers of a suite as a finding of a report: what was shown in words, every number in tables."""

from collections.abc import Mapping, Sequence

from smolt.config import Suites
from smolt.evaluation.suites.independence import raters_of
from smolt.evaluation.suites.suite_measures import ALL, Answers, Measured, measure_suites
from smolt.report.panels import Chart, Panel, Table, measured_series
from smolt.report.wording import stated
from smolt.statistics import Measure, difference_of, few_values, format_p, shown


def suite_panels(suites: Suites, arms: Sequence[str], baseline: str, answers: Answers) -> list[Panel]:
    """A finding for each suite: the arms' answers measured, and compared with the baseline's."""
    raters = raters_of(suites)
    measured = measure_suites(suites, arms, baseline, answers)
    return [suite_panel(name, found, arms, raters) for name, found in measured.items()]


def suite_panel(
    name: str,
    measured: Sequence[Measured],
    arms: Sequence[str],
    raters: Mapping[str, tuple[str, Measure | None]],
) -> Panel:
    """A suite's finding.

    Args:
        name: of the suite.
        measured: its numbers.
        arms: in the order they are shown.
        raters: what is rated -> who rates it, and that reward model's own accuracy on held-out pairs, where known.
    """
    sentences = [sentence for entry in measured for sentence in _sentences(entry)]
    cells = [cell for entry in measured for found in entry.scenarios.values() for cell in found.values()]
    asked = max((cell.n for cell in cells), default=0)
    said = [f"Each arm gave {asked:,} answers.", few_values(cells), *sentences, *_accuracies(raters)]
    tables = [table for entry in measured for table in (_measures(entry, arms), _tests(entry)) if table is not None]
    return Panel(
        name=f"suite-{name}",
        title="Scenarios" if name == "scenarios" else f"Scenarios of {name}",
        sentences=tuple(filter(None, said)),
        warnings=tuple(_doubts(raters)),
        tables=tuple(tables),
        charts=tuple(chart for entry in measured for chart in _charts(entry, arms)),
        tests=sum(len(entry.tests) for entry in measured),
    )


def _sentences(measured: Measured) -> list[str]:
    """One for each difference that was shown, else one that none was."""
    found = [test for test in measured.tests if shown(test.comparison)]
    if found:
        return [test.comparison.sentence for test in found]
    if not measured.tests:
        return []
    if not measured.family:
        return [f"{measured.metric.name}: the same for all arms, so the data carry no test."]
    where = "in any scenario" if len({test.scenario for test in measured.tests}) > 1 else "over all prompts"
    return [
        f"{measured.metric.name}: no difference from {measured.tests[0].comparison.a} could be shown {where} "
        f"({measured.family} paired tests, adjusted by Holm)."
    ]


def _accuracies(raters: Mapping[str, tuple[str, Measure | None]]) -> list[str]:
    return [
        f"{label} is rated by {who}, right on {stated(accuracy)} of n = {accuracy.n:,} held-out pairs."
        for label, (who, accuracy) in raters.items()
        if accuracy is not None
    ]


def _doubts(raters: Mapping[str, tuple[str, Measure | None]]) -> list[str]:
    found = []
    for label, (who, accuracy) in raters.items():
        if accuracy is None:
            found.append(f"{label}: how often {who} agrees with people is not known; read it as an opinion.")
        elif accuracy.low is None or accuracy.low <= 0.5:
            found.append(f"{label}: {who} is not shown to be better than a coin ({stated(accuracy)}).")
    return found


def _measures(measured: Measured, arms: Sequence[str]) -> Table:
    rows = [(scenario, *(cells.get(arm) for arm in arms)) for scenario, cells in measured.scenarios.items()]
    metric = measured.metric
    return Table(f"{metric.name}: {metric.what}.", ("scenario", *arms), tuple(rows), rate=metric.rate)


def _tests(measured: Measured) -> Table | None:
    """Every paired test, shown or not; p-values as text, for they are no measures."""
    if not measured.tests:
        return None
    rater = measured.metric.rater
    rows = [
        (
            f"{test.scenario}: {test.comparison.b}",
            difference_of(test.comparison),
            format_p(test.comparison.p_value).removeprefix("= "),
            format_p(test.comparison.p_holm).removeprefix("= "),
            *([test.win_rate, test.win_rate_at_equal_length] if rater else []),
        )
        for test in measured.tests
    ]
    columns = ("scenario and arm", f"difference from {measured.tests[0].comparison.a}", "p", "p after Holm")
    extra = ("win rate", "win rate at equal length") if rater else ()
    test = measured.tests[0].comparison.test
    caption = f"{measured.metric.name}: paired tests ({test}), adjusted together."
    return Table(caption, (*columns, *extra), tuple(rows), rate=measured.metric.rate)


def _charts(measured: Measured, arms: Sequence[str]) -> list[Chart]:
    """Bars by scenario, for raters and sentiment."""
    scenarios = [scenario for scenario in measured.scenarios if scenario != ALL]
    label = measured.metric.name
    if len(scenarios) < 2 or not (measured.metric.rater or label == "sentiment"):
        return []
    series = []
    for arm in arms:
        kept = [scenario for scenario in scenarios if arm in measured.scenarios[scenario]]
        cells = [measured.scenarios[scenario][arm] for scenario in kept]
        series.append(measured_series(arm, cells, [float(scenarios.index(scenario)) for scenario in kept], kept))
    caption = f"{label} by scenario, with 95 % intervals."
    return [Chart(label.replace(" ", "-"), caption, "bars", "scenario", label, tuple(series))]

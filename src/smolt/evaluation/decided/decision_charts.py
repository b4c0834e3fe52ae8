"""The pictures of decisions: reliability, and risk by coverage."""

from collections.abc import Mapping, Sequence

from smolt.evaluation.decided.decided_measures import part
from smolt.evaluation.decided.rated_decisions import RAW
from smolt.report.panels import Chart, Series, measured_series
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics.calibration import reliability
from smolt.statistics.proper_scores import risk_coverage

Arms = Mapping[str, Sequence[RatedAnswer]]


def reliability_chart(name: str, arms: Arms) -> Chart:
    """The share of right answers beside the stated confidence, with and without the temperature."""
    series = []
    for who, items in arms.items():
        for label, column in ((who, "confidence"), (f"{who}, without temperature", f"{RAW}confidence")):
            confidence = part(items, column)
            if len(confidence) == len(items):
                bins = reliability(confidence, part(items, "right"))
                found = [one.right for one in bins]
                series.append(measured_series(label, found, x=[100 * one.confidence for one in bins], scale=100))
    caption = "Share of right answers by stated confidence; honest probabilities lie on the diagonal."
    return Chart(f"{name}-reliability", caption, "points", "confidence, %", "right, %", tuple(series), diagonal=True)


def risk_chart(name: str, everybody: Arms) -> Chart:
    """The share of wrong answers as ever less sure ones are taken in."""
    series = []
    for who, items in everybody.items():
        coverage, risk = risk_coverage(part(items, "confidence"), part(items, "right"))
        series.append(Series(who, tuple(100 * value for value in coverage), tuple(100 * value for value in risk)))
    caption = "Wrong answers among the surest: lower is better, and lowest at the left."
    return Chart(f"{name}-risk", caption, "lines", "decided alone, %", "wrong of these, %", tuple(series))

"""Panels hold what JSON can hold: a number that is not finite never reaches a file or a reader."""

import json
from pathlib import Path

import pytest

from smolt.report.panels import Chart, Panel, Series, Table, read_panels, write_panels
from smolt.report.record import Arm, StudyRecord, read_record
from smolt.report.report import rewrite_report, write_report
from smolt.statistics import Measure

NAN, INFINITE = float("nan"), float("inf")
WHOLE = Measure(1.0, 0.5, 1.5, 3, "s")
ODD = Panel(
    "odd",
    "Odd numbers",
    tables=(
        Table(
            "All of them.",
            ("row", "a", "b"),
            (("x", NAN, WHOLE), ("y", Measure(NAN, 0.0, 1.0, 3, "s"), Measure(1.0, -INFINITE, INFINITE, 3, "s"))),
        ),
    ),
    charts=(
        Chart("lines", "c", "lines", "x", "y", (Series("s", (0.0, 1.0, INFINITE, 3.0), (1.0, NAN, 2.0, 4.0)),)),
        Chart("bars", "c", "bars", "x", "y", (Series("s", (), (NAN, 2.0), (0.0, NAN), (1.0, 3.0), ("p", "q")),)),
    ),
)


def test_what_is_not_finite_is_none_or_left_out() -> None:
    """A cell becomes None, an interval with an infinite end none; a point goes with its label and interval."""
    assert ODD.tables[0].rows == (("x", None, WHOLE), ("y", None, Measure(1.0, None, None, 3, "s")))
    lines, bars = (chart.series[0] for chart in ODD.charts)
    assert (lines.x, lines.y) == ((0.0, 3.0), (1.0, 4.0))
    assert (bars.x, bars.y, bars.low, bars.high, bars.labels) == ((), (2.0,), (None,), (3.0,), ("q",))


def test_as_many_x_as_y() -> None:
    with pytest.raises(ValueError, match="zip"):
        Series("s", (0.0,), (1.0, 2.0))


def test_odd_panels_come_back_from_their_file(tmp_path: Path) -> None:
    write_panels(tmp_path, [ODD])
    assert read_panels(tmp_path) == [ODD]


def test_a_report_with_odd_numbers_is_written_again(tmp_path: Path) -> None:
    """The record that a study leaves is one that `smolt report` reads; figures that are not finite are not in it."""
    arm = Arm(
        "reward",
        "reward",
        cost={"seconds": NAN, "tokens": 5.0},
        extra_measures={"good": WHOLE, "bad": Measure(NAN, None, None, 0, "s")},
        role="component",
    )
    record = StudyRecord("odd", [arm], panels=[ODD])
    write_report(tmp_path, record)
    first = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    rewrite_report(tmp_path)
    again = read_record(tmp_path)
    assert again.panels == [ODD]
    assert (again.arms[0].cost, again.arms[0].extra_measures) == ({"tokens": 5.0}, {"good": WHOLE})
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == first

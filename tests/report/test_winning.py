"""Win rates over the baseline: what a win is, ties, equal length, what is said and what is not."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from smolt.report.panels import Chart, Panel, Series
from smolt.report.pictures import charts
from smolt.report.pictures.drawing import LIGHT
from smolt.report.record import Arm, Role, StudyRecord
from smolt.report.report import write_report
from smolt.report.sections import win_rates
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics import Measure, length_controlled
from tests.report.records import item, judged, study


def arm(name: str, rewards: Sequence[float | None], lengths: Sequence[int] = (), role: Role = "candidate") -> Arm:
    tokens = lengths or (10,) * len(rewards)
    items = [
        item(place, reward=reward, tokens=length)
        for place, (reward, length) in enumerate(zip(rewards, tokens, strict=True))
    ]
    return Arm(name, "ppo", items=items, role=role)


def found(record: StudyRecord) -> Panel:
    panel = win_rates.panel(record)
    assert panel is not None
    return panel


def measure(cell: object) -> Measure:
    assert isinstance(cell, Measure)
    return cell


def shown(cell: object) -> str:
    """A share in the form of a sentence."""
    value, low, high = (
        100 * (number or 0.0) for number in (measure(cell).value, measure(cell).low, measure(cell).high)
    )
    return f"{value:.1f} % [{low:.1f} to {high:.1f}]"


def test_a_tie_is_half_a_win() -> None:
    """Of 10 questions 6 won, 2 tied, 2 lost: (6 + 1) / 10 = 0.7; at one length for all the same value."""
    record = study(arm("sft", [0.5] * 10), arm("ppo", [0.9] * 6 + [0.5] * 2 + [0.1] * 2))
    panel = found(record)
    name, raw, even, counts = panel.tables[0].rows[0]
    assert (name, counts) == ("ppo", "6 / 2 / 2")
    assert (measure(raw).value, measure(raw).n) == (0.7, 10)
    assert measure(even).value == pytest.approx(0.7, abs=1e-9)
    assert panel.sentences[0] == (
        "A win is a question to which an arm's answer has a higher reward than sft's; a tie counts half, so that "
        "50\u00a0% is no lead."
    )


def test_the_picture_keeps_the_arms_colours_to_the_arms() -> None:
    """Raw and at equal length have the two colours after those of the two arms; a dashed line stands at 50 %."""
    record = study(arm("sft", [0.5] * 10), arm("dpo", [0.9] * 6 + [0.1] * 4), arm("ppo", [0.9] * 7 + [0.1] * 3))
    (chart,) = found(record).charts
    drawn = charts.draw(chart, "win-rates", {"sft": 0, "dpo": 1, "ppo": 2})
    assert chart.even == 50.0
    assert drawn is not None and b"stroke-dasharray" in drawn.light
    assert [drawn.light.count(colour.encode()) > 0 for colour in LIGHT.arms[1:5]] == [False, False, True, True]


def test_pairs_without_both_rewards_are_left_out() -> None:
    record = study(arm("sft", [0.5, None, 0.5, 0.5]), arm("ppo", [0.9, 0.9, None, 0.1]))
    assert found(record).tables[0].rows[0][3] == "1 / 0 / 1"


def long_winded(n: int = 200) -> list[tuple[float, int]]:
    """Answers that win when they are longer than 40 tokens, and are mostly longer."""
    draw = random.Random(5)
    lengths = [40 + draw.choice((-12, -6, 6, 12, 18, 24)) for _ in range(n)]
    return [(0.9 if length > 40 + draw.gauss(0, 4) else 0.1, length) for length in lengths]


def test_length_that_decides_is_said() -> None:
    """The raw figure lies above 50 %, the one at equal length, which is the statistic's, does not."""
    rewards, lengths = [reward for reward, _ in long_winded()], [length for _, length in long_winded()]
    record = study(arm("sft", [0.5] * 200, [40] * 200), arm("ppo", rewards, lengths))
    _, raw, even, _ = found(record).tables[0].rows[0]
    wins = [float(reward > 0.5) for reward in rewards]
    assert even == length_controlled(wins, lengths, [40] * 200, [f"q{n}" for n in range(200)])
    assert (measure(raw).low or 0.0) > 0.5
    assert found(record).sentences[1] == (
        "ppo: apart from 50\u00a0% only as long as length counts, so length may be what decides."
    )


def test_two_figures_that_agree_stand_in_the_table_alone() -> None:
    """5 wins and 5 losses; which arms differ is never said here."""
    panel = found(study(arm("sft", [0.5] * 10), arm("ppo", [0.9] * 5 + [0.1] * 5)))
    _, raw, even, _ = panel.tables[0].rows[0]
    assert [shown(cell)[:6] for cell in (raw, even)] == ["50.0 %"] * 2
    assert panel.sentences[1:] == (
        "These intervals are not adjusted for the number of arms: which arms differ the paired tests say.",
    )


def test_ties_alone_and_wins_alone_claim_no_certainty() -> None:
    """All ties: 50 % without an interval. All won: Wilson's interval for 12 of 12, and none at equal length."""
    record = study(arm("sft", [0.5] * 12), arm("same", [0.5] * 12), arm("better", [0.9] * 12))
    same, better = found(record).tables[0].rows
    assert same[1] == Measure(0.5, None, None, 12, "all ties", rate=True)
    assert (measure(better[1]).value, better[2]) == (1.0, None)
    assert measure(better[1]).low == pytest.approx(12 / (12 + 1.959963984540054**2), abs=1e-12)
    assert found(record).sentences[1] == "No win rate at equal length can be formed: same, better."
    series = found(record).charts[0].series[0]
    assert (series.labels, series.y, series.low[0], series.high) == (("same", "better"), (50, 100), None, (None, 100))


def test_several_runs_are_paired_by_seed() -> None:
    """Two runs of an arm against the one baseline: 8 pairs of 4 questions."""
    twice = arm("ppo", [0.9, 0.9, 0.1, 0.5])
    items: list[RatedAnswer] = [replace(entry, seed=seed) for seed in (0, 1) for entry in twice.items]
    panel = found(study(arm("sft", [0.5] * 4), replace(twice, items=items)))
    assert panel.tables[0].rows[0][3] == "4 / 2 / 2"
    assert measure(panel.tables[0].rows[0][1]).n == 8


def test_no_baseline_or_no_reward_no_panel() -> None:
    arms = [arm("sft", [None] * 3), arm("ppo", [None] * 3)]
    assert win_rates.panel(study(*arms)) is None
    assert win_rates.panel(study(arm("sft", [0.5]), arm("ppo", [0.6]), baseline="")) is None
    assert win_rates.panel(study(arm("sft", [0.5]), arm("ppo", [0.6], role="component"))) is None


def test_answers_in_markdown_name_whose_win_it_is(tmp_path: Path) -> None:
    write_report(tmp_path, study(judged("sft", "10"), judged("dpo", "01")))
    headings = re.findall("^### (.*)$", (tmp_path / "report.md").read_text(), re.MULTILINE)
    assert headings == ["Win for dpo", "Regression of dpo"]


def test_markdown_says_what_each_arm_began_from(tmp_path: Path) -> None:
    arms = [judged("sft", "10"), replace(judged("dpo", "01"), parent="sft")]
    write_report(tmp_path, study(*arms))
    assert f"## Arms\n\ndpo: {arms[1].stage}, from sft\n" in (tmp_path / "report.md").read_text()


def test_the_dots_of_one_arm_do_not_lie_below_those_of_another() -> None:
    """Two series of 30 points at the same places: their dots are drawn by turns."""
    places = tuple(float(number) for number in range(30))
    chart = Chart("dots", "", "points", "x", "y", (Series("sft", places, places), Series("dpo", places, places)))
    drawn = charts.draw(chart, "dots", {"sft": 0, "dpo": 1})
    assert drawn is not None
    grey, red = (colour.encode() for colour in LIGHT.arms[:2])
    dots = drawn.light[drawn.light.index(b"PathCollection_1") :]
    order = [grey in use for use in re.findall(rb"<use[^>]*>", dots) if grey in use or red in use]
    assert order[:60] == [True, False] * 30

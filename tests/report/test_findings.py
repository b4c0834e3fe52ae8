"""What the report finds by itself: the frontier, size and cost, verbosity, parts, training runs, the four ways."""

import math
from dataclasses import replace

import pytest
from scipy import stats

from smolt.report import findings, tables
from smolt.report.analysis import analyse
from smolt.report.panels import Chart, Panel, Series, Table
from smolt.report.pictures.charts import draw
from smolt.report.record import Arm, LatePart, StudyRecord
from smolt.report.sections import cost, frontier, length, reward_parts, seeds
from smolt.statistics import Measure, compare_counts
from tests.report.records import item, judged, rich, study


def found(record: StudyRecord) -> dict[str, Panel]:
    return {panel.name: panel for panel in findings.findings(record, analyse(record))}


def test_the_bound_of_best_of_n() -> None:
    """log 4 - 3/4 and log 2 - 1/2; best of 1 is the policy itself."""
    assert frontier.bound(4) == pytest.approx(0.6362943611198906, abs=1e-15)
    assert frontier.bound(2) == pytest.approx(0.1931471805599453, abs=1e-15)
    assert frontier.bound(1) == 0.0


def test_the_frontier_places_arms_by_root_kl() -> None:
    """KL 4 nats stands at 2; best-of-4 at the root of its bound, on a line from the baseline; a KL below 0 at 0."""
    near = replace(judged("near", "1100"), items=[replace(entry, kl=-0.1) for entry in judged("near", "1100").items])
    far = replace(judged("far", "1110"), items=[replace(entry, kl=4.0) for entry in judged("far", "1110").items])
    best = replace(judged("best", "1111"), stage="best_of_n", parent="sft", facts={"n": 4})
    record = study(judged("sft", "1000"), near, far, best)
    panel = frontier.panel(record, analyse(record))
    assert panel is not None
    series = {entry.name: entry for entry in panel.charts[0].series}
    assert (series["far"].x, series["far"].y) == ((2.0,), (75.0,))
    assert series["near"].x == (0.0,)
    assert series["best, at its bound"].x == (0.0, math.sqrt(math.log(4) - 0.75))
    assert series["best, at its bound"].y == (25.0, 100.0)
    assert [row[0] for row in panel.tables[0].rows] == ["near", "sft", "best", "far"]
    assert [row[3] for row in panel.tables[0].rows] == ["measured", "measured", "bound", "measured"]
    assert "An n below" not in panel.tables[0].caption
    alone = frontier.panel(study(judged("sft", "1000"), far), analyse(study(judged("sft", "1000"), far)))
    assert alone is not None and alone.tables[0].columns == ("Arm", "KL", "sqrt KL", "Accuracy")
    assert panel.sentences[0].endswith("near (50.0 % at −0.100 nats), best (100.0 % at 0.636 nats).")


def test_smaller_choices_stand_on_the_curve_of_best_of_n() -> None:
    """n = 2 and n = 4 at the roots of their bounds; a record that came back from its file has them still."""
    few = {2: {"accuracy": Measure(0.75, 0.5, 0.9, 4, "bootstrap")}}
    best = replace(judged("best", "1111"), stage="best_of_n", parent="sft", facts={"n": 4}, best_of=few)
    record = study(judged("sft", "1000"), best)
    panel = frontier.panel(record, analyse(record))
    assert panel is not None
    (line,) = [entry for entry in panel.charts[0].series if entry.name == "best, at its bound"]
    assert line.x == (0.0, math.sqrt(math.log(2) - 0.5), math.sqrt(math.log(4) - 0.75))
    assert line.y == (25.0, 75.0, 100.0)
    assert [row[0] for row in panel.tables[0].rows] == ["sft", "best, n = 2", "best"]


def test_no_kl_no_frontier() -> None:
    record = study(judged("sft", "10"), judged("dpo", "11"))
    assert frontier.panel(record, analyse(record)) is None


def test_the_course_needs_held_out_rewards_of_all() -> None:
    """Where one run has no dev reward, all are drawn by their training reward."""
    rows = [{"step": step, "kl": float(step), "reward": 1.0, "dev/reward": 2.0} for step in (1, 4)]
    plain = [{name: value for name, value in row.items() if name != "dev/reward"} for row in rows]
    arms = [replace(judged(name, "10"), curve=rows) for name in ("ppo", "grpo")]
    arms = [replace(arm, items=[replace(entry, kl=1.0) for entry in arm.items]) for arm in arms]
    for second, title, value in (
        (arms[1], "held-out reward", 2.0),
        (replace(arms[1], curve=plain), "training reward", 1.0),
    ):
        record = study(judged("sft", "10"), arms[0], second)
        panel = frontier.panel(record, analyse(record))
        assert panel is not None
        course = panel.charts[1]
        assert (course.y, course.series[0].x, course.series[0].y) == (title, (1.0, 2.0), (value, value))


def test_a_long_course_is_averaged_in_stretches() -> None:
    """24 updates at KL 1, 2, ...: twelve points, the first at the root of (1 + 2) / 2 with the mean reward of both."""
    rows = [{"step": step, "kl": float(step), "reward": float(step % 2)} for step in range(1, 25)]
    ppo = replace(judged("ppo", "10"), curve=rows)
    ppo = replace(ppo, items=[replace(entry, kl=1.0) for entry in ppo.items])
    record = study(judged("sft", "10"), ppo)
    panel = frontier.panel(record, analyse(record))
    assert panel is not None
    course = panel.charts[1].series[0]
    assert (len(course.x), course.x[0], course.x[-1]) == (12, math.sqrt(1.5), math.sqrt(23.5))
    assert course.y == (0.5,) * 12


def test_a_person_can_choose_by_cost() -> None:
    """small 50 % for 10 s, large 75 % for 10 + 30 s, waste 50 % for 90 s: waste is not worth its time."""
    small = judged("small", "1100", cost={"seconds": 10.0, "peak_memory": 2.0**20}, facts={"parameters": 1000})
    large = judged(
        "large", "1110", cost={"seconds": 30.0, "peak_memory": 2.0**22}, facts={"parameters": 9000}, parent="small"
    )
    waste = judged("waste", "0011", cost={"seconds": 90.0}, facts={"parameters": 9000})
    record = study(small, large, waste, baseline="small")
    panel = cost.panel(record, analyse(record))
    assert panel is not None
    assert panel.sentences[:2] == (
        "No other arm has as much accuracy for less time: small (50.0 %, 10.0 s), large (75.0 %, 40.0 s).",
        "No other arm has as much accuracy with fewer parameters: small (50.0 %, 1,000), large (75.0 %, 9,000).",
    )
    assert [chart.name for chart in panel.charts] == ["time", "memory", "parameters"]
    assert [entry.x for entry in panel.charts[1].series] == [(1.0,), (4.0,)]
    assert [chart.log for chart in panel.charts] == [True, False, True]


def test_equal_costs_leave_nothing_to_choose() -> None:
    arms = [judged(name, "10", cost={"seconds": 10.0}, facts={"parameters": 5}) for name in ("sft", "dpo")]
    record = study(*arms)
    assert cost.panel(record, analyse(record)) is None


def test_parts_that_never_or_always_fire() -> None:
    """polite is 0 on all 40 answers, format 1 on all; right fires on half, so neither alarm is raised for it."""
    parts = [{"polite": 0.0, "format": 1.0, "right": float(number % 2)} for number in range(20)]
    arms = [
        Arm(name, "sft", items=[item(n, reward=1.0, components=parts[n]) for n in range(20)]) for name in ("sft", "dpo")
    ]
    record = study(*arms)
    panel = reward_parts.panel(record, analyse(record))
    assert panel is not None
    assert panel.warnings == ("polite never fired: 0 on all 40 answers, so it rewarded nothing.",)
    assert panel.sentences == ("format is saturated: 1 on 40 of 40 answers, so it cannot tell answers apart.",)
    share = panel.tables[1].rows[2][1]
    assert isinstance(share, Measure)
    assert (panel.tables[1].rows[2][0], share.value, share.n) == ("right", 0.5, 20)


def test_a_handful_of_answers_saturates_nothing() -> None:
    arms = [Arm(name, "sft", items=[item(n, components={"format": 1.0}) for n in range(4)]) for name in ("sft", "dpo")]
    panel = reward_parts.panel(study(*arms), analyse(study(*arms)))
    assert panel is not None
    assert (panel.sentences, panel.warnings) == ((), ())


@pytest.mark.parametrize(
    ("name", "part", "warning"),
    [
        ("gsm8k", LatePart(61, 80, 100, 0, 0.0, 1.0, 95), "is saturated: 1 on 95 of 100 answers in updates 61 to 80"),
        ("gsm8k", LatePart(61, 80, 100, 0, 0.0, 1.0, 94), None),
        ("gsm8k", LatePart(61, 80, 100, 100, 0.0, 0.0, 100), "never fired: 0 on 100 of 100 answers"),
        ("gsm8k", LatePart(61, 80, 100, 100, 0.0, 1.0, 0), "no longer fires: 0 on 100 of 100 answers"),
        ("gsm8k", LatePart(61, 80, 100, 99, 0.0, 1.0, 1), None),  # once
        ("overlong", LatePart(61, 80, 100, 100, -1.0, 0.0, 100), None),  # a penalty that has done its work
        ("overlong", LatePart(61, 80, 100, 98, -1.0, 0.0, 98), None),
        ("overlong", LatePart(61, 80, 100, 0, -1.0, -1.0, 100), "is saturated: -1 on 100 of 100 answers"),
        ("format.boxed", LatePart(61, 80, 100, 100, 0.0, 0.0, 100), "never fired"),
        ("gsm8k.extracted", LatePart(61, 80, 100, 0, 0.0, 1.0, 100), None),  # that all have a number is well
        ("gsm8k", LatePart(61, 80, 19, 19, 0.0, 0.0, 19), None),  # too few to say
    ],
)
def test_parts_without_signal_at_the_end_of_a_training(name: str, part: LatePart, warning: str | None) -> None:
    """A warning where a part never fired, or stood at its maximum on 95 % of the answers or more."""
    record = study(judged("sft", "10"), replace(judged("grpo", "11"), late_parts={name: part}))
    panel = reward_parts.panel(record, analyse(record))
    if warning is None:
        assert panel is None
    else:
        assert panel is not None
        assert panel.warnings[0].startswith(f"grpo, in training: {name} {warning}")
        assert len(panel.warnings) == 1


def test_a_part_of_a_silent_part_is_not_named_again() -> None:
    silent = LatePart(4, 5, 50, 50, 0.0, 0.0, 50)
    parts = {"gsm8k": silent, "gsm8k.correct": silent}
    record = study(judged("sft", "10"), replace(judged("grpo", "11"), late_parts=parts))
    panel = reward_parts.panel(record, analyse(record))
    assert panel is not None
    assert panel.warnings == ("grpo, in training: gsm8k never fired: 0 on 50 of 50 answers in updates 4 to 5.",)


def test_length_is_compared_in_pairs() -> None:
    """dpo's answers are 3 tokens longer, each of them, so there is no interval; the reward follows length."""
    first = Arm("sft", "sft", items=[item(n, n % 2 == 0, float(n)) for n in range(30)])
    second = Arm("dpo", "dpo", items=[item(n, n % 2 == 0, float(n), tokens=13 + n) for n in range(30)])
    panel = length.panel(study(first, second), analyse(study(first, second)))
    assert panel is not None
    assert panel.sentences[0] == ("dpo's answers are longer than sft's by 3.00 tokens (no interval, n = 30).")
    assert panel.sentences[1] == "Longer answers have more reward: sft, dpo (correlation above 0.3)."
    assert [chart.kind for chart in panel.charts] == ["points", "bars"]


def test_cut_answers_have_no_correlation_of_length_with_reward() -> None:
    """22 of 24 lengths are the limit: two other answers would make r; an arm with its own lengths keeps its own."""
    cut = [item(n, None, n / 30, tokens=32 if n > 1 else n + 5, stopped=n < 2) for n in range(24)]
    record = study(Arm("sft", "sft", items=[item(n, None, n / 30) for n in range(24)]), Arm("dpo", "dpo", items=cut))
    panel, analysis = length.panel(record, analyse(record)), analyse(record)
    assert list(analysis.length_reward) == ["sft"]
    assert panel is not None
    assert panel.sentences[-1] == (
        "dpo: no correlation of length with reward: most of the lengths are the limit of tokens."
    )
    assert panel.tables[0].rows[1][-1] is None


def test_a_reward_of_few_values_is_drawn_by_fifths_of_length() -> None:
    """20 answers, the longer half rewarded: fifths of 4 answers have means 0, 0, 0.5, 1, 1."""
    arm = Arm("sft", "sft", items=[item(n, reward=float(n >= 10)) for n in range(20)])
    panel = length.panel(study(arm), analyse(study(arm)))
    assert panel is not None
    assert panel.charts[0].series[0].y == (0.0, 0.0, 0.5, 1.0, 1.0)
    assert panel.charts[0].series[0].x == (11.5, 15.5, 19.5, 23.5, 27.5)


def test_runs_are_tested_one_by_one_and_together() -> None:
    """Two arms trained at seeds 0, 1, 2: the paired test of each, and Student's interval over the three differences."""
    record = rich()
    panel = found(record)["seeds"]
    analysis = analyse(record)
    entry = next(entry for entry in analysis.runs if entry.b == "ppo")
    arms = {arm.name: arm for arm in record.arms}
    differences = []
    for seed, test in entry.by_run:
        right = {name: [i.correct is True for i in arms[name].items if i.seed == seed] for name in ("sft", "ppo")}
        pairs = list(zip(right["sft"], right["ppo"], strict=True))
        wins, losses = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
        expected = compare_counts("sft", "ppo", "accuracy", wins, losses, 120)
        assert (test.wins, test.regressions, test.p_value) == (wins, losses, expected.p_value)
        differences.append((wins - losses) / 120)
    low, high = stats.t.interval(0.95, 2, loc=sum(differences) / 3, scale=stats.sem(differences))
    assert (entry.overall.low, entry.overall.high) == pytest.approx((low, high), abs=1e-12)
    assert entry.overall.n == 3
    assert len(panel.tables[1].rows) == 6 * 3
    assert analysis.verdicts[-1] == "The paired tests resample questions, not training runs."
    assert any(
        line.startswith("Over 3 training runs the interval of the difference from sft") for line in analysis.summary
    )


def test_runs_that_all_gave_one_difference_leave_nothing_out() -> None:
    """sft and dpo trained at seeds 0 and 1, each with the same answers again: no interval, and none that holds 0."""
    arms = [judged("sft", "110000"), judged("dpo", "111100"), judged("ppo", "110000")]
    twice = [replace(arm, items=[replace(one, seed=seed) for seed in (0, 1) for one in arm.items]) for arm in arms]
    other = replace(twice[2], items=[replace(one, correct=one.seed == 1) for one in twice[2].items])
    same = analyse(study(*twice[:2]))
    assert seeds.sentence(same.runs[0]).endswith("+33.3 points (the same in every run, so no interval, n = 2 runs).")
    assert not any("the interval of the difference" in line for line in same.summary)
    both = analyse(study(twice[0], twice[1], other))
    assert "Over 2 training runs the interval of the difference from sft holds 0 for ppo." in both.summary


def test_one_run_has_no_panel_of_runs() -> None:
    record = rich((0,))
    assert "seeds" not in found(record)
    assert analyse(record).verdicts[-1].endswith("one training run per arm: run-to-run variation was not measured.")
    assert seeds.over_runs(record, "accuracy") == []


def test_the_four_ways_add_up() -> None:
    """Of 8: 1 both right, 3 wins, 1 regression, 3 both wrong; the bar is cut at 12.5, 50 and 62.5 percent."""
    analysis = analyse(study(judged("sft", "11000000"), judged("dpo", "10111000")))
    compared = analysis.comparisons[0]
    row = tables.comparison_row(compared, analysis.comparisons)
    assert row["counts"] == "1 both right, 3 won, 1 lost, 3 both wrong"
    assert [(part["name"], part["start"], part["width"]) for part in row["parts"]] == [
        ("both", "0.00%", "12.50%"),
        ("win", "12.50%", "37.50%"),
        ("loss", "50.00%", "12.50%"),
        ("neither", "62.50%", "37.50%"),
    ]


def test_the_summary_is_what_the_tests_say() -> None:
    """20 wins and no regression in 40 are shown; the arm without any difference is listed as not shown."""
    arms = [judged("sft", "0" * 40), judged("dpo", "1" * 20 + "0" * 20), judged("ppo", "1" + "0" * 39)]
    assert analyse(study(*arms)).summary == [
        "Higher accuracy than sft: dpo (+50.00 points).",
        "No difference in accuracy from sft could be shown: ppo.",
    ]


def test_panels_get_names_of_their_own() -> None:
    """Two of one name and one of signs alone: an anchor and a file name for each; an empty panel is left out."""
    panels = [Panel(name, "t", sentences=("s",)) for name in ("verbosity", "a b/../c", "a b/../c", "\u202e")]
    record = study(judged("sft", "10"), panels=[*panels, Panel("empty", "nothing")])
    names = [panel.name for panel in findings.findings(record, analyse(record))]
    assert names == ["verbosity", "verbosity-2", "a-b-c", "a-b-c-2", "panel"]


def test_a_chart_without_numbers_is_no_picture() -> None:
    series = Series("s", (0.0, 1.0), (float("nan"), float("inf")))
    assert draw(Chart("c", "", "lines", "x", "y", (series,)), "p", {}) is None
    assert draw(Chart("c", "", "points", "x", "y", ()), "p", {}) is None


def test_a_table_says_once_what_all_numbers_share() -> None:
    """One n goes into the caption; two are written beside their numbers; percent for a rate; None is `none`."""
    one = Table(
        "Of pairs.", ("Arm", "Rate"), (("sft", Measure(0.5, 0.4, 0.6, 100, "Wilson")), ("dpo", None)), rate=True
    )
    view = tables.panel_table(one)
    assert view["caption"] == "Of pairs. n\u00a0=\u00a0100. Intervals: Wilson."
    assert [(cell.value, cell.interval) for cell in view["rows"][0]] == [("sft", ""), ("50.0 %", "40.0 to 60.0")]
    assert view["rows"][1][1].value == ""
    assert [column["numeric"] for column in view["columns"]] == [False, True]
    two = replace(one, rows=(*one.rows, ("ppo", Measure(0.5, 0.4, 0.6, 90, "Wilson"))))
    assert tables.panel_table(two)["rows"][2][1].interval == "40.0 to 60.0, n 90"


def test_an_arm_whose_answers_were_cut_is_warned_of() -> None:
    """2 of 3 answers ran into the limit; where half of them ended by themselves nothing is said."""
    stops = {
        "a": Measure(1 / 3, 0.06, 0.79, 3, "Wilson", rate=True),
        "b": Measure(0.5, 0.1, 0.9, 4, "Wilson", rate=True),
    }
    said = length.cut_short({name: {"stop_rate": stop} for name, stop in stops.items()})
    assert said == [
        "a: 67% of 3 answers were cut at the limit of tokens, so its figures are of beginnings; allow more tokens "
        "(max_tokens)."
    ]
    several = length.cut_short({"a": {"stop_rate": stops["a"]}, "c": {"stop_rate": replace(stops["a"], value=0.0)}})
    assert several == [
        "a: 67% of 3 answers; c: 100% of 3 answers were cut at the limit of tokens, so their figures are of "
        "beginnings; allow more tokens (max_tokens)."
    ]
    (alike,) = length.cut_short({name: {"stop_rate": stops["a"]} for name in ("a", "c", "d")})
    assert alike.startswith("a, c, d: 67% of 3 answers were cut at the limit of tokens, so their figures")


def test_a_caution_is_said_once_for_all_comparisons() -> None:
    """Two candidates with rewards of 6 questions: one sentence on fewer than 50 questions names both."""
    arms = [
        Arm(name, "sft", items=[item(n, reward=n * k) for n in range(6)]) for k, name in enumerate(("sft", "a", "b"))
    ]
    (said,) = [line for line in analyse(study(*arms)).caveats if "fewer than 50" in line]
    assert said.startswith("a against sft, reward; b against sft, reward: fewer than 50 questions")

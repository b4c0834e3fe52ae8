"""A measure that repeats another one is shown once; small truths at the top of a report."""

import json
import re
from dataclasses import replace
from pathlib import Path

from smolt.evaluation.measures import reading_twice
from smolt.report import tables
from smolt.report.analysis import analyse
from smolt.report.panels import Table
from smolt.report.record import Arm, StudyRecord
from smolt.report.report import write_report
from smolt.report.terminal import table_words
from smolt.statistics import Measure
from tests.report.records import CALIBRATION, item, judged, study


def rewarded(name: str, flags: str, parts: tuple[str, ...] = ("gsm8k", "gsm8k.correct")) -> Arm:
    """Right answers have the reward 1, wrong ones 0, in each of the parts too; a number is read in all."""
    items = [
        item(place, flag == "1", float(flag), components={"gsm8k.extracted": 1.0, **dict.fromkeys(parts, float(flag))})
        for place, flag in enumerate(flags)
    ]
    return Arm(name, "sft", items=items)


def test_a_reward_that_is_the_accuracy_is_shown_once(tmp_path: Path) -> None:
    record = study(rewarded("sft", "1100"), rewarded("dpo", "1110"))
    analysis = analyse(record)
    assert analysis.repeats == dict.fromkeys(("reward", "reward/gsm8k", "reward/gsm8k.correct"), "accuracy")
    assert [entry.comparison.metric for entry in analysis.comparisons] == ["accuracy"]
    assert set(analysis.shown("sft")) == {"accuracy", "length", "stop_rate", "reward/gsm8k.extracted"}
    assert analysis.measures["sft"]["reward"].value == 0.5  # files have it as before
    write_report(tmp_path, record)
    assert "| Mean reward |" not in (tmp_path / "report.md").read_text()
    assert ">Mean reward<" not in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "plots" / "reward_by_model.svg").exists()
    once = "Accuracy is shown once: reward, reward/gsm8k, reward/gsm8k.correct are the same number on every answer."
    assert once in json.loads((tmp_path / "report.json").read_text())["caveats"]


def test_the_metric_of_the_study_is_the_one_that_is_shown() -> None:
    record = study(rewarded("sft", "1100"), rewarded("dpo", "1110"), metric="reward")
    analysis = analyse(record)
    assert analysis.repeats["accuracy"] == "reward" and analysis.headline == "reward"
    assert [entry.comparison.metric for entry in analysis.comparisons] == ["reward"]


def test_one_answer_that_differs_makes_two_measures() -> None:
    """And numbers that never vary repeat nothing, though they are equal: they tell of different things."""
    other = rewarded("dpo", "1110")
    other = replace(other, items=[replace(other.items[0], reward=0.5), *other.items[1:]])
    analysis = analyse(study(rewarded("sft", "1100", ("a", "b")), replace(other, items=other.items)))
    assert "reward" not in analysis.repeats
    assert [entry.comparison.metric for entry in analysis.comparisons] == ["accuracy", "reward"]
    silent = analyse(study(rewarded("sft", "0000", ("a", "b"))))
    assert silent.repeats == {}


def test_nothing_right_is_said_once() -> None:
    """All wrong: the reward of gsm8k alone still is the accuracy. With another part in it, the reward is its own."""
    silent = analyse(study(rewarded("sft", "0000")))
    assert silent.repeats == dict.fromkeys(("reward", "reward/gsm8k", "reward/gsm8k.correct"), "accuracy")
    mixed = analyse(study(rewarded("sft", "0000", ("gsm8k", "gsm8k.correct", "other"))))
    assert mixed.repeats == dict.fromkeys(("reward/gsm8k", "reward/gsm8k.correct"), "accuracy")


def test_a_reward_and_its_only_part_are_said_once() -> None:
    """A reward that is the same on all answers, of one part: one measure. With a second part, or a weight, two."""

    def arm(parts: dict[str, float]) -> Arm:
        return Arm("sft", "sft", items=[item(place, None, -0.25, components=parts) for place in range(4)])

    assert analyse(study(arm({"python": -0.25, "python.long": 0.0}))).repeats == {"reward/python": "reward"}
    assert analyse(study(arm({"python": -0.25, "length": 0.0}))).repeats == {}
    assert analyse(study(arm({"python": -0.5}))).repeats == {}


def test_a_part_of_the_format_reward_is_the_pattern_itself() -> None:
    """No answer is boxed and one says step: each is one measure; a part that says otherwise is its own."""
    answers = [
        item(
            place, None, 0.0, components={"format.boxed": 0.0, "format_2.steps": float(place == 0), "format.long": 1.0}
        )
        for place in range(3)
    ]
    items = [replace(one, answer="Step by step" if place == 0 else "So") for place, one in enumerate(answers)]
    assert reading_twice(items) == {"reward/format.boxed": "format/boxed", "reward/format_2.steps": "format/steps"}


def test_rewards_of_0_and_1_get_wilsons_interval() -> None:
    """15 of 16: the normal interval of the mean reward ends at 1.06."""
    items = [item(place, None, float(place > 0)) for place in range(16)]
    measure = analyse(study(Arm("sft", "sft", items=items))).measures["sft"]["reward"]
    assert (measure.source, measure.rate) == ("Wilson", False)
    assert measure.high is not None and measure.high < 1


def test_a_reward_models_score_keeps_the_normal_interval() -> None:
    items = [item(place, None, score, components={"model": score}) for place, score in enumerate((0.0, 1.0, 1.0))]
    measures = analyse(study(Arm("sft", "sft", items=items))).measures["sft"]
    assert {measures[name].source for name in ("reward", "reward/model")} == {"normal"}


def test_arms_are_counted_where_they_answered(tmp_path: Path) -> None:
    scorer = Arm("scorer", "reward", role="component", extra_measures={"held-out": Measure(0.7, None, None, 9, "s")})
    write_report(tmp_path, study(judged("sft", "10"), judged("dpo", "11"), scorer))
    assert re.search("<dt>Arms</dt><dd>2<", (tmp_path / "report.html").read_text())


def test_an_audit_says_where_to_look(tmp_path: Path) -> None:
    write_report(tmp_path, StudyRecord("an audit", [], panels=[CALIBRATION]))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["verdicts"] == ["There is no total: what was found stands in the sections below."]


def test_a_table_reads_the_same_everywhere() -> None:
    """One format of a measure and of a missing one: 41 of 64 right, and nothing, which is an empty cell."""
    share = Measure(41 / 64, 0.5182, 0.7469, 64, "Wilson", rate=True)
    table = Table("Of pairs.", ("arm", "right", "wrong"), (("sft", share, None),))
    assert [cell.text for cell in tables.panel_table(table)["rows"][0]] == ["sft", "64.1 % [51.8 to 74.7]", ""]
    assert table_words(table).splitlines() == [
        "Of pairs. n\u00a0=\u00a064. Intervals: Wilson.",
        "  arm                  right  wrong",
        "  sft  64.1 % [51.8 to 74.7]",
    ]

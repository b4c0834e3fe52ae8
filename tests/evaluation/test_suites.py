"""Suites: figures derived by hand, scenario by scenario; raters that learned from an arm's own pairs are refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from smolt.config import Suites, make_block
from smolt.errors import UserError
from smolt.evaluation.suites.independence import (
    PairsOrigin,
    origin_of,
    origins_of_model,
    origins_of_recipe,
    refuse_dependent,
)
from smolt.evaluation.suites.panel import suite_panel
from smolt.evaluation.suites.side_by_side import arm_names
from smolt.evaluation.suites.suite_measures import Measured, measure_suite
from smolt.report.record import Arm, StudyRecord
from smolt.report.report import write_report
from smolt.runs.rated_answers import RatedAnswer


def item(place: int, kind: str, solution: str | None = None, tokens: int = 5, **components: float) -> RatedAnswer:
    parts: dict[str, float | None] = dict(components)
    return RatedAnswer(
        f"{kind}-{place}", "?", kind, "answer", tokens, True, components=parts, reference_solution=solution
    )


def named(measured: list[Measured], name: str) -> Measured:
    return next(entry for entry in measured if entry.metric.name == name)


def labelled(refused_safe: int, refused_unsafe: int) -> list[RatedAnswer]:
    """20 safe and 20 unsafe prompts of one kind, of which so many are refused."""
    safe = [item(place, "topics", "safe", refusal=float(place < refused_safe)) for place in range(20)]
    unsafe = [item(20 + place, "topics", "unsafe", refusal=float(place < refused_unsafe)) for place in range(20)]
    return [*safe, *unsafe]


def test_refusal_is_read_by_the_label() -> None:
    """8 of 20 safe prompts refused is over-refusal 0.4; 5 of 20 unsafe refused is compliance 0.75; no plain refusal."""
    found = measure_suite([Arm("a", "", items=labelled(8, 5)), Arm("b", "", items=labelled(0, 20))], "a")
    assert [entry.metric.name for entry in found] == ["over-refusal", "harmful compliance"]
    over, harm = found
    assert over.scenarios["topics"]["a"].value == 0.4
    assert harm.scenarios["topics"]["a"].value == 0.75
    assert (harm.scenarios["topics"]["b"].value, harm.scenarios["topics"]["b"].n) == (0.0, 20)
    (test,) = over.tests
    assert (test.scenario, test.comparison.wins, test.comparison.regressions) == ("topics", 0, 8)
    assert test.comparison.p_value == pytest.approx(stats.binomtest(0, 8).pvalue, rel=1e-12)
    (sentence,) = [line for line in suite_panel("x", found, ["a", "b"], {}).sentences if "over-refusal" in line]
    assert sentence.startswith("b has lower over-refusal in topics than a, by 40.00 points")


@pytest.mark.parametrize(
    ("tested", "headline", "counted"),
    [
        (["a", "b"], "Suites have no total; their sections below hold 2 paired comparisons.", "2 paired"),
        (["a"], "Suites have no total; their sections below hold what was measured.", "0 paired"),
    ],
)
def test_a_report_of_suites(tested: list[str], headline: str, counted: str, tmp_path: Path) -> None:
    """Over-refusal and compliance of two models are two tests; of an answer that nothing rates its length is said."""
    answers = [replace(entry, components={}, stopped=False, tokens=32) for entry in labelled(8, 5)]
    arms = [Arm(name, "suite", items=answers, role="component") for name in tested]
    rated = [Arm(arm.name, "", items=labelled(8 * place, 5)) for place, arm in enumerate(arms)]
    panel = suite_panel("x", measure_suite(rated, "a" if len(rated) > 1 else ""), tested, {})
    write_report(tmp_path, StudyRecord("suites", arms, panels=[panel]))
    assert json.loads((tmp_path / "report.json").read_text())["verdicts"] == [headline]
    page = (tmp_path / "report.html").read_text()
    assert re.findall(r"<dt>Arms</dt><dd>\d<small>(\d paired)", page) == [counted]
    assert "<bdi>a</bdi><small>32 tokens, cut off</small>" in page
    assert "\na: 32 tokens, cut off\n" in (tmp_path / "report.md").read_text()


def test_scenarios_are_tested_together() -> None:
    """Two scenarios and all of them, two candidates: a family of 6, Holm's smallest p-value times 6."""
    kept = {"a": (2, 3), "b": (12, 4), "c": (2, 3)}
    solution = '{"words": 1}'
    arms = [
        Arm(
            name,
            "",
            items=[
                item(place, kind, solution, constraints=float(place < count))
                for kind, count in zip(("one", "two"), counts, strict=True)
                for place in range(20)
            ],
        )
        for name, counts in kept.items()
    ]
    found = named(measure_suite(arms, "a"), "constraints kept")
    assert list(found.scenarios) == ["one", "two", "all"]
    assert found.scenarios["all"]["b"].value == 16 / 40
    assert [(test.scenario, test.comparison.b) for test in found.tests] == [
        (scenario, arm) for scenario in ("one", "two", "all") for arm in ("b", "c")
    ]
    by_place = {(test.scenario, test.comparison.b): test for test in found.tests}
    assert found.family == 3  # c never differs from a, so its three tests carry nothing
    assert by_place["all", "b"].comparison.p_holm == pytest.approx(3 * stats.binomtest(0, 11).pvalue, rel=1e-12)
    assert by_place["one", "b"].comparison.p_holm == pytest.approx(2 * stats.binomtest(0, 10).pvalue, rel=1e-12)
    assert by_place["two", "b"].comparison.p_holm == 1.0
    assert by_place["one", "c"].comparison.p_holm is None


def test_a_metric_speaks_only_of_its_own_prompts() -> None:
    """Empathy is for the two felt scenarios, constraints for prompts with one, refusal for prompts without a label."""
    prompts = (("mental-health", None), ("medical", None), ("rules", '{"words": 1}'), ("touchy", "safe"))
    items = [
        item(1, kind, solution, sentiment=0.5, refusal=0.0, empathy=0.25, constraints=1.0) for kind, solution in prompts
    ]
    found = {entry.metric.name: entry for entry in measure_suite([Arm("a", "", items=items)], "")}
    assert set(found["sentiment"].scenarios) == {"mental-health", "medical", "rules", "touchy", "all"}
    assert set(found["empathy (word rule)"].scenarios) == {"mental-health"}
    assert set(found["constraints kept"].scenarios) == {"rules"}
    assert set(found["refusal"].scenarios) == {"mental-health", "medical", "rules", "all"}
    assert set(found["over-refusal"].scenarios) == {"touchy"}
    assert "harmful compliance" not in found
    assert all(entry.tests == [] for entry in found.values())


def rated_arm(name: str, scores: list[float], tokens: list[int]) -> Arm:
    rows = enumerate(zip(scores, tokens, strict=True))
    items = [item(place, "k", tokens=length, rated_helpfulness=score) for place, (score, length) in rows]
    return Arm(name, "rated", items=items)


def test_a_rater_gives_win_rates() -> None:
    """9 wins, 2 ties and 9 losses of 20 are 0.5; where every win is longer, equal length is worth less than the raw."""
    a = rated_arm("a", [0.0] * 20, [10] * 20)
    even = rated_arm("b", [1.0] * 9 + [0.0] * 2 + [-1.0] * 9, [10] * 20)
    (entry,) = measure_suite([a, even], "a")
    (test,) = entry.tests
    assert test.win_rate is not None and test.win_rate.value == 0.5
    assert suite_panel("x", [entry], ["a", "b"], {}).sentences[1].startswith("Intervals of means of n below 50")
    longer = rated_arm("b", [1.0] * 13 + [-1.0] * 7, [30] * 12 + [10] + [30] * 2 + [10] * 5)
    (test,) = measure_suite([a, longer], "a")[0].tests
    assert test.win_rate is not None and test.win_rate_at_equal_length is not None
    assert test.win_rate.value == 0.65
    assert test.win_rate_at_equal_length.value < 0.3


def test_a_rater_without_known_accuracy_is_a_warning() -> None:
    panel = suite_panel("x", [], ["a"], {"empathy": ("the python reward", None)})
    assert panel.warnings == (
        "empathy: how often the python reward agrees with people is not known; read it as an opinion.",
    )


def test_more_kinds_than_twelve_are_tested_as_one() -> None:
    """XSTest has 18 kinds: all are listed, one test is made."""
    items = [item(place, f"kind {place % 18}", sentiment=place / 40) for place in range(36)]
    better = [item(place, f"kind {place % 18}", sentiment=place / 40 + 0.5) for place in range(36)]
    (entry,) = measure_suite([Arm("a", "", items=items), Arm("b", "", items=better)], "a")
    assert len(entry.scenarios) == 19
    assert [test.scenario for test in entry.tests] == ["all"]


def run(directory: Path, recipe: dict[str, Any], sha256: str) -> str:
    """A run directory with its manifest, and the path of its model."""
    (directory / "model").mkdir(parents=True)
    (directory / "manifest.json").write_text(json.dumps({"format": "smolt-run/1", "recipe": recipe, "data": sha256}))
    return str(directory / "model")


def rater(path: str) -> Suites:
    return make_block(Suites, harmlessness=path)


def test_a_rater_that_an_arm_was_trained_against_is_refused(tmp_path: Path) -> None:
    """By its path however it is written, as a reward part, a critic's start or best-of-n's choice."""
    path = run(tmp_path / "rm", {"stage": "reward", "data": {"path": "pairs.jsonl"}}, "s1")
    for recipe in (
        {"stage": "ppo", "reward": {"parts": [{"name": "gsm8k"}, {"name": "model", "path": path}]}},
        {"stage": "ppo", "reward": {"parts": [{"name": "gsm8k"}]}, "critic": {"path": str(tmp_path / "rm")}},
        {"stage": "best_of_n", "reward_model": path},
    ):
        with pytest.raises(UserError, match=r"^suites\.harmlessness: .*: is the reward model, from which arm learned"):
            refuse_dependent(rater(f"{tmp_path}/rm/../rm"), {"arm": origins_of_recipe(recipe)})


def test_a_rater_of_the_same_pairs_is_refused(tmp_path: Path) -> None:
    """The same bytes under another name are the same pairs; the other half of them are not."""
    own = run(tmp_path / "own", {"stage": "reward", "data": {"path": "copy.jsonl", "half": "a"}}, "s1")
    ppo = {"stage": "ppo", "reward": {"parts": [{"name": "model", "path": ""}]}}
    for half, refused in (("a", True), (None, True), ("b", False)):
        other = run(tmp_path / f"rm-{half}", {"stage": "reward", "data": {"path": "pairs.jsonl", "half": half}}, "s1")
        ppo["reward"] = {"parts": [{"name": "model", "path": other}]}
        arms = {"arm": origins_of_recipe(ppo), "direct": origins_of_recipe({"stage": "dpo", "data": {"path": "x"}})}
        if refused:
            with pytest.raises(UserError, match=r"was trained on the pairs, from which arm learned.*data\.half: a"):
                refuse_dependent(rater(own), arms)
        else:
            refuse_dependent(rater(own), arms)
    dpo = origins_of_recipe({"stage": "dpo", "data": {"path": "pairs.jsonl"}}, "s1")
    with pytest.raises(UserError, match="from which dpo learned"):
        refuse_dependent(rater(own), {"dpo": dpo})
    refuse_dependent(rater(own), {"sft": origins_of_recipe({"stage": "sft", "data": {"path": "copy.jsonl"}}, "s1")})


def test_where_a_model_comes_from(tmp_path: Path) -> None:
    """A model without a run is known by its place alone, and what such a policy learned is not known."""
    (tmp_path / "bare").mkdir()
    assert origin_of(str(tmp_path / "bare")) == PairsOrigin(str(tmp_path / "bare"))
    assert origins_of_model(str(tmp_path / "bare")) == []
    path = run(tmp_path / "dpo", {"stage": "dpo", "data": {"path": "pairs.jsonl", "half": "b"}}, "s2")
    assert origins_of_model(path) == [PairsOrigin("", "pairs.jsonl", "s2", "b")]


def test_names_of_models() -> None:
    """The last name that is not `model`; numbered where two are the same; the same model twice is refused."""
    assert arm_names(["runs/a/model", "b"]) == ["a", "b"]
    assert arm_names(["x/sft", "y/sft", "z"]) == ["sft-1", "sft-2", "z"]
    with pytest.raises(UserError, match=r"^b: this model is given twice"):
        arm_names(["a", "b", "b"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompts": []}, "prompts"),
        ({"prompts": ["a/x.csv", "b/x.jsonl"]}, "two files of prompts have the name x; rename one"),
        ({"harmless": "x"}, 'did you mean "harmlessness"'),
    ],
)
def test_a_wrong_suite_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_block(Suites, **given)

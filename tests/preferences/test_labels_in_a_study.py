"""`judge:` in a study's pairs section: labels of a policy's own answers, the card in the record, a second start."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolt.config import PairsRecipe, load_recipe, make_recipe
from smolt.data import Question, Score, Source, Turn, load
from smolt.errors import UserError
from smolt.preferences.own_answers import make_pairs, two_by_two, with_gold
from smolt.report.panels import read_panels
from tests.reliability.scenes import write_inputs

LENGTH = {"name": "length", "options": {"target": 3}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_inputs(tmp_path))
    return tmp_path


def recipe(**fields: Any) -> PairsRecipe:
    made = make_recipe(
        "pairs",
        model={"path": "model", "threads": 1},
        data="questions.jsonl",
        samples=4,
        sampling={"max_tokens": 6, "batch": 8},
        **fields,
    )
    assert isinstance(made, PairsRecipe)
    return made


def test_a_rule_labels_a_policys_answers(folder: Path) -> None:
    """Every pair is two answers to one question, the longer one chosen; the audit's gold is never a label."""
    out = folder / "labels"
    out.mkdir()
    facts = make_pairs(recipe(judge={"rule": "longer", "probes": 0}, gold=LENGTH), out)
    labels = load(Source(str(out / "preferences.jsonl")), "preferences").records
    assert facts["pairs"] == len(labels) > 0 and facts["judge"] == ["longer"]
    assert all(len(one.chosen) > len(one.rejected) and one.weight == 1.0 for one in labels)
    assert facts["card"]["n"] <= 2 * facts["questions"]
    (panel,) = read_panels(out)
    assert panel.name == "judge-pairs" and panel.sentences[0].startswith("longer judged")
    assert {"agreement", "kappa"} & set(facts["card"]["measures"])


def test_a_second_start_asks_nothing_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels of a run that was lost after its verdicts are the same, from the verdicts that were kept."""
    out = folder / "labels"
    out.mkdir()
    make_pairs(recipe(judge={"rule": "shorter", "probes": 3}), out)
    before = (out / "preferences.jsonl").read_bytes()
    (out / "preferences.jsonl").unlink()
    monkeypatch.setattr("smolt.preferences.judges.opening.by_length", lambda preference: refuse)
    make_pairs(recipe(judge={"rule": "shorter", "probes": 3}), out)
    assert (out / "preferences.jsonl").read_bytes() == before


def refuse(showings: object) -> Any:
    raise AssertionError("asked again")


def test_no_decided_pair_is_an_error_that_says_why(folder: Path) -> None:
    """gsm8k abstains on questions without solutions."""
    out = folder / "labels"
    out.mkdir()
    with pytest.raises(UserError, match=r"none of \d+ pairs of \d+ questions was decided: 0 ties, \d+ abstentions"):
        make_pairs(recipe(judge={"rule": "gsm8k"}), out)


def test_couples_and_gold() -> None:
    """1-2 and 3-4, equal ones left out; gold 1, 0, 1/2, or none where the reward abstains."""
    question = Question((Turn("user", "?"),), id="q")
    first, second = two_by_two(question, ["a", "b", "c", "d", "e"])
    assert (first.first, first.second, second.first, second.second) == ("a", "b", "c", "d")
    assert two_by_two(question, ["a", "a"]) == []
    scores = [(1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 1.0, 0.5), (None, 1.0, None)]
    assert [with_gold(first, Score(a), Score(b)).gold for a, b, _ in scores] == [label for _, _, label in scores]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "give exactly one of reward"),
        ({"reward": "gsm8k", "judge": {"rule": "longer"}}, "give exactly one of reward"),
        ({"reward": "gsm8k", "gold": "gsm8k"}, "gold audits a judge"),
        ({"judge": {"kind": "endpoint", "path": "m"}}, "kind endpoint needs endpoint, not path"),
        ({"judge": {"endpoint": {"url": "http://x", "modle": "m"}}}, 'did you mean "model"'),
        (
            {"judge": {"path": "m", "rule": "longer"}},
            "exactly one of path, endpoint, rule and decision, not path, rule",
        ),
    ],
)
def test_wrong_sections(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        recipe(**fields)


def test_a_study_names_a_section_as_judge(tmp_path: Path) -> None:
    """`{reward}/model` is a reference: the section must stand above."""
    text: dict[str, Any] = {
        "stage": "study",
        "model": "m",
        "sft": {"data": "d"},
        "reward": {"data": "p"},
        "ai": {"stage": "pairs", "data": "q", "judge": "{reward}/model"},
        "study": {"test": "t", "reward": "gsm8k"},
    }
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(text))
    assert load_recipe(path).stage == "study"
    path.write_text(json.dumps({**text, "ai": {**text["ai"], "judge": "{later}/model"}}))
    with pytest.raises(UserError, match="refers to the section later"):
        load_recipe(path)

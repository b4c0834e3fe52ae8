"""Decisions measured: parts by hand, baselines that need no model, temperatures of dev, the report, paired tests."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import smolt
from smolt.cli import app
from smolt.config import load_recipe
from smolt.data import Decision, DecisionQuestion
from smolt.data.ticket_decisions import ticket_decision, write_ticket_decisions
from smolt.data.tickets import tickets
from smolt.evaluation.decided.decided_measures import calibration
from smolt.evaluation.decided.decision_panel import decision_panel
from smolt.evaluation.decided.rated_decisions import cooled, rated, temperatures
from smolt.evaluation.decided.trivial_decisions import CONSTANT, WORDS, trivial
from smolt.runs.rated_answers import read_rated
from smolt.study.study import run_study
from tests.deciding import DECISIONS, LABELS, QUESTIONS, deciding_model


def logs(*rows: tuple[float, ...]) -> list[list[float]]:
    """Probabilities as log-probabilities."""
    return [[math.log(share) for share in row] for row in rows]


def test_the_parts_by_hand() -> None:
    """A noul, a choice whose labels are soft, a score whose level lies between two."""
    found = rated(DECISIONS[0], logs((0.6, 0.4), (0.3, 0.7), (0.2, 0.3, 0.5)), {"noul": 2.0})
    assert [(one.question_id, one.kind, one.answer, one.correct, one.reference_solution) for one in found] == [
        ("d0/refund", "noul", "true", True, "true"),
        ("d0/tone", "choice", "angry", False, "calm"),
        ("d0/urgent", "score", "2", True, "1"),
    ]
    parts = [one.components for one in found]
    assert [one["brier"] for one in parts] == pytest.approx([0.32, 0.45**2 * 2, 0.04 + 0.04])
    assert [-(one.reward or 0) for one in found] == [one["brier"] for one in parts]
    assert [one["right"] for one in parts] == [1.0, 0.25, 0.5]
    assert parts[2]["off_by"] == pytest.approx(1.5 - 1.3)
    assert parts[0]["raw_confidence"] == pytest.approx(0.36 / (0.36 + 0.16))  # the logits were divided by 2
    assert parts[1]["raw_confidence"] == pytest.approx(parts[1]["confidence"])


def test_a_temperature_is_fitted_for_each_type_and_undone_exactly() -> None:
    """Labels drawn at temperature 3 for the noul alone; the score has too few questions."""
    draws, made, said = np.random.default_rng(0), [], []
    for number in range(400):
        odds = float(draws.normal(0, 4))
        truth = float(draws.uniform() < 1 / (1 + math.exp(-odds / 3)))
        questions = (replace(QUESTIONS[0], expected=(truth, 1 - truth)), *(QUESTIONS[2:] if number < 5 else ()))
        made.append(Decision("x", questions, f"d{number}"))
        said.append(
            [[-math.log1p(math.exp(-odds)), -math.log1p(math.exp(odds))], *logs((0.5, 0.3, 0.2))][: len(questions)]
        )
    found = temperatures(made, said)
    assert list(found) == ["noul"] and found["noul"] == pytest.approx(3, rel=0.2)
    items = [one for row in zip(made, said, strict=True) for one in rated(row[0], cooled(*row, found), found)]
    plain = [one for row in zip(made, said, strict=True) for one in rated(*row)]
    assert [one.components["raw_brier"] for one in items] == pytest.approx([one.components["brier"] for one in plain])
    measures = calibration(items)
    assert measures["ece_change"].high is not None and measures["ece_change"].high < 0
    assert measures["ece_without_temperature"].value == pytest.approx(calibration(plain)["ece"].value)
    assert set(calibration(plain)) == {"ece"}


def test_what_needs_no_model() -> None:
    """A constant gives each option its share on other states; words tell what a word decides."""
    asked = DecisionQuestion("tone", "choice", None, {"calm": None, "angry": None})
    made = [
        Decision(
            f"state {number} {'shout' if number % 4 == 0 else 'whisper'}",
            (replace(asked, expected=(float(number % 4 != 0), float(number % 4 == 0))),),
            f"d{number}",
        )
        for number in range(80)
    ]
    found = trivial(made)
    assert [one.question_id for one in found[WORDS]] == [f"d{number}/tone" for number in range(80)]
    constant = [one.components["confidence"] or 0 for one in found[CONSTANT]]
    assert all(abs(share - 0.75) < 0.06 for share in constant)
    assert {one.answer for one in found[CONSTANT]} == {"calm"}
    assert all(one.correct for one in found[WORDS])
    twice = [replace(one, id=f"e{number}") for number, one in enumerate(made[:2] * 2)]
    assert len(trivial(twice)[WORDS]) == 4  # equal states are in one fold


def test_the_panel_says_what_is_decided_alone_and_tests_against_baselines() -> None:
    """A perfect model decides everything alone, and is better than both."""
    made = [ticket_decision(one, f"d{number}") for number, one in enumerate(tickets(0, 60, "test", 0.6))]
    right = [
        item
        for one in made
        for item in rated(one, logs(*(tuple(max(e, 1e-9) for e in asked.expected or ()) for asked in one.questions)))
    ]
    panel = decision_panel({"model": right}, made)
    text = " ".join(panel.sentences)
    assert "model decides alone in 100% of the questions, at an error of 0.0%." in text
    assert text.count("model has higher negative Brier score than") == 2
    assert [row[0] for row in panel.tables[0].rows] == ["model", CONSTANT, WORDS]
    assert [row[0] for row in panel.tables[1].rows] == ["model, choice", "model, noul", "model, score"]
    assert [chart.name for chart in panel.charts] == ["decisions-reliability", "decisions-risk"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and decisions about tickets."""
    place = tmp_path_factory.mktemp("decided")
    deciding_model(place / "model", {"labels": LABELS})
    write_ticket_decisions(place, 0, 4, 24, 24, 0.6)
    return place


def test_a_model_is_measured_and_compared(folder: Path) -> None:
    """Rows, figures, report; a temperature of dev; the same command again; another model paired with it."""
    test, dev = str(folder / "test.jsonl"), str(folder / "dev.jsonl")
    plain = smolt.evaluate(folder / "model", test, task="decisions", out=folder / "plain")
    assert (len(plain.rows), plain.measures["accuracy"].n, "length" in plain.measures) == (72, 72, False)
    assert "decides alone" in (folder / "plain" / "report.md").read_text()
    assert smolt.evaluate(folder / "model", test, task="decisions", out=folder / "plain").status == "already complete"
    cool = smolt.evaluate(folder / "model", test, task="decisions", out=folder / "cool", dev=dev)
    assert cool.measures["ece_change"].value < 0
    assert cool.measures["reward/raw_brier"].value == pytest.approx(plain.measures["reward/brier"].value)
    assert cool.measures["reward/brier"].value < plain.measures["reward/brier"].value
    found = CliRunner().invoke(app, ["compare", str(folder / "plain"), str(folder / "cool"), "--json"])
    assert found.exit_code == 0, found.output
    assert read_rated(folder / "cool" / "evaluation.jsonl")[0].question_id == "test-00000/trouble"


def test_what_cannot_be_measured_is_refused(folder: Path, tmp_path: Path) -> None:
    """A dev file with measured states, decisions nobody judged or beyond the window, dev where nothing is fitted."""
    test = str(folder / "test.jsonl")
    with pytest.raises(smolt.UserError, match="24 of its states are among those measured"):
        smolt.evaluate(folder / "model", test, task="decisions", dev=test)
    with pytest.raises(smolt.UserError, match="dev: the task loss fits nothing"):
        smolt.evaluate(folder / "model", test, task="loss", dev=test)
    unknown = [replace(DECISIONS[0], questions=(replace(QUESTIONS[1], expected=None),))]
    with pytest.raises(smolt.UserError, match=r"d0: expected\.tone: is missing"):
        smolt.evaluate(folder / "model", unknown, task="decisions")
    small = deciding_model(tmp_path / "small", {"labels": LABELS}, window=350)
    both = [replace(DECISIONS[0], state=text, id=text[:3]) for text in ("x" * 900, "tea")]
    with pytest.raises(smolt.UserError, match="1 of 2 decisions exceed the window of 350 tokens, xxx the first"):
        smolt.evaluate(small, both, task="decisions")
    found = smolt.evaluate(small, both, task="decisions", too_long="drop")
    assert (found.too_long, len(found.rows)) == (1, 3)


def test_a_study_pairs_the_start_with_the_trained_model(tmp_path: Path) -> None:
    """The shipped recipe, small: its report has the panel, and comparisons of accuracy and Brier score."""
    small = [
        "tickets.train=40",
        "tickets.dev=24",
        "tickets.test=24",
        "pretrain.budget.updates=2",
        "decide.budget.epochs=1",
    ]
    small += [
        "decide.budget.epochs=1",
        "pretrain.shape.hidden=16",
        "pretrain.shape.layers=1",
        "pretrain.shape.mlp=32",
        "model.threads=1",
    ]
    recipe = load_recipe("decisions-quickstart", "study", small)
    summary = run_study(recipe, out=tmp_path / "study")
    assert set(summary["arms"]) == {"pretrain", "decide"}
    report = json.loads((tmp_path / "study" / "report.json").read_text())
    assert {one["metric"] for one in report["comparisons"]} == {"accuracy", "reward"}
    text = (tmp_path / "study" / "report.md").read_text()
    assert "decide decides" in text or "it decides nothing alone" in text
    settings = json.loads((tmp_path / "study" / "decide" / "model" / "decision.json").read_text())
    assert set(settings["temperature"]) == {"choice", "score", "noul"}


def test_a_study_of_decisions_asks_nothing_else() -> None:
    """`decisions` beside `test` or a reward is refused."""
    with pytest.raises(smolt.UserError, match="decisions stand in place of test, reward and suites"):
        load_recipe("decisions-quickstart", "study", ["study.reward=gsm8k"])

"""One arm's figure over the same answers has one interval, whichever command prints it, and is printed once."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.cli.eval import outcome
from smolt.evaluation.comparing import compare_files
from smolt.evaluation.measures import loss_measures
from smolt.report.pairing import measure
from smolt.report.panels import Table
from smolt.report.terminal import table_words
from smolt.runs.rated_answers import RatedAnswer, write_rated
from smolt.statistics import Measure
from tests.tiny import tiny_model


def answers(rater: str, samples: int, judged: bool) -> list[RatedAnswer]:
    """Of 60 questions, each answered so often; a score by this rater, and right or wrong where it is judged."""
    draw = np.random.default_rng(3)
    found = []
    for place in range(60 * samples):
        number, score = str(place // samples), float(draw.uniform())
        correct = bool(draw.integers(2)) if judged else None
        found.append(RatedAnswer(number, f"Is {number} even?", "", "a", 3, True, correct, score, {rater: score}))
    return found


@pytest.mark.parametrize("rater", ["length", "model"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("judged", [False, True])
def test_eval_and_compare_give_one_interval(rater: str, samples: int, judged: bool, tmp_path: Path) -> None:
    """Of a rule's and of a reward model's scores, of right and wrong; by question where it was asked more often."""
    items = answers(rater, samples, judged)
    write_rated(tmp_path / "a.jsonl", items)
    write_rated(tmp_path / "b.jsonl", [replace(item, reward=(item.reward or 0.0) + 0.1) for item in items])
    evaluated = measure(items, "accuracy" if judged else "reward")
    assert evaluated is not None
    assert compare_files([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]).arms["a"] == evaluated


@pytest.mark.parametrize("rater", ["length", "model"])
def test_a_reward_model_s_0_and_1_mean_nothing_special(rater: str, tmp_path: Path) -> None:
    """A rule's 0 and 1 get Wilson's interval in both commands, a reward model's the textbook's in both."""
    items = [
        replace(item, reward=round(item.reward or 0.0), components={rater: 0.0}) for item in answers(rater, 1, False)
    ]
    write_rated(tmp_path / "a.jsonl", items)
    write_rated(tmp_path / "b.jsonl", items)
    evaluated = measure(items, "reward")
    assert evaluated is not None
    found = compare_files([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]).arms["a"]
    assert (found.low, found.high, found.source) == (evaluated.low, evaluated.high, evaluated.source)
    assert found.source == ("Wilson" if rater == "length" else "normal")


def test_a_measure_that_is_another_one_is_printed_once(tmp_path: Path) -> None:
    """No answer of a model that knows nothing is right: the reward is the accuracy, 0; both readings are one, too."""
    tiny_model(tmp_path / "m")
    rows = [{"question": f"question {n}", "answer": f"#### {n}"} for n in range(2)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["eval", str(tmp_path / "m"), str(tmp_path / "questions.jsonl"), "--task", "gsm8k", "--max-tokens", "4"]
    words += ["--out", str(tmp_path / "out")]
    printed = CliRunner().invoke(app, words).stdout
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    once = dict.fromkeys(("reward", "reward/gsm8k", "reward/gsm8k.correct"), "accuracy")
    once |= {"reward/gsm8k.extracted": "extracted"}
    assert once.keys() < found.keys() and found["accuracy"]["value"] == 0
    assert not once.keys() & {line.strip().partition(" ")[0] for line in printed.splitlines()}
    assert "note: reward, reward/gsm8k, reward/gsm8k.correct are accuracy on every answer" in printed
    assert "note: reward/gsm8k.extracted is extracted on every answer" in printed
    report = (tmp_path / "out" / "report.md").read_text()
    assert "Extracted is shown once: reward/gsm8k.extracted is the same number on every answer." in report
    assert "| gsm8k.extracted |" not in report and "| gsm8k.correct |" not in report


def test_pieces_of_one_text_are_resampled_together() -> None:
    """Two texts, one of them cut into three pieces: two units, so an end of the interval is a whole text's loss."""
    names, losses = ["text:1/1", "text:1/2", "text:1/3", "text:2"], [1.0, 2.0, 3.0, 5.0]
    rows = [
        {"question_id": name, "logprob": -loss, "tokens": 1, "bytes": 1.0}
        for name, loss in zip(names, losses, strict=True)
    ]
    found = loss_measures(rows)["loss"]
    assert (found.value, found.low, found.high, found.n) == (2.75, 2.0, 5.0, 4)


def test_an_interval_of_few_values_is_called_that_wherever_it_is_printed() -> None:
    """A normal interval of 8 values covers too little: in `smolt eval`'s table and notes, and in a panel's caption."""
    few, enough = (Measure(0.5, 0.4, 0.6, n, "normal") for n in (8, 50))
    found: Any = SimpleNamespace(status="complete", path=None, notes=[], too_long=0, repeats={}, facts=dict)
    found.measures = {"reward": few, "length": enough}
    words = outcome(found).words
    assert [line.endswith("normal, fewer than 50") for line in words.splitlines()[2:5]] == [False, True, False]
    assert words.splitlines()[-1].startswith("note: Intervals of means of n below 50 are rough")
    assert table_words(Table("All.", ("arm", "reward"), (("a", few),))).startswith(
        "All. n\u00a0=\u00a08. Intervals: normal, fewer than 50."
    )
    found.measures = {"length": enough, "accuracy": Measure(0.5, 0.2, 0.8, 8, "Wilson")}
    assert "fewer" not in outcome(found).words and "rough" not in outcome(found).words

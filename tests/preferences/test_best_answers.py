"""`smolt data best`: which answers of a file become demonstrations, what is told of the others, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from smolt.cli import app
from smolt.data import Answer, Question, Score, Source, Turn, load
from smolt.models.answers import Answered, question_of, rated_answers
from smolt.runs.rated_answers import RatedAnswer, write_rated

ANSWERS = [
    RatedAnswer("a", "1 + 1?", "", "#### 3", 5, True, reward=0.1, reference_solution="2"),
    RatedAnswer("a", "1 + 1?", "", "#### 2", 5, True, reward=0.9, reference_solution="2"),
    RatedAnswer("a", "1 + 1?", "", "that is #### 2", 8, True, reward=0.8, reference_solution="2"),
    RatedAnswer("a", "1 + 1?", "", "#### 2", 5, True, reward=0.9, reference_solution="2"),
    RatedAnswer("b", "2 + 2?", "", "#### 4 and so", 9, False, reward=1.0, reference_solution="4"),
    RatedAnswer("b", "2 + 2?", "", "#### 5", 5, True, reward=0.0, reference_solution="4"),
    RatedAnswer("c", "3 + 3?", "", " ", 2, True, reward=0.7, reference_solution="6"),
    RatedAnswer("c", "3 + 3?", "", "#### 6", 5, True, abstained="too long", reference_solution="6"),
]
"""Three questions: one well answered, one wrongly or cut, one empty or unrated."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_rated(tmp_path / "candidates.jsonl", ANSWERS)
    return tmp_path / "candidates.jsonl"


def best(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", "best", *map(str, words)])


def shown(path: Path) -> list[tuple[str, str]]:
    return [(row["prompt"], row["completion"]) for row in map(json.loads, path.read_text().splitlines())]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [("1 + 1?", "#### 2"), ("2 + 2?", "#### 5")]),
        (["--least", "0.5"], [("1 + 1?", "#### 2")]),
        (["--least", "0.5", "--keep", "all"], [("1 + 1?", "#### 2"), ("1 + 1?", "that is #### 2")]),
        (["--reward", "gsm8k", "--least", "1"], [("1 + 1?", "#### 2"), ("3 + 3?", "#### 6")]),
    ],
)
def test_what_is_kept(words: list[str], expected: list[tuple[str, str]], file: Path) -> None:
    """The best that ended and says something, above --least; rated by what stands there, or anew."""
    out = file.with_name("best.jsonl")
    assert best(file, "--out", out, *words).exit_code == 0
    assert shown(out) == expected


def test_what_is_told(file: Path) -> None:
    """Of 3 questions 2 are without a good answer; 1 answer is cut, 1 empty, 1 unrated, 2 are below 0.5."""
    out = file.with_name("best.jsonl")
    found = json.loads(best(file, "--out", out, "--least", "0.5", "--json").stdout)
    names = ("demonstrations", "answers", "questions", "without", "cut", "empty", "unrated", "below", "exam")
    assert [found[name] for name in names] == [1, 8, 3, 2, 1, 1, 1, 2, 0]
    said = " ".join(best(file, "--out", out, "--least", "0.5", "--replace").output.split())
    assert "1 demonstration of 8 answers to 3 questions" in said
    assert "2 questions without an answer that is good enough" in said
    assert "answers left out: 1 cut, 1 empty, 1 without a reward, 2 rated too low" in said
    assert "warning" not in said


def test_answers_to_final_questions_are_warned_of(tmp_path: Path) -> None:
    """The candidates of a study's arm best_of_n have the score of the model that chose."""
    write_rated(tmp_path / "c.jsonl", [replace(ANSWERS[1], score=0.3, chosen=True)])
    said = " ".join(best(tmp_path / "c.jsonl", "--out", tmp_path / "b.jsonl").output.split())
    assert "warning: a reward model has chosen among 1 of them, as in a study's arm best_of_n" in said


def test_a_question_keeps_its_earlier_turns(tmp_path: Path) -> None:
    """A system prompt and a dialogue go through the file of answers and are in the demonstration; so is plain text."""
    turns = (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "1 + 1?"))
    questions = [Question(turns, "2", "a", "sum"), Question((Turn("user", "2 + 2?"),), None, "b")]
    found = Answered(questions, [Answer("2", 1, True), Answer("4", 1, True)], torch.zeros(2))
    rows = rated_answers(found, [Score(1.0), Score(1.0)], 0)
    assert [question_of(row, "row") for row in rows] == questions
    write_rated(tmp_path / "c.jsonl", rows)
    assert best(tmp_path / "c.jsonl", "--out", tmp_path / "b.jsonl").exit_code == 0
    made = load(Source(str(tmp_path / "b.jsonl")), "demonstrations").records
    assert [one.context for one in made] == [question.context for question in questions]


def line(**changes: Any) -> str:
    row = {"question_id": "a", "question": "hen?", "kind": "", "answer": "egg", "tokens": 2, "stopped": True, **changes}
    return json.dumps({name: value for name, value in row.items() if value != "absent"}) + "\n"


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("", [], "c.jsonl: holds no"),
        (line(reward=1.0) + line(answer="absent"), [], "c.jsonl:2: answer: is missing; give a file of answers"),
        ('{"prompt": "hen?", "completion": "egg"}\n', [], "c.jsonl:1: question_id: is missing"),
        (line(reward=1.0) + "{\n", [], "c.jsonl:2: "),
        (line(reward="good"), [], "c.jsonl:1: reward: is 'good', which smolt does not write there"),
        (line(reward=1.0, earlier=[{"role": "user"}]), [], "c.jsonl: earlier[0]"),
        (line(), [], "c.jsonl: none of 1 answers has a reward: --reward names who rates them"),
        (line(), ["--reward", "gsm8k"], "none of 1 answers has a reward: no rater of --reward scores any of them"),
        (line(reward=0.25), ["--least", "0.5"], "1 are below --least; the highest reward is 0.25"),
        (line(reward=0.25), ["--keep", "all"], "--keep all needs --least"),
        (line(reward=0.25), ["--keep", "most"], "--keep: 'most' is unknown; there are best and all"),
        (line(reward=0.25), ["--reward", "gsm9k"], "gsm9k"),
    ],
)
def test_what_is_refused(text: str, words: list[str], message: str, tmp_path: Path) -> None:
    """Exit code 2, what is wrong and where, and no file written."""
    (tmp_path / "c.jsonl").write_text(text)
    found = best(tmp_path / "c.jsonl", "--out", tmp_path / "b.jsonl", *words)
    assert found.exit_code == 2
    assert "".join(message.split()) in "".join(found.output.split())
    assert not (tmp_path / "b.jsonl").exists()


def test_a_file_that_is_there_stays(file: Path) -> None:
    """Unless --replace is given."""
    out = file.with_name("best.jsonl")
    out.write_text("mine")
    found = best(file, "--out", out)
    assert found.exit_code == 2 and "--replace" in found.output and out.read_text() == "mine"

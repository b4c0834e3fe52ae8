"""One answer in every file: written by one function, read back equal, the same to a report, to compare and to grade."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.errors import UserError
from smolt.evaluation.comparing import compare_files
from smolt.evaluation.comparing.results import Reading, read_results
from smolt.report.record import Arm, StudyRecord, read_record
from smolt.report.report import write_report
from smolt.runs import Run
from smolt.runs.jsontext import decode_object
from smolt.runs.rated_answers import NAMES, RatedAnswer, as_row, from_row, read_rated, write_rated

ANSWER = RatedAnswer(
    question_id="q1",
    question="What is 3 + 4?\u2028",
    kind="sum",
    answer="3 + 4 =\r\n#### 7",
    tokens=9,
    stopped=True,
    correct=True,
    reward=0.75,
    components={"gsm8k": 1.0, "gsm8k.correct": 1.0, "format": None},
    kl=0.5,
    reference_solution="7",
    seed=3,
    logprob=-4.25,
    score=1.5,
    chosen=True,
)
OTHER = replace(ANSWER, answer="#### 8", correct=False, reward=None, abstained="too long", score=0.5, chosen=False)
MANIFEST = {"recipe": {"stage": "ppo"}, "data": None, "model": None, "renderer": None}


def in_a_run(folder: Path, rows: list[tuple[int, RatedAnswer]], name: str = "samples.jsonl") -> Path:
    """Answers as a run writes them: a training samples.jsonl, an evaluation evaluation.jsonl."""
    with Run.open(folder, manifest=MANIFEST, samples=name) as run:
        run.load_checkpoint()
        for step, answer in rows:
            run.sample({"step": step, **as_row(answer)})
        run.flush()
    return folder / name


def rows(path: Path) -> list[dict[str, Any]]:
    return [decode_object(line, str(path)) for line in path.read_bytes().splitlines(keepends=True)]


def graded(path: Path, *more: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["grade", str(path), "--json", *more])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_answer_reads_the_same_everywhere(tmp_path: Path) -> None:
    """In the three files with the same columns, in the report, and to compare: key, question, text and value."""
    drawn = [(1, ANSWER)]
    samples = in_a_run(tmp_path / "run", drawn)
    evaluation = in_a_run(tmp_path / "eval", drawn, "evaluation.jsonl")
    candidates = tmp_path / "candidates.jsonl"
    write_rated(candidates, [ANSWER])
    for path in (samples, evaluation, candidates):
        (row,) = rows(path)
        assert set(row) - {"step"} == set(NAMES)
        assert from_row(row) == ANSWER
        assert read_rated(path) == [ANSWER]
        (result,) = read_results(path, Reading(), "arm").rows
        assert (result.keys, result.value) == ({"id": "q1", "question": "What is 3 + 4?"}, 1.0)
        assert result.answer == ANSWER.answer
    write_report(tmp_path / "report", StudyRecord("s", [Arm("a", "ppo", items=read_rated(samples))]))
    assert read_record(tmp_path / "report").arms[0].items == [ANSWER]
    found = compare_files([samples, evaluation, candidates])
    assert [pair.comparison.difference for pair in found.pairs] == [0.0, 0.0]
    assert {(item.question, item.answer_a, item.answer_b) for pair in found.pairs for item in pair.items} == {
        ("What is 3 + 4?", ANSWER.answer, ANSWER.answer)
    }


def test_an_answer_that_is_not_a_row_is_refused(tmp_path: Path) -> None:
    """By the columns it lacks; what is not finite is null."""
    path = tmp_path / "old.jsonl"
    path.write_text('{"id": "q1", "question": "?", "text": "7", "tokens": 1, "stop": "stop"}\n')
    with pytest.raises(UserError, match=r"old\.jsonl:1: question_id, kind, answer, stopped: missing"):
        read_rated(path)
    assert as_row(replace(ANSWER, components={"format": float("nan")}))["components"] == {"format": None}


def test_samples_of_a_training_are_compared_as_they_are(tmp_path: Path) -> None:
    """q0 is asked in updates 1 and 2, q1 once: means 1/2 and 1 against 0 and 1, one win, one tie."""
    first = replace(ANSWER, question_id="q0", question="q0?", score=None, chosen=None)
    wrong = replace(first, correct=False)
    second = replace(first, question_id="q1", question="q1?")
    a = in_a_run(tmp_path / "a", [(1, wrong), (1, second)])
    b = in_a_run(tmp_path / "b", [(1, first), (1, second), (2, wrong)])
    found = compare_files([a, b])
    assert [(item.key, item.a, item.b) for item in found.pairs[0].items] == [("q0", 0.0, 0.5), ("q1", 1.0, 1.0)]
    assert any("answered an item up to 2 times while it learned" in remark for remark in found.remarks)
    assert graded(b)["accuracy"] == 1.0
    twice = in_a_run(tmp_path / "c", [(1, first), (1, first), (1, second)])
    with pytest.raises(UserError, match="id 'q0' is there 2 times"):
        compare_files([a, twice])


def test_of_candidates_the_chosen_ones_count(tmp_path: Path) -> None:
    """To compare as best-of-n's evaluation.jsonl; their reward counts, not the score that chose; all are graded."""
    candidates, chosen = tmp_path / "candidates.jsonl", tmp_path / "evaluation.jsonl"
    for correct, metric in ((True, "accuracy"), (None, "reward")):
        best = replace(ANSWER, correct=correct)
        write_rated(candidates, [OTHER, best])
        write_rated(chosen, [best])
        found = compare_files([candidates, chosen])
        assert (found.metric, found.pairs[0].comparison.difference) == (metric, 0.0)
        assert found.arms["candidates"].value == (1.0 if correct else 0.75)
        assert "candidates: of 2 candidates the 1 chosen ones count" in found.remarks
    facts = graded(candidates)
    assert (facts["n"], facts["correct"]) == (2, 1)
    assert (facts["answer_field"], facts["gold_field"]) == ("answer", "reference_solution")


def test_an_empty_question_is_not_its_answer(tmp_path: Path) -> None:
    """A text continued from nothing has no question, and two arms' answers to it are still answers to one item."""
    for name, text in (("a", "once"), ("b", "twice")):
        write_rated(tmp_path / f"{name}.jsonl", [replace(ANSWER, question="", answer=text)])
    found = compare_files([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert [(item.key, item.question) for item in found.pairs[0].items] == [("q1", "")]

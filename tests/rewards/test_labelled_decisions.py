"""`smolt data decisions`: what pairs, feedback, verdicts, answers and a column of labels become."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.data import Decision, Question, Source, Turn, load
from smolt.rewards.llm_judge.nouns import Showing
from smolt.rewards.llm_judge.prompts import pairwise_decision
from smolt.rewards.llm_judge.rubrics import load_rubric

PAIR = {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No.", "weight": 0.8}
MESSAGES = [{"role": "user", "content": "Tea?"}]
VERDICT = {"id": "q", "prompt": MESSAGES, "first": "Yes.", "second": "No.", "probability": 0.7, "outcome": "first"}
ANSWER = {"question_id": "q", "question": "2 + 2?", "kind": "", "answer": "4", "tokens": 2, "stopped": True}


def made(folder: Path, rows: list[dict[str, Any]], *options: str) -> list[Decision]:
    """The decisions that the command makes of the rows."""
    data, out = folder / "data.jsonl", folder / "decisions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = CliRunner().invoke(app, ["data", "decisions", str(data), "--out", str(out), "--replace", *options])
    assert found.exit_code == 0, found.output
    return load(Source(str(out)), "decisions").records


def test_a_pair_is_asked_in_both_orders_as_a_judge_is(tmp_path: Path) -> None:
    """The very decision of `judge: {decision: ...}`, its weight as a soft label, and turned."""
    first, second = made(tmp_path, [PAIR], "--rubric", "harmless")
    asked = pairwise_decision(load_rubric("harmless"), Showing(Question((Turn("user", "Tea?"),)), "Yes.", "No."))
    assert first.request == asked.request
    assert first.questions[0].expected == pytest.approx((0.8, 0.2))
    assert second.questions[0].expected == pytest.approx((0.2, 0.8))
    assert (second.state["first"], second.state["second"]) == ("No.", "Yes.")


@pytest.mark.parametrize(
    ("rows", "options", "name", "expected"),
    [
        ([{"prompt": "Tea?", "completion": "Yes.", "label": True}], [], "good", (1.0, 0.0)),
        ([VERDICT, {**VERDICT, "probability": None}], [], "better", (0.7, 0.3)),
        ([{**ANSWER, "correct": False}, {**ANSWER, "correct": None}], [], "right", (0.0, 1.0)),
        (
            [{"text": "late", "kind": "b"}, {"text": "soon", "kind": "a"}],
            ["--from", "column", "--label", "kind"],
            "kind",
            (0.0, 1.0),
        ),
    ],
)
def test_what_else_becomes_decisions(
    tmp_path: Path, rows: list[dict[str, Any]], options: list[str], name: str, expected: tuple[float, ...]
) -> None:
    """Feedback and judged answers a noul, verdicts a pair with the judge's probability, labels a choice."""
    found = made(tmp_path, rows, *options)
    assert found[0].questions[0].name == name
    assert found[0].questions[0].expected == pytest.approx(expected)
    assert len(found) == {"good": 1, "better": 2, "right": 1, "kind": 2}[name]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([PAIR], ["--from", "pears"], "'pears' is unknown"),
        ([{"text": "a", "label": "x"}], ["--from", "column"], "label: has 1 distinct values"),
        ([{"text": "a"}], ["--from", "column"], "data.jsonl:1: label: is missing"),
        ([ANSWER | {"correct": None}], [], "holds nothing that was judged"),
        ([{"question": "Tea?"}], [], "gives demonstrations, questions, text but no preferences"),
    ],
)
def test_what_makes_no_decision_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], options: list[str], message: str
) -> None:
    """One clear error, exit code 2, nothing written; a file that is there is kept."""
    data, out = tmp_path / "data.jsonl", tmp_path / "decisions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = CliRunner().invoke(app, ["data", "decisions", str(data), "--out", str(out), *options])
    assert (found.exit_code, out.exists()) == (2, False) and message in " ".join(found.output.split())
    out.write_text("mine")
    again = CliRunner().invoke(app, ["data", "decisions", str(data), "--out", str(out)])
    assert again.exit_code == 2 and "is there already" in again.output and out.read_text() == "mine"

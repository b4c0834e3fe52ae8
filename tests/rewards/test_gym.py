"""Problems of reasoning-gym: made again from their ids, verified by their own verifier, refused where it is unsafe."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.data import Answer, Question, Source, Turn, load
from smolt.errors import UserError
from smolt.rewards import gym_problems
from smolt.rewards.gym import final, gym
from smolt.rewards.gym_problems import gym_questions


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    gym_problems._problems.cache_clear()
    yield
    gym_problems._problems.cache_clear()


@pytest.mark.parametrize(
    ("text", "verified"),
    [
        ("3 + 4 = 7", "3 + 4 = 7"),
        ("3 + 4\n#### 7 ", "7"),
        ("#### 6\n#### 7", "7"),
        ("<answer>6</answer> no, <answer> 7 </answer>.", "7"),
    ],
)
def test_what_is_verified(text: str, verified: str) -> None:
    assert final(text) == verified


def test_other_questions_abstain() -> None:
    (score,) = gym()([Question((Turn("user", "2 + 2?"),), "4", "1")], [Answer("4", 1, True)])
    assert (score.value, score.reason) == (None, "the question is none of reasoning-gym's (smolt data gym makes them)")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command says what to install, with exit code 2, and writes nothing."""
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    result = CliRunner().invoke(app, ["data", "gym", "chain_sum", "--out", str(tmp_path / "q.jsonl"), "--json"])
    assert result.exit_code == 2
    assert "pip install 'smolt-align[reasoning-gym]'" in json.loads(result.stdout)["error"]
    assert not (tmp_path / "q.jsonl").exists()


def test_a_setting_without_a_value() -> None:
    result = CliRunner().invoke(app, ["data", "gym", "chain_sum", "terms", "--json"])
    assert (result.exit_code, "give settings as KEY=VALUE" in json.loads(result.stdout)["error"]) == (2, True)


def test_questions_and_their_verifier(tmp_path: Path) -> None:
    """Written and read back, each solution is right, the next one's is wrong; another problem under the id is said."""
    pytest.importorskip("reasoning_gym")
    path = tmp_path / "q.jsonl"
    command = ["data", "gym", "chain_sum", "min_terms=3", "--size", "4", "--seed", "2", "--out", str(path)]
    assert CliRunner().invoke(app, command).exit_code == 0
    questions = load(Source(str(path)), "questions").records
    assert [question.kind for question in questions] == ["chain_sum"] * 4
    assert questions == gym_questions("chain_sum", 4, 2, {"min_terms": 3})
    solutions = [question.solution or "" for question in questions]
    for answers, expected in ((solutions, 1.0), (solutions[1:] + solutions[:1], 0.0)):
        scores = gym()(questions, [Answer(f"so\n#### {text}", 3, True) for text in answers])
        assert [(score.value, score.components["correct"]) for score in scores] == [(expected, expected)] * 4
    other = replace(questions[0], context=(Turn("user", "1 + 1 ="),))
    with pytest.raises(UserError, match="makes another problem of it"):
        gym()([other], [Answer("2", 1, True)])


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("chain_summ", {}, r'gym: chain_summ: reasoning-gym has no such problems; did you mean "chain_sum"'),
        ("countdown", {}, "gym: countdown: its verifier may run an answer's text as code"),
        ("chain_sum", {"terms": 3}, "gym: chain_sum: .* unexpected keyword argument 'terms'"),
        ("chain_sum", {"min_terms": 0}, "gym: chain_sum: min_terms must be positive"),
    ],
)
def test_what_is_refused(name: str, settings: dict[str, int], reason: str) -> None:
    pytest.importorskip("reasoning_gym")
    with pytest.raises(UserError, match=reason):
        gym_questions(name, 2, 0, settings)

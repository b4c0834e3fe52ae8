"""Demonstrations from answers: which are kept, that nothing is asked twice, and what it costs, here and elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest

import smolt
from smolt.config import AnswersRecipe, make_recipe
from smolt.models.sampling import sampler
from smolt.preferences import written_answers
from smolt.preferences.best_answers import chosen
from smolt.preferences.demonstrations import make_demonstrations
from smolt.runs.rated_answers import RatedAnswer
from tests.judge_server import Script, serving
from tests.tiny import tiny_model

ASKED = ("hen?", "tin?", "who?")
LIMITS = {"max_tokens": 12, "batch": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("answers")
    tiny_model(place / "model")
    (place / "asked.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ASKED))
    (place / "reward.py").write_text("def reward(question, answer):\n    return answer.text.count('e')\n")
    return place


def recipe(folder: Path, **fields: Any) -> AnswersRecipe:
    who = {} if "endpoint" in fields else {"model": {"path": str(folder / "model"), "device": "cpu", "threads": 1}}
    made = make_recipe("answers", data=str(folder / "asked.jsonl"), sampling=LIMITS, **who, **fields)
    assert isinstance(made, AnswersRecipe)
    return made


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [0, 2, 3, 5]),
        ({"reward": "gsm8k"}, [2, 5]),
        ({"reward": "gsm8k", "least": 0.6}, [2]),
        ({"reward": "gsm8k", "keep": "all", "least": 0.5}, [0, 2, 5]),
    ],
)
def test_which_answers_are_imitated(fields: dict[str, Any], expected: list[int], folder: Path) -> None:
    """Two questions with three answers: the second is cut, the fifth equals the fourth, which nobody rated."""
    rewards, texts = [0.5, 9.0, 1.0, None, None, 0.5], ["a", "b", "c", "d", "d", "f"]
    answers = [
        RatedAnswer(str(n // 3), "hen?", "", text, 5, stopped=n != 1, reward=reward)
        for n, (text, reward) in enumerate(zip(texts, rewards, strict=True))
    ]
    made = recipe(folder, samples=3, **fields)
    assert chosen(answers, None if made.reward is None else made.keep, made.least) == expected


def test_the_best_of_a_policys_own_answers(folder: Path, tmp_path: Path) -> None:
    """Each demonstration is the answer with most e's of those that ended, to its question; all answers are on file."""
    reward = {"name": "python", "path": f"{folder / 'reward.py'}:reward"}
    facts = make_demonstrations(recipe(folder, samples=16, reward=reward), tmp_path)
    answers = rows(tmp_path / "candidates.jsonl")
    assert (facts["questions"], facts["answers"], len(answers)) == (3, 48, 48)
    made = {row["prompt"]: row["completion"] for row in rows(tmp_path / "demonstrations.jsonl")}
    assert len(made) == facts["demonstrations"] == sum(row["chosen"] for row in answers) > 0
    for question, answer in made.items():
        ended = [row for row in answers if row["question"] == question and row["stopped"] and row["answer"].strip()]
        assert answer.count("e") == max(row["reward"] for row in ended)
    assert facts["cut"] == sum(not row["stopped"] for row in answers)


def test_answers_that_are_kept_are_not_drawn_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the first question of three, continued: the other two are asked, and the file is that of one run."""
    monkeypatch.setattr(written_answers, "CHUNK", 1)
    made = recipe(folder, samples=8)
    make_demonstrations(made, tmp_path / "whole")
    draw, asked, counted = sampler.sample, list[int](), list[int]()

    def once(*given: Any, **named: Any) -> Any:
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(len(given[1]))
        return draw(*given, **named)

    monkeypatch.setattr(written_answers, "sample", once)
    with pytest.raises(KeyboardInterrupt):
        make_demonstrations(made, tmp_path / "cut")

    def counting(*given: Any, **named: Any) -> Any:
        counted.append(len(given[1]))
        return draw(*given, **named)

    monkeypatch.setattr(written_answers, "sample", counting)
    make_demonstrations(made, tmp_path / "cut")
    assert counted == [1, 1]
    for name in ("demonstrations.jsonl", "candidates.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_model_behind_an_address(folder: Path, tmp_path: Path) -> None:
    """Its texts become demonstrations; tokens and cost are counted; asked again, it is not asked at all."""
    script = Script(fault=lambda number, body: f"said to {body['messages'][-1]['content']}")
    with serving(script) as url:
        endpoint = {"url": url, "model": "large", "attempts": 1, "price": [1.0, 10.0]}
        made = recipe(folder, endpoint=endpoint)
        facts = make_demonstrations(made, tmp_path)
        assert len(script.seen) == 3
        assert make_demonstrations(made, tmp_path) == facts
        assert len(script.seen) == 3
    assert {row["prompt"]: row["completion"] for row in rows(tmp_path / "demonstrations.jsonl")} == {
        text: f"said to {text}" for text in ASKED
    }
    assert (script.seen[0]["max_tokens"], script.seen[0]["temperature"]) == (12, 1.0)
    assert (facts["tokens"], facts["cost"]) == ([150, 3], pytest.approx((150 * 1 + 3 * 10) / 1e6))


def test_a_model_that_is_gone(folder: Path, tmp_path: Path) -> None:
    """Nobody listens: one sentence with the address, and nothing is written."""
    endpoint = {"url": "http://127.0.0.1:9", "model": "large", "attempts": 1}
    with pytest.raises(smolt.UserError, match=r"^answers: http://127.0.0.1:9/chat/completions: .*nobody listens there"):
        make_demonstrations(recipe(folder, endpoint=endpoint), tmp_path)
    assert not (tmp_path / "demonstrations.jsonl").exists()


def test_nothing_to_imitate(folder: Path, tmp_path: Path) -> None:
    reward = {"name": "python", "path": f"{folder / 'reward.py'}:reward"}
    with pytest.raises(smolt.UserError, match=r"answers: none of 6 answers to 3 questions can be imitated"):
        make_demonstrations(recipe(folder, samples=2, reward=reward, least=99.0), tmp_path)

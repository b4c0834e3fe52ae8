"""Direct RLAIF: an endpoint's grades as the reward of GRPO and PPO, kept by content and never asked for twice."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from smolt.config import RewardPart, make_recipe
from smolt.data import Answer, Question, Turn
from smolt.errors import UserError
from smolt.models.forward.precision import choose_precision
from smolt.rewards.llm_judge import connection as connections
from smolt.rewards.llm_judge.judge_reward import GARBAGE, judge_reward
from smolt.training.algorithms import STAGES
from tests.judge_server import Script, serving
from tests.reliability.scenes import write_inputs

PRECISION = choose_precision("cpu", "fp32")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a millisecond, and no key from outside."""
    monkeypatch.setattr(connections, "FIRST_PAUSE", 0.001)
    monkeypatch.delenv("SMOLT_JUDGE_KEY", raising=False)


def grade(number: int, body: dict[str, Any]) -> str:
    """A grade that is a function of what is asked, from 1 to 9."""
    return str(1 + len(body["messages"][0]["content"]) % 9)


def asked(script: Script) -> Counter[str]:
    return Counter(json.dumps(body["messages"]) for body in script.seen)


def part(url: str, **more: Any) -> RewardPart:
    endpoint = {"url": url, "model": "stub", "parallel": 1, **more}
    return RewardPart(name="judge", options={"endpoint": endpoint, "gate": False})


def answers(*texts: str) -> tuple[list[Question], list[Answer]]:
    return [Question((Turn("user", "How?"),), id="q")] * len(texts), [Answer(text, 1, True) for text in texts]


def test_grades_are_kept(tmp_path: Path) -> None:
    """4 answers, two of them equal, are 3 requests; the same again with a new one is 1; unreadable replies stay too."""
    script = Script(logprobs=False, fault=lambda number, body: "Well." if number == 2 else "7")
    with serving(script) as url:
        verdicts = tmp_path / "verdicts.sqlite"
        scores = judge_reward(part(url), PRECISION, verdicts)(*answers("a", "b", "a", "c"))
        assert [score.value for score in scores] == [pytest.approx(1.5 / 4.5), None, *[pytest.approx(1.5 / 4.5)] * 2]
        assert len(script.seen) == 3
        again = judge_reward(part(url), PRECISION, verdicts)(*answers("a", "b", "c", "d"))
        assert [again[0], again[1], again[2]] == [scores[0], scores[1], scores[3]] and len(script.seen) == 4
        judge_reward(part(url), PRECISION)(*answers("a", "a"))
        assert len(script.seen) == 6


def test_another_rubric_or_model_is_another_question(tmp_path: Path) -> None:
    script = Script(logprobs=False, fault=grade)
    with serving(script) as url:
        options = part(url).options
        for more in ({}, {"rubric": "honest"}, {"endpoint": {**options["endpoint"], "model": "other"}}):
            reward = judge_reward(RewardPart(name="judge", options={**options, **more}), PRECISION, tmp_path / "v")
            reward(*answers("a"))
    assert len(script.seen) == 3


def test_no_reply_abstains_and_is_not_kept(tmp_path: Path) -> None:
    script = Script(logprobs=False, fault=lambda number, body: 500 if number == 2 else "3")
    with serving(script) as url:
        reward = judge_reward(part(url, attempts=1), PRECISION, tmp_path / "v")
        _, score = reward(*answers("b", "a"))
        assert score.value is None and score.reason == "status 500: no, 1 tries"
        (score,) = reward(*answers("a"))
        assert score.value == pytest.approx(-2.5 / 4.5)


GRPO = {"prompts": 2, "group": 4, "checks": {"forecast": False}}
PPO = {"prompts": 4, "samples": 2, "checks": {"forecast": False}}


@pytest.mark.parametrize(("stage", "fields"), [("grpo", GRPO), ("ppo", PPO)])
def test_a_judge_that_goes_in_the_middle(
    stage: str, fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with the reason. The same run continues, asks for what is missing and ends with equal rewards."""
    monkeypatch.chdir(write_inputs(tmp_path))

    def train(url: str, out: str) -> list[float | None]:
        recipe = make_recipe(
            stage,
            model={"path": "model", "threads": 1, "dtype": "fp32", "device": "cpu"},
            data="questions.jsonl",
            sampling={"max_tokens": 4, "batch": 8},
            budget={"updates": 4},
            reward=part(url, attempts=1).model_dump(exclude_none=True),
            **fields,
        )
        STAGES[stage](recipe, out=Path(out)).finish()
        rows = [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]
        return [row["reward"] for row in rows]

    script = Script(logprobs=False, fault=grade)
    with serving(script) as url:
        whole = train(url, "whole")
        requests = len(script.seen)
        assert set(asked(script).values()) == {1}
        script.seen.clear()
        script.fault = lambda number, body: 500 if number > 20 else grade(number, body)
        with pytest.raises(UserError, match="requests in a row got no usable reply"):
            train(url, "cut")
        script.fault = grade
        assert train(url, "cut") == whole
    assert len(asked(script)) == requests and len(script.seen) == requests + 3


def said_of(right: str, garbage: str) -> Script:
    """A judge that tells garbage from right answers by its texts."""

    def reply(number: int, body: dict[str, Any]) -> str:
        return garbage if any(text in json.dumps(body["messages"]) for text in map(escaped, GARBAGE)) else right

    return Script(logprobs=False, fault=reply)


def escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


@pytest.mark.parametrize(
    ("right", "garbage", "message"),
    [
        ("2", "5", r"right answers \(2.0 of 10 on average\) above garbage \(5.0\)"),
        ("5", "5", r"right answers \(5.0 of 10 on average\) above garbage \(5.0\)"),
        ("Well.", "1", "gave no readable grade to any of 8 right answers"),
        ("8", "1", None),
        ("8", "Well.", None),
    ],
)
def test_a_judge_that_does_not_grade_right_answers_above_garbage_is_refused(
    right: str, garbage: str, message: str | None
) -> None:
    """Before anything is learned from it; `gate: false` lets it through."""
    with serving(said_of(right, garbage)) as url:
        options = {**part(url).options, "gate": True}
        if message is None:
            judge_reward(RewardPart(name="judge", options=options), PRECISION)
        else:
            with pytest.raises(UserError, match=message):
                judge_reward(RewardPart(name="judge", options=options), PRECISION)
            judge_reward(RewardPart(name="judge", options={**options, "gate": False}), PRECISION)

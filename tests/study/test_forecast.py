"""The forecast of the first answers: in the manifest, without a trace in the training; what never varies is refused."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from smolt.config import make_recipe
from smolt.data import Answer, Question, Score, Turn
from smolt.errors import SelfCheckError, UserError
from smolt.rewards.audit.xray import refusal, xray
from smolt.training.algorithms import STAGES
from smolt.training.stage import Training
from tests.reliability.scenes import write_inputs
from tests.reliability.traces import rows


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def training(stage: str, inputs: Path, out: Path, **fields: Any) -> Training:
    given: dict[str, Any] = {
        "data": str(inputs / "questions.jsonl"),
        "reward": {"name": "python", "path": f"{inputs / 'reward.py'}:reward"},
        "prompts": 2,
        "sampling": {"max_tokens": 6, "batch": 64},
        "budget": {"updates": 2},
    }
    model = {"path": str(inputs / "model"), "device": "cpu", "threads": 1}
    return STAGES[stage](make_recipe(stage, model=model, **(given | fields)), out=out)


@pytest.mark.parametrize(
    ("stage", "own"), [("ppo", {"inner": {"epochs": 1, "minibatches": 1}}), ("grpo", {"group": 4})]
)
def test_it_leaves_no_trace_in_the_training(stage: str, own: dict[str, Any], inputs: Path, tmp_path: Path) -> None:
    """With and without it the same answers are drawn and the same weights come out; only advice is added."""
    for name, wanted in (("with", True), ("without", False)):
        training(stage, inputs, tmp_path / name, checks={"forecast": wanted}, **own).finish()
    first, second = (rows(tmp_path / name / "samples.jsonl") for name in ("with", "without"))
    assert first == second and len(first) > 0
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("with", "without")]
    assert weights[0] == weights[1]


def test_the_manifest_holds_it_and_the_result_its_panel(inputs: Path, tmp_path: Path) -> None:
    """4 of 5 questions with 8 answers each; a reward that differs nearly always leaves no group of 8 without signal."""
    training("grpo", inputs, tmp_path / "run", group=8).finish()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    found = manifest["forecast"]
    assert (found["answers"], found["questions"], found["reward"]["n"]) == (32, 4, 32)
    assert found["no_signal"]["8"]["value"] == 0
    assert 0 < found["no_signal"]["8"]["high"] < 1
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["panels"] == manifest["panels"]
    assert result["panels"][0]["name"] == "reward-grpo"


def test_a_reward_that_never_varies_is_refused(inputs: Path, tmp_path: Path) -> None:
    """128 answers, all worth 0, end it at update 4; with checks.forecast=false it runs (and learns nothing)."""
    never = {"reward": {"name": "exact_words", "options": {"words": 1000}}, "group": 16, "budget": {"updates": 5}}
    with pytest.raises(SelfCheckError, match=r"128 answers to 5 questions.*all got 0.*checks\.forecast=false"):
        training("grpo", inputs, tmp_path / "run", **never).finish()
    assert [row["step"] for row in rows(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3]
    assert not (tmp_path / "run" / "model").exists()
    training("grpo", inputs, tmp_path / "told", checks={"forecast": False}, **never).finish()
    assert len(rows(tmp_path / "told" / "metrics.jsonl")) == 5


@pytest.mark.parametrize(("stage", "own"), [("grpo", {}), ("ppo", {"inner": {"minibatches": 1}})])
def test_a_rule_that_scores_no_question_ends_it_before_it_begins(
    stage: str, own: dict[str, Any], inputs: Path, tmp_path: Path
) -> None:
    """The questions have no solutions, so gsm8k can score no answer: nothing is sampled, and nothing written."""
    reason = r"any of the 5 questions would get a score \(gsm8k: the question has no solution to compare with\)"
    with pytest.raises(UserError, match=reason):
        training(
            stage, inputs, tmp_path / "run", reward=["gsm8k", {"name": "exact_words", "options": {"words": 3}}], **own
        )
    assert not (tmp_path / "run").exists()


def test_a_refusal_says_why_answers_got_no_reward() -> None:
    """None rated: the raters' reason alone; some rated and all alike: the reason beside what they got."""
    asked, answers = [Question((Turn("user", "a"),))] * 3, [Answer("x", 1, True)] * 3
    none = xray(asked, answers, [Score(None, reason="judge: no reply")] * 3)
    assert refusal(none) == (
        "none of 3 answers to 1 questions got a reward (judge: no reply), so there is nothing to learn from"
    )
    some = xray(asked, answers, [Score(0.0), Score(0.0), Score(None, reason="judge: no reply")])
    assert "were rated and all got 0, but 1 got none (judge: no reply)" in refusal(some)


def test_a_refused_run_gives_way_to_another(inputs: Path, tmp_path: Path) -> None:
    """Nothing was learned: any start in its directory, the same or another, sets it aside, checkpoints too."""
    never = {"reward": {"name": "exact_words", "options": {"words": 1000}}, "group": 32, "save.every": 1}
    for _ in range(2):
        with pytest.raises(SelfCheckError, match="the reward does not vary"):
            training("grpo", inputs, tmp_path / "run", **never).finish()
    assert (tmp_path / "run.old-1" / "checkpoints").is_dir()
    training("grpo", inputs, tmp_path / "run", group=4).finish()
    assert [row["step"] for row in rows(tmp_path / "run" / "metrics.jsonl")] == [1, 2]
    assert len(rows(tmp_path / "run" / "samples.jsonl")) == 16
    assert "refused" not in json.loads((tmp_path / "run" / "manifest.json").read_text())


def test_few_answers_alike_are_no_refusal(inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """16 answers in all are too few to refuse a reward by: the last events, a warning and the panels say it."""
    never = {"reward": {"name": "exact_words", "options": {"words": 1000}}, "group": 4}
    training("grpo", inputs, tmp_path / "run", **never).finish()
    first, second = rows(tmp_path / "run" / "metrics.jsonl")
    assert "events" not in first
    assert second["events"][0].startswith("the reward does not vary: 16 answers to 4 questions")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (said,) = result["warnings"]
    assert said.startswith("none of 2 updates took a step, so nothing was learned")
    assert f"grpo: {said}" in caplog.messages
    reward, last = (panel["warnings"] for panel in result["panels"])
    assert reward[-1] == second["events"][0] and last == [said]
    assert not any(line.startswith("groups of") for line in reward)  # no second advice beside it


def test_the_advice_is_an_event_of_the_update_that_makes_the_answers_enough(
    inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One answer in 17 is worth 1: groups of 4 mostly without signal. 20 answers an update are 128 at the seventh."""
    reward = tmp_path / "rare.py"
    reward.write_text("def rare(question, answer):\n    return float(sum(answer.text.encode()) % 17 == 0)\n")
    fields: dict[str, Any] = {"reward": {"name": "python", "path": f"{reward}:rare"}, "group": 4, "save.every": 1}
    fields |= {"prompts": 5, "budget": {"updates": 8}}
    begun = training("grpo", inputs, tmp_path / "run", **fields)
    next(begun)
    begun.close()
    continued = training("grpo", inputs, tmp_path / "run", **fields)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="smolt"):
        next(continued)
    assert tuple(text for text in caplog.messages if text.startswith(("grpo:", "update"))) == (
        "grpo: continued after update 1",
        "update 2",
    )
    continued.finish()
    said = [
        row["step"]
        for row in rows(tmp_path / "run" / "metrics.jsonl")
        for event in row.get("events", [])
        if event.startswith("groups of 4 give no signal in ")
    ]
    assert said == [7]

"""Decisions asked of a model: equal to transformers' pipeline and server, as a judge, as a reward."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import JevConfig, JevForDecision, Qwen2Config

from smolt.config import Judging, RewardMix, RewardPart, make_block
from smolt.data import Answer, Decision, DecisionQuestion, Question, Turn
from smolt.errors import UserError
from smolt.rewards.build import mixed_reward
from smolt.rewards.llm_judge.decider import deciding, open_decider
from smolt.rewards.llm_judge.judge_reward import judge_reward, open_asker
from smolt.rewards.llm_judge.rubrics import load_rubric
from tests.deciding import (
    CPU,
    DECISIONS,
    LABELS,
    QUESTIONS,
    TEMPLATE,
    by_pipeline,
    by_server,
    decided,
    deciding_model,
    with_adapter,
)
from tests.served_judge import Served
from tests.tiny import tiny_tokenizer

CLOSE = 1e-4
SETTINGS: dict[str, Mapping[str, Any] | None] = {
    "chat": None,
    "labels": {"labels": LABELS, "temperature": {"noul": 2.0, "choice": 0.5}, "noul_options": ["false", "true"]},
    "template": {"labels": LABELS, "chat_template": TEMPLATE, "temperature": {"score": 3}},
    "bare": {"labels": LABELS, "chat_template": "{{ question.instructions | tojson }}{{ state | tojson }}=>"},
}


def asked_of(name: str) -> list[Decision]:
    """All decisions; without Yes among its tokens a model cannot be asked what is true."""
    return [replace(one, questions=QUESTIONS[1:]) for one in DECISIONS] if name == "chat" else DECISIONS


@pytest.mark.parametrize(("name", "architecture"), [*((name, "llama") for name in SETTINGS), ("labels", "gemma3_text")])
def test_the_probabilities_are_those_of_the_pipeline(tmp_path: Path, name: str, architecture: Any) -> None:
    """With and without decision.json, its labels, temperatures and templates, one prompt a question or one for all."""
    model = deciding_model(tmp_path / "model", SETTINGS[name], architecture=architecture)
    decisions = asked_of(name)
    for decision, found in zip(decisions, decided(model, decisions), strict=True):
        for row, expected in zip(found, by_pipeline(model, decision), strict=True):
            assert row == pytest.approx(expected, abs=CLOSE)
            assert sum(row) == pytest.approx(1)


def test_an_adapter_that_decision_json_names_is_part_of_the_model(tmp_path: Path) -> None:
    """For every command: what is located is base and adapter."""
    settings = {"labels": LABELS, "temperature": {"noul": 2.0}}
    model, bare = with_adapter(tmp_path / "model", settings), deciding_model(tmp_path / "bare", settings)
    found, without = decided(model, DECISIONS[:1])[0], decided(bare, DECISIONS[:1])[0]
    for row, expected, other in zip(found, by_pipeline(model, DECISIONS[0]), without, strict=True):
        assert row == pytest.approx(expected, abs=CLOSE)
        assert row != pytest.approx(other, abs=CLOSE)
    config = json.loads((model / "decision.json").read_text())
    for outside in ("../bare", ".", "nowhere"):
        (model / "decision.json").write_text(json.dumps({**config, "adapter": outside}))
        with pytest.raises(UserError, match=r"adapter: .* is no folder here that holds an adapter"):
            open_decider(str(model), CPU)


def test_a_model_with_a_head_for_decisions_is_asked_through_the_pipeline(tmp_path: Path) -> None:
    """A class ...ForDecision: its own head, its own temperatures."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = Qwen2Config(vocab_size=300, num_key_value_heads=2, max_position_embeddings=2048, **shape)
    torch.manual_seed(0)
    network = JevForDecision(JevConfig(hidden_size=32, text_config=text.to_dict())).eval()
    network.decision_config.temperature = {"choice": 2.0}
    network.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    decider = open_decider(str(tmp_path), CPU)
    assert decider.temperature == {"choice": 2.0}
    for row, expected in zip(decided(tmp_path, DECISIONS[:1])[0], by_pipeline(tmp_path, DECISIONS[0]), strict=True):
        assert row == pytest.approx(expected, abs=CLOSE)


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    """Labels that are no single tokens, too many options, no template, a state beyond the window."""
    model = deciding_model(tmp_path / "model", window=300)
    decider = open_decider(str(model), CPU)
    with pytest.raises(UserError, match=r"decision d0: The labels .'Yes', 'No'. are not distinct single tokens"):
        decider.decide(DECISIONS)
    many = DecisionQuestion("q", "choice", "?", {str(number): None for number in range(27)})
    with pytest.raises(UserError, match="reads at most 26 options"):
        decider.decide([Decision("x", (many,))])
    long, short = (replace(DECISIONS[0], state=text, questions=QUESTIONS[1:2]) for text in ("x" * 400, "x"))
    assert [one is None for one in decider.decide([long, short])] == [True, False]
    plain = deciding_model(tmp_path / "plain", chat=False)
    assert sum(decided(plain, DECISIONS)[0][0]) == pytest.approx(1)  # as `smolt decide` would ask it


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real `transformers serve` with a tiny model that has an adapter."""
    folder = tmp_path_factory.mktemp("served")
    server = Served(with_adapter(folder / "model", {"labels": LABELS, "temperature": {"noul": 2.0}}))
    yield server
    server.kill()


def test_a_real_server_gives_the_same(served: Served) -> None:
    """The same request here and at /v1/systemone, with an adapter; and through smolt's own client."""
    here = decided(served.model, DECISIONS)
    for decision, found in zip(DECISIONS, here, strict=True):
        for row, expected in zip(found, by_server(served.url, decision), strict=True):
            assert row == pytest.approx(expected, abs=CLOSE)
    alone = [replace(one, questions=QUESTIONS[1:2]) for one in DECISIONS]
    asker = open_asker(make_block(Judging, decision=served.url), CPU)
    replies = dict(pair for part in asker.ask(alone) for pair in part)
    local = dict(pair for part in deciding(str(served.model), CPU).ask(alone) for pair in part)
    for place, reply in replies.items():
        assert reply.logprobs == pytest.approx(local[place].logprobs, abs=CLOSE)
        assert reply.tokens[0] > 50


QUESTION = Question((Turn("user", "What is 2 + 2?"),), id="q")


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"instructions": "Is it right?"}, lambda p: p["true"]),
        ({"instructions": "Is it wrong?", "good": False}, lambda p: p["false"]),
        ({"type": "choice", "criteria": {"good": None, "bad": None}, "good": "good"}, lambda p: p["good"]),
        ({"type": "score", "criteria": ["low", "middle", "high"]}, lambda p: p["1"] + 2 * p["2"]),
    ],
)
def test_a_decision_is_a_reward(tmp_path: Path, options: dict[str, Any], value: Any) -> None:
    """The probability of what is good, or the expected level; its parts are the probabilities."""
    model = deciding_model(tmp_path / "model", {"labels": LABELS})
    mix = make_block(RewardMix, parts=[{"name": "decision", "path": str(model), "options": options}])
    (score,) = mixed_reward(mix, CPU)([QUESTION], [Answer("4", 2, True)])
    told = {name.rpartition(".")[2]: part for name, part in score.components.items() if "." in name}
    assert sum(part or 0 for part in told.values()) == pytest.approx(1)
    assert score.value == pytest.approx(value(told))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critera": {}}, "options.critera: unknown option"),
        ({"type": "chioce"}, "options.type: is 'chioce'; did you mean choice?"),
        (
            {"type": "choice", "criteria": {"a": None, "b": None}},
            "options.good: is None; say which option is good",
        ),
        ({"good": "maybe"}, "options.good: is 'maybe'"),
    ],
)
def test_a_reward_that_asks_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    """Before a model is loaded."""
    mix = make_block(RewardMix, parts=[{"name": "decision", "path": "nowhere", "options": options}])
    with pytest.raises(UserError) as raised:
        mixed_reward(mix, CPU)
    assert message in str(raised.value)


def test_a_judge_that_decides_grades_and_compares(tmp_path: Path) -> None:
    """Pointwise a score of ten levels, its expectation mapped to [-1, 1]; the grade is what the pipeline expects."""
    model = deciding_model(tmp_path / "model", {"labels": LABELS})
    part = RewardPart(name="judge", options={"decision": str(model), "gate": False})
    (score,) = judge_reward(part, CPU)([QUESTION], [Answer("4", 2, True)])
    asker = deciding(str(model), CPU)
    asked = asker.pointwise(load_rubric("helpful"), QUESTION, Answer("4", 2, True), False)
    assert isinstance(asked, Decision)
    (expected,) = by_pipeline(model, asked)
    assert score.components["grade"] == pytest.approx(sum(n * p for n, p in enumerate(expected, 1)), abs=1e-3)


def test_a_judges_settings_say_one_thing() -> None:
    """An address alone is a server that serves one model; a decision needs no rationale and no kind."""
    found = make_block(Judging, decision="http://localhost:8000/v1")
    assert found.remote is not None and (found.remote.url, found.remote.model) == ("http://localhost:8000/v1", "*")
    for wrong, message in (
        ({"decision": "m", "path": "m"}, "exactly one of path, endpoint, rule and decision"),
        ({"decision": "m", "rationale": 5}, "a decision gives no rationale"),
        ({"decision": "m", "kind": "local"}, "kind is for path, endpoint and rule"),
    ):
        with pytest.raises(UserError, match=message):
            make_block(Judging, **wrong)

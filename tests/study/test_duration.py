"""How long a training will take: the arithmetic by hand, and a study whose parts are foretold."""

import json
from pathlib import Path

import pytest

from smolt.config import Model, load_recipe, make_block
from smolt.models.ground import open_ground
from smolt.models.items import decision_items
from smolt.study.duration import Duration, foretell, spoken
from smolt.study.speed import Decoding, expected_length
from smolt.training.clock import evaluations
from tests.deciding import DECISIONS, LABELS, deciding_model
from tests.tiny import tiny_model

MODEL = "model: {path: model, device: cpu, dtype: fp32, threads: 1}\n"


def test_the_length_of_answers_that_were_watched_for_a_while() -> None:
    """All ended: their mean. None ended: the limit. Two of 40 tokens ended: 1/20 a token from there on."""
    assert expected_length([3, 5], [True, True], 100) == 4
    assert expected_length([10, 10], [False, False], 100) == 100
    # Two ended after 5; two were watched for 15 and have 2 tokens left: (1 - 0.95^2) / 0.05 = 1.95 more.
    assert expected_length([5, 5, 15, 15], [True, True, False, False], 17) == pytest.approx((10 + 2 * 16.95) / 4)


def test_seconds_of_answers() -> None:
    """8 answers of 10 tokens in 2 slots: 6 x 10 / 2 steps and 10 for the last two, each answer's share, the reading."""
    decoding = Decoding(slots=2, step=1.0, answer=0.5, context=3.0, length=10.0, longest=10)
    assert decoding.seconds(contexts=4, answers=8) == 4 * 3 + (30 + 10) * 1.0 + 8 * 10 * 0.5
    assert decoding.seconds(contexts=0, answers=0) == 0


def test_a_budget_of_minutes_ends_it() -> None:
    """The whole is the budget, the shares stay; a shorter training is left as it is."""
    found = Duration({"sampling": 300.0, "training": 100.0})
    assert found.at_most(200).seconds == {"sampling": 150.0, "training": 50.0}
    assert found.at_most(500).total == 400
    assert found.times(3).total == 1200


def test_in_words() -> None:
    """Parts that take time are named, what is not counted is said."""
    assert [spoken(value) for value in (12.3, 89, 420, 5399, 7500)] == ["12 s", "89 s", "7 min", "90 min", "2 h 05 min"]
    found = Duration({"sampling": 300.0, "training": 100.0, "loading": 1.0}, ["the reward judge"])
    assert found.sentence == "about 7 min (sampling 5 min, training 2 min); not counted: the reward judge"


def test_a_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every section and every arm's answers, also where the model is another section's; data that are not there not."""
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "model")
    pairs = [{"prompt": f"say {n}", "chosen": "ho" * (1 + n % 5), "rejected": "ha" * (1 + n % 7)} for n in range(30)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({"prompt": f"what is {n}"}) + "\n" for n in range(20)))
    (tmp_path / "s.yaml").write_text(
        MODEL
        + """
lora: {rank: 2, alpha: 4}
data: p.jsonl
study:
  baseline: base
  metric: reward
  test: q.jsonl
  reward: {name: model, path: "{reward}/model", options: {refused: true}}
  sampling: {max_tokens: 8, temperature: 1.0, batch: 8}
  samples: 2
  suites: {prompts: [q.jsonl]}
reward: {dev: p.jsonl, budget: {updates: 4}}
dpo: {dev: p.jsonl, budget: {updates: 4}}
grpo:
  from: dpo
  data: q.jsonl
  dev: q.jsonl
  reward: [{name: model, path: "{reward}/model", options: {refused: true}}, {name: python, path: "f.py:f"}]
  prompts: 4
  group: 4
  budget: {updates: 3}
  sampling: {max_tokens: 8}
free: {stage: dpo, from: base, loss: simpo, budget: {updates: 4}}
kto: {from: base, dev: p.jsonl, budget: {updates: 4}}
again: {stage: dpo, data: "{grpo}/samples.jsonl"}
pairs: {stage: pairs, data: q.jsonl, reward: {name: length, options: {target: 4}}}
best_of_n: {reward_model: reward, n: 4, sampling: {max_tokens: 8}}
"""
    )
    found = dict(foretell(load_recipe("s.yaml")))
    answers = [f"{name}'s answers" for name in ("base", "dpo", "grpo", "free", "kto", "again", "best_of_n")]
    assert list(found) == ["reward", "dpo", "grpo", "free", "kto", "again", "pairs", *answers]
    assert [name for name, duration in found.items() if not duration.total] == ["again", "pairs"]
    assert found["pairs"].sentence == "not foretold: a stage of this kind"
    assert found["again"].sentence == "not foretold: its model or its data are made by another section"
    assert set(found["reward"].seconds) == {"training", "measuring", "audit", "loading"}
    assert set(found["dpo"].seconds) == {"training", "reference", "measuring", "loading"}
    assert set(found["free"].seconds) == {"training", "measuring", "loading"}
    assert set(found["kto"].seconds) == {"training", "reference", "KL", "measuring", "loading"}
    assert set(found["grpo"].seconds) == {"sampling", "rating", "training", "measuring", "loading"}
    assert found["grpo"].uncounted == ["the reward python (f.py:f)"]
    assert "distance" not in found["base's answers"].seconds
    assert {"answering", "rating", "distance"} <= set(found["grpo's answers"].seconds)


def test_twice_the_updates_take_twice_as_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the same speeds; a budget of minutes is never exceeded."""
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "model")
    rows = [{"prompt": "hi", "completion": "ho" * (1 + n % 5)} for n in range(16)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.yaml").write_text(f"stage: sft\nname: r\n{MODEL}data: d.jsonl\nbatch: 4\n")
    monkeypatch.setattr("smolt.study.speed.Speeds.learning", 100.0)
    monkeypatch.setattr("smolt.study.speed.Speeds.stepping", 0.0)

    def training(*overrides: str) -> float:
        ((name, duration),) = foretell(load_recipe("r.yaml", None, list(overrides)))
        assert name == "r"
        return duration.seconds["training"]

    one = training("budget.epochs=1")
    assert one > 0
    assert training("budget.epochs=2") == pytest.approx(2 * one)
    assert training("budget.epochs=2", "budget.minutes=0.001") <= 0.06


def test_decisions_take_their_own_speeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All tokens once at a speed of their own, dev at each look and once more for the temperature; measured, too."""
    monkeypatch.chdir(tmp_path)
    deciding_model(tmp_path / "model", {"labels": LABELS})
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(one.row) + "\n" for one in DECISIONS * 4))
    written = f"stage: decide\nname: r\n{MODEL}data: d.jsonl\ndev: d.jsonl\nbatch: 4\nbudget: {{epochs: 1}}\n"
    (tmp_path / "r.yaml").write_text(written + "watch: {every: 2}\n")
    ((_, measured),) = foretell(load_recipe("r.yaml"))
    assert set(measured.seconds) == {"training", "measuring", "loading"} and min(measured.seconds.values()) > 0
    ground = open_ground(make_block(Model, path="model"))
    tokens = sum(item.tokens for item in decision_items(DECISIONS * 4, ground.renderer, ground.window).items)
    for name, value in {"learning_decisions": 100.0, "deciding": 50.0, "stepping": 0.0}.items():
        monkeypatch.setattr(f"smolt.study.speed.Speeds.{name}", value)
    looks = evaluations(0, 3, 2)
    for overrides, more in (([], 1), (["calibrate=false"], 0)):
        ((_, found),) = foretell(load_recipe("r.yaml", None, overrides))
        assert found.seconds["training"] == pytest.approx(tokens / 100)
        assert found.seconds["measuring"] == pytest.approx((looks + more) * tokens / 50)

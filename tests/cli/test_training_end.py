"""The last words of a training and of a study."""

import json
from pathlib import Path
from typing import Any

from smolt.cli.progress import figures
from smolt.cli.train import moved, stage_outcome, study_outcome
from smolt.runs.identity import FORMAT
from smolt.statistics import proportion


def test_the_end_of_a_training_says_what_became_of_it(tmp_path: Path) -> None:
    """The figures of its first and last batch, called that; a gate's refusal, what to do next."""
    assert moved(tmp_path) == []
    rows: list[dict[str, Any]] = [
        {"step": 1, "reward": -0.5, "kl": 0.0, "loss": None},
        {"step": 9, "reward": 0.25, "kl": 1.5, "loss": 0.1},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "model").mkdir()
    manifest = {"format": FORMAT, "recipe": {"stage": "grpo", "prompts": 4, "group": 2}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    batch = "on its one batch of 8 answers to 4 questions"
    lines = [f"update 1, {batch}: reward -0.500, KL 0.000", f"update 9, {batch}: reward +0.250, loss 0.1000, KL 1.500"]
    end = stage_outcome("grpo", "complete", tmp_path, {})
    assert end.words.splitlines() == [f"grpo: complete; the model is in {tmp_path / 'model'}", *lines]
    assert end.commands == [f"smolt chat {tmp_path}"]
    (tmp_path / "metrics.jsonl").write_text(json.dumps({**rows[0], "optimizer_steps": 0}) + "\n")
    idle = "1 of 1 updates took no step: no rewards that differ, or steps that were skipped"
    assert moved(tmp_path) == [lines[0], idle]
    (tmp_path / "metrics.jsonl").write_text(json.dumps({**rows[0], "optimizer_steps": 0, "abstained": 8}) + "\n")
    assert moved(tmp_path)[1] == f"{idle}; 8 answers got no reward, samples.jsonl says why"
    words = stage_outcome("reward", "complete", tmp_path, {"refused": "length alone does as well"}).words.splitlines()
    assert words[-2] == "its gate refuses it: length alone does as well"
    assert words[-1].startswith("next: more or better pairs")


def test_the_end_of_a_training_on_pairs_says_whether_it_tells_them_apart(tmp_path: Path) -> None:
    """Accuracy and margin beside the loss, and a measurement before the chat."""
    row = {"step": 2, "loss": 0.6933, "accuracy": 0.5, "margin": -0.0002}
    assert figures(row) == "loss 0.6933  accuracy 50%  margin -0.0002"
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "model").mkdir()
    for stage in ("dpo", "kto"):
        end = stage_outcome(stage, "complete", tmp_path, {})
        assert end.words.splitlines()[1] == "update 2, on its one batch: loss 0.6933, accuracy 50%, margin -0.0002"
        measured = f"smolt eval {tmp_path} HELD-OUT-PAIRS --task preferences"
        assert end.commands == [measured, f"smolt chat {tmp_path}"]
    assert stage_outcome("reward", "complete", tmp_path, {}).commands == [f"smolt audit {tmp_path} PAIRS"]


def test_an_end_says_where_most_answers_were_cut(tmp_path: Path) -> None:
    """Of a training the last update's share, of a study what its report warns of; with half of them whole nothing."""
    manifest = {"format": FORMAT, "recipe": {"stage": "ppo", "prompts": 8, "samples": 2}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    said = "were cut at the limit of tokens, so its figures are of beginnings; allow more tokens (max_tokens)."
    rows = [{"step": 1, "reward": 0.5, "stop_rate": 1.0}, {"step": 2, "reward": 0.5, "stop_rate": 0.0625}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert moved(tmp_path)[2:] == [f"warning: update 2: 94% of 16 answers {said}"]
    (tmp_path / "metrics.jsonl").write_text(json.dumps({**rows[1], "stop_rate": 0.5}) + "\n")
    assert not any("were cut" in line for line in moved(tmp_path))
    words = study_outcome({"verdicts": ["b is like a."], "warnings": [f"a: 100% of 8 answers {said}"]}, tmp_path).words
    assert words.splitlines()[:2] == ["b is like a.", f"warning: a: 100% of 8 answers {said}"]


def test_the_end_of_a_training_says_what_was_measured_on_held_out_data(tmp_path: Path) -> None:
    """First and last measurement with n and interval, and no batch's: 13 of 20 is 65 % [43.3 to 81.9] (Wilson)."""
    rows: list[dict[str, Any]] = [
        {"step": 1, "loss": 0.69},
        {"step": 2, "loss": 0.7, "dev/n": 20, "dev/loss": 0.6931, "dev/accuracy": 0.5, **ends(0.61, 0.77)},
        {"step": 3, "loss": 0.7, "dev/n": 20, "dev/loss": 0.6, "dev/accuracy": 0.6},
        {"step": 4, "loss": 0.709, "dev/n": 20, "dev/loss": 0.6717, "dev/accuracy": 0.65},
    ]
    rough = "Intervals of means of n below 50 are rough: such an interval may cover less than 93 %, of a handful of "
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert moved(tmp_path) == [
        "on held-out data after update 2: loss 0.693 [0.610 to 0.770], accuracy 50.0 % [29.9 to 70.1] (n = 20)",
        "on held-out data after update 4: loss 0.6717, accuracy 65.0 % [43.3 to 81.9] (n = 20)",
        rough + "values far less.",
    ]
    reward = {"step": 4, "reward": 0.1, "dev/n": 8, "dev/reward": 0.25, "dev/reward_low": 0.1, "dev/reward_high": 0.4}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(reward) + "\n")
    assert moved(tmp_path) == [
        "on held-out data after update 4: reward 0.250 [0.100 to 0.400] (n = 8)",
        rough + "values far less.",
    ]
    wilson = proportion([True] * 2 + [False] * 6)
    assert wilson is not None
    share = {**reward, "dev/reward_low": wilson.low, "dev/reward_high": wilson.high}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(share) + "\n")
    assert moved(tmp_path) == ["on held-out data after update 4: reward 0.250 [0.071 to 0.591] (n = 8)"]


def ends(low: float, high: float) -> dict[str, float]:
    return {"dev/loss_low": low, "dev/loss_high": high}

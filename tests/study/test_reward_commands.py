"""`smolt audit` and `smolt reward-check` on real files, and reward models whose faults the audit must find."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

import smolt
from smolt.cli import app
from tests.docs.workshop import furnish
from tests.shared import shared_path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return furnish(tmp_path)


def command(*words: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, [*words, "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_the_audit_of_a_training_is_the_audit_of_its_file(place: Path) -> None:
    """`smolt reward` with dev data, then `smolt audit` on the same data and training pairs: equal figures."""
    fields: dict[str, Any] = {"data": "preferences.jsonl", "dev": "preferences.jsonl", "budget": {"updates": 2}}
    metrics = smolt.reward_model("my-model", **fields, out=place / "rm").finish().metrics
    code, found = command("audit", "rm", "preferences.jsonl", "--train", "preferences.jsonl", "--out", "report")
    assert code == 0
    for name in ("accuracy", "against", "length", "gaps", "probes", "refused"):
        assert found[name] == metrics[name], name
    assert found["ece"] == pytest.approx(metrics["ece"], abs=1e-6)
    assert found["accuracy"]["n"] == 24
    assert json.loads(Path("report/record.json").read_text())["panels"][0]["name"] == "audit"
    words = CliRunner().invoke(app, ["audit", "rm", "preferences.jsonl"]).output
    assert "A bag of words, fitted on the other folds" in words


def test_an_audit_on_the_training_pairs_says_so(place: Path) -> None:
    """Of 24 pairs a tenth was held out: 22 were learned from; told by the file, and by the pairs of another file."""
    smolt.reward_model("my-model", data="preferences.jsonl", budget={"updates": 2}, out=place / "rm").finish()
    assert command("audit", "rm", "preferences.jsonl")[1]["seen"] == 22
    lines = (place / "preferences.jsonl").read_text().splitlines(keepends=True)
    (place / "renamed.jsonl").write_text("".join(reversed(lines)))
    assert command("audit", "rm", "renamed.jsonl")[1]["seen"] == 22
    assert command("audit", "rm", "renamed.jsonl", "--train", "preferences.jsonl")[1]["seen"] == 24
    words = CliRunner().invoke(app, ["audit", "rm", "renamed.jsonl"]).output
    assert "it was trained on 22 of these 24 pairs" in words
    assert "held-out pairs" not in words
    other = "".join(line.replace("?", " then?") for line in lines)
    (place / "renamed.jsonl").write_text(other)
    assert command("audit", "rm", "renamed.jsonl")[1]["seen"] == 0
    (place / "preferences.jsonl").write_text(other)  # what it learned from is no longer there
    assert command("audit", "rm", "preferences.jsonl")[1]["seen"] == 0


def test_anyones_reward_model_is_audited(place: Path) -> None:
    """A directory that transformers wrote, with one label and no note of ours."""
    model = AutoModelForSequenceClassification.from_pretrained("my-model", num_labels=1)
    model.save_pretrained("theirs")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (place / "my-model" / name).is_file():
            (place / "theirs" / name).write_bytes((place / "my-model" / name).read_bytes())
    code, found = command("audit", "theirs", "preferences.jsonl", "--limit", "12")
    assert (code, found["accuracy"]["n"]) == (0, 12)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("audit", "my-model", "preferences.jsonl"), "so it is not a reward model"),
        (("audit", "gone", "preferences.jsonl"), "gone"),
        (("audit", "my-model", "gone.jsonl"), "gone"),
        (("reward-check", "sft.yaml"), "has no ppo or grpo or online_dpo stage"),
    ],
)
def test_wrong_inputs(place: Path, words: tuple[str, ...], message: str) -> None:
    (place / "sft.yaml").write_text("stage: sft\nmodel: my-model\ndata: demonstrations.jsonl\n")
    code, found = command(*words)
    assert code == 2
    assert message in found["error"]


def test_a_reward_is_checked_without_training(place: Path) -> None:
    """128 answers; nothing is written; a run's forecast has the same figures of its own first answers."""
    fields = "model: my-model\ndata: questions.jsonl\ngroup: 4\nprompts: 2\nbudget: {updates: 1}\n"
    reward = "reward: {name: length, options: {target: 3}}\nsampling: {max_tokens: 8, batch: 64}\n"
    (place / "g.yaml").write_text(f"stage: grpo\n{fields}{reward}")
    before = sorted(path.name for path in place.iterdir())
    code, found = command("reward-check", "g.yaml")
    assert code == 0
    assert sorted(path.name for path in place.iterdir()) == before
    checked = found["rewards"]["grpo"]
    assert (checked["answers"], checked["questions"], checked["varies"]) == (128, 8, True)
    assert [part["name"] for part in checked["parts"]] == ["reward", "length", "length.words"]
    assert CliRunner().invoke(app, ["grpo", "g.yaml", "--out", "run"]).exit_code == 0
    forecast = json.loads(Path("run/manifest.json").read_text())["forecast"]
    assert set(checked["no_signal"]) == {"4", "8", "16"}
    assert {size: measure["n"] for size, measure in forecast["no_signal"].items()} == {"4": 2}
    words = CliRunner().invoke(app, ["reward-check", "g.yaml", "--out", "seen"]).output
    assert words.startswith("The reward of grpo\n")
    assert Path("seen/report.html").is_file()


def test_a_section_that_waits_is_named(place: Path) -> None:
    """Before SFT is trained there is nothing to sample from."""
    (place / "s.yaml").write_text(
        "model: my-model\nsft: {data: demonstrations.jsonl}\n"
        "grpo: {from: sft, data: questions.jsonl, reward: gsm8k}\nstudy: {test: questions.jsonl}\n"
    )
    code, found = command("reward-check", "s.yaml")
    assert (code, found["rewards"]) == (0, {"grpo": {"waits_for": ["sft"]}})


def assistant_pairs(folder: Path, shuffled: bool) -> tuple[Path, Path]:
    """Half of the short human pairs of Open Assistant to train on, half to audit on; labels shuffled on request."""
    source = shared_path("data/oasst/ranked_pairs.jsonl")
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    short = [
        row
        for row in rows
        if sum(len(text) for _, text in row["context"]) + max(len(row["chosen"]), len(row["rejected"])) < 1500
    ]
    draw = random.Random(1)
    draw.shuffle(short)
    pairs = []
    for row in short:
        sides = ["rejected", "chosen"] if shuffled and draw.random() < 0.5 else ["chosen", "rejected"]
        pairs.append({"prompt": row["context"][-1][1], "chosen": row[sides[0]], "rejected": row[sides[1]]})
    half = len(pairs) // 2
    for name, part in (("train", pairs[:half]), ("held-out", pairs[half:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in part), encoding="utf-8")
    return folder / "train.jsonl", folder / "held-out.jsonl"


def trained_on(folder: Path, shuffled: bool) -> dict[str, Any]:
    """The audit of a model of 264,128 weights after one epoch."""
    train, held_out = assistant_pairs(folder, shuffled)
    fields: dict[str, Any] = {
        "data": {"path": str(train), "too_long": "drop"},
        "dev": {"path": str(held_out), "too_long": "drop"},
        "optim": {"lr": 1e-3},
        "batch": 16,
    }
    model = str(shared_path("models/stories260k"))
    metrics: dict[str, Any] = smolt.reward_model(model, **fields, out=folder / "rm").finish().metrics
    return metrics


@pytest.mark.slow
def test_length_biased_labels_are_found(tmp_path: Path) -> None:
    """Open Assistant's annotators prefer the longer answer in 70 %: the audit says that the model leans on length."""
    found = trained_on(tmp_path, shuffled=False)
    assert found["length"]["correlation"]["low"] > 0.2
    assert found["by_length_gap"]["chosen longer"]["value"] > found["by_length_gap"]["chosen shorter"]["value"] + 0.15
    assert any(line.startswith("it leans on length") for line in found["panels"][0]["warnings"])


@pytest.mark.slow
def test_shuffled_labels_are_refused(tmp_path: Path) -> None:
    """There is nothing to learn, and the gate says so; PPO then does not start on it."""
    found = trained_on(tmp_path, shuffled=True)
    assert "is not shown to be above the baseline" in found["refused"]
    reward = {"name": "model", "path": str(tmp_path / "rm" / "model")}
    questions = ["Hello?", "How are you?"]
    with pytest.raises(smolt.UserError, match="It may say no more than noise"):
        smolt.ppo(str(shared_path("models/stories260k")), questions, reward=reward, out=tmp_path / "ppo")

"""`smolt doctor`: the machine's facts, and a problem in model or data before any training."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.config import SFTRecipe, load_recipe
from smolt.errors import UserError
from smolt.training.algorithms.sft import sft
from tests.tiny import tiny_model


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory with data, and a fake loader that knows the model `good` alone."""

    def open_ground(model: Any) -> SimpleNamespace:
        if model.path != "good":
            raise UserError(f"model.path: {model.path}: no such directory")
        located = SimpleNamespace(base="good", adapter=None)
        return SimpleNamespace(
            located=located, window=64, precision=SimpleNamespace(device="cpu", dtype="torch.float32")
        )

    preparation = ModuleType("smolt.models.ground")
    vars(preparation)["open_ground"] = open_ground
    monkeypatch.setitem(sys.modules, "smolt.models.ground", preparation)
    foresight = ModuleType("smolt.training.memory.outlook")
    vars(foresight)["foresee"] = lambda recipe: None
    monkeypatch.setitem(sys.modules, "smolt.training.memory.outlook", foresight)
    duration = ModuleType("smolt.study.duration")
    vars(duration).update(grounded=lambda recipe: {}, foretell=lambda recipe: [], Duration=None)
    monkeypatch.setitem(sys.modules, "smolt.study.duration", duration)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.jsonl").write_text('{"prompt": "hi", "completion": "ho"}\n')
    (tmp_path / "bad.jsonl").write_text("{\n")
    return tmp_path


def doctor(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["doctor", *arguments, "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_the_machine(place: Path) -> None:
    """Without a subject: exit 0, and the figures a bug report needs."""
    code, found = doctor()
    assert (code, found["ok"]) == (0, True)
    assert found["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["memory_gib"] > 0
    assert {"torch", "transformers", "device", "threads", "disk_free_gib"} <= set(found["machine"])


def test_a_model(place: Path) -> None:
    """A good one exits 0 with its window; a missing one exits 2 with the reason."""
    code, found = doctor("good")
    assert code == 0
    assert found["checks"] == [
        {
            "what": "model good",
            "ok": True,
            "found": "window 64 tokens, cpu (a training measures which precision is fastest)",
        }
    ]
    code, found = doctor("gone")
    assert (code, found["ok"]) == (2, False)
    assert found["checks"][0]["found"] == "model.path: gone: no such directory"


def test_a_recipe(place: Path) -> None:
    """Model and data are looked at once each; overrides apply; a bad row is named."""
    (place / "r.yaml").write_text("stage: sft\nmodel: good\ndata: d.jsonl\n")
    code, found = doctor("r.yaml")
    assert (code, [check["what"] for check in found["checks"]]) == (0, ["recipe", "model good", "data d.jsonl"])
    code, found = doctor("r.yaml", "data.path=bad.jsonl")
    assert code == 2
    assert "bad.jsonl:2: is neither JSON lines nor one JSON document" in found["checks"][2]["found"]


def test_a_study_checks_what_is_there_before_it_runs(place: Path) -> None:
    """Paths into other sections do not exist yet and are left out."""
    text = 'model: good\nsft: {data: d.jsonl}\ndpo: {data: "{sft}/samples.jsonl"}\n'
    (place / "s.yaml").write_text(text)
    code, found = doctor("s.yaml")
    assert (code, [check["what"] for check in found["checks"]]) == (0, ["recipe", "model good", "data d.jsonl"])


def test_problems_are_readable(place: Path) -> None:
    """The words go to stdout, they are the result of this command; problems stand last, where a terminal stops."""
    (place / "r.yaml").write_text("stage: sft\nmodel: gone\ndata: d.jsonl\n")
    done = CliRunner().invoke(app, ["doctor", "r.yaml"])
    assert (done.exit_code, done.stderr) == (2, "")
    first, *others, last = done.stdout.splitlines()
    assert last == "PROBLEM: model gone: model.path: gone: no such directory"
    assert [first.split(":")[0], *(line.split(":")[0] for line in others[-2:])] == ["system", "ok", "ok"]


def test_what_is_left_out_is_counted_as_training_counts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 4 demonstrations one exceeds the window of 128 tokens: doctor and training say it in the same words."""
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "model")
    rows = [{"prompt": "hi", "completion": "ho" * length} for length in (1, 2, 3, 300)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = "stage: sft\nname: r\nmodel: {path: model, device: cpu, dtype: fp32, threads: 1}\n"
    (tmp_path / "r.yaml").write_text(text + "data: {path: d.jsonl, too_long: drop}\nbudget: {updates: 1}\n")
    code, found = doctor("r.yaml")
    said = [check for check in found["checks"] if check["what"] == "data of r in its window"]
    counted = "left out, for they exceed the window: 1 of 4 records"
    assert (code, said) == (0, [{"what": "data of r in its window", "ok": True, "found": counted}])
    recipe = load_recipe("r.yaml")
    assert isinstance(recipe, SFTRecipe)
    assert counted in sft(recipe, out=tmp_path / "run").remarks


def test_what_would_end_a_training_is_said_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A function that fails on every answer, a reward model that its audit refused, a gate that nothing can pass."""
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "model")
    (tmp_path / "q.jsonl").write_text(json.dumps({"prompt": "what is 6 times 7?", "solution": "42"}) + "\n")
    (tmp_path / "f.py").write_text("def broken(question, answer):\n    return 1 / 0\n\ndef some(question, answer):\n")
    with (tmp_path / "f.py").open("a") as file:
        file.write("    return 1.0 if answer.text == question.solution else None\n")
    head = "stage: grpo\nname: r\nmodel: {path: model, device: cpu, dtype: fp32, threads: 1}\ndata: q.jsonl\n"
    head += "budget: {updates: 1}\nsampling: {max_tokens: 8}\n"
    (tmp_path / "r.yaml").write_text(head + 'reward: {name: python, path: "f.py:broken"}\n')
    code, found = doctor("r.yaml")
    problems = [check["found"] for check in found["checks"] if not check["ok"]]
    assert code == 2 and len(problems) == 1
    assert "reward f.py:broken: 1 of 1 answers got no score" in problems[0] and "division by zero" in problems[0]
    (tmp_path / "r.yaml").write_text(head + 'reward: {name: python, path: "f.py:some"}\n')
    assert doctor("r.yaml")[0] == 0

    two = '[{name: python, path: "f.py:sume"}, {name: python, path: "g.py:some"}]'
    (tmp_path / "r.yaml").write_text(head + f"reward: {two}\nlora: {{targets: [q_porj]}}\n")
    said = [(check["what"], check["found"]) for check in doctor("r.yaml")[1]["checks"] if not check["ok"]]
    assert [what for what, _ in said] == ["rewards", "rewards", "training of r"]
    for (_, found_there), start in zip(
        said,
        ("reward: reward python: f.py: there is", "reward: reward python: path: g.py", "lora.targets: q_porj"),
        strict=True,
    ):
        assert found_there.startswith(start)
    (tmp_path / "r.yaml").write_text(head + f"reward: {two}\n")
    assert [check["what"] for check in doctor("r.yaml")[1]["checks"] if not check["ok"]] == ["rewards"] * 2

    (tmp_path / "r.yaml").write_text(head.replace("q.jsonl", "bare.jsonl") + "reward: gsm8k\n")
    bare = json.dumps({"prompt": "say ho"}) + "\n"
    (tmp_path / "bare.jsonl").write_text(bare * 2)
    code, found = doctor("r.yaml")
    (problem,) = (check["found"] for check in found["checks"] if not check["ok"])
    assert problem.startswith(
        "no answer to any of the 2 questions would get a score (gsm8k: the question has no solution"
    )
    (tmp_path / "bare.jsonl").write_text(bare * 2 + (tmp_path / "q.jsonl").read_text())
    code, found = doctor("r.yaml")
    silent = [check["found"] for check in found["checks"] if check["what"] == "reward of r"]
    reason = "gsm8k: the question has no solution to compare with"
    becomes = "they are asked all the same, and nothing is learned from their answers; leave them out, or add what the"
    assert (code, silent) == (0, [f"no answer to 2 of 3 questions gets a score ({reason}): {becomes} rule needs"])

    tiny_model(tmp_path / "judged")
    (tmp_path / "judged" / "smolt_reward.json").write_text(json.dumps({"refused": "length alone does as well"}))
    (tmp_path / "r.yaml").write_text(head + "reward: {name: model, path: judged}\n")
    code, found = doctor("r.yaml")
    (problem,) = (check["found"] for check in found["checks"] if not check["ok"])
    assert problem.startswith("reward model judged: length alone does as well. It may say no more than noise")

    pairs = [{"prompt": f"say {n}", "chosen": "ho" * 3, "rejected": "ha"} for n in range(20)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (tmp_path / "r.yaml").write_text(head.replace("grpo", "reward").replace("q.jsonl", "p.jsonl").split("sampling")[0])
    code, found = doctor("r.yaml")
    (problem,) = (check["found"] for check in found["checks"] if not check["ok"])
    assert problem.startswith("no model can pass: one that is always right would be refused too (held-out accuracy 100")
    assert "longer" in problem and problem.endswith("Hold out more pairs (dev), or gate: false")

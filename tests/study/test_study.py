"""A whole study through the command line: its report, its second start, a kill in the middle, several seeds."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from smolt.config import RewardMix
from smolt.evaluation.exam import Exam, kl_to
from smolt.models.ground import Ground
from smolt.models.roles import Policy
from smolt.rewards.audit.gold import rate_again
from smolt.runs.locks import LOCK
from smolt.runs.rated_answers import NAMES, RatedAnswer, read_rated, write_rated
from smolt.study import study
from tests.study.conftest import SMALL, smolt

ARMS = ("sft", "dpo", "ppo", "grpo", "best_of_n")
"""What does not depend on the clock, as sft_more does: it trains for as many seconds as grpo took."""

COMPARISON = {
    "a",
    "b",
    "metric",
    "wins",
    "regressions",
    "p_value",
    "difference",
    "low",
    "high",
    "minimum_detectable",
    "n",
}


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def stamps(out: Path) -> dict[Path, tuple[int, bytes]]:
    """When each file was written, and what; but the locks, which are taken and given back."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != LOCK]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_the_report_keeps_the_contract(finished: Path) -> None:
    """Every arm has its measures with value, low, high, n = 24; each is compared with sft."""
    found = report(finished)
    assert {*ARMS, "sft_more"} <= set(found["arms"])
    for name in (*ARMS, "sft_more"):
        arm = found["arms"][name]
        assert {"accuracy", "reward", "length", "stop_rate"} <= set(arm)
        assert ("kl" in arm) is (name not in ("sft", "best_of_n"))
        for measure in (arm["accuracy"], arm["reward"]):
            assert {"value", "low", "high", "n"} <= set(measure)
            assert measure["low"] <= measure["value"] <= measure["high"]
            assert measure["n"] == 24
    against = [entry for entry in found["comparisons"] if entry["a"] == "sft"]
    assert {entry["b"] for entry in against} == {"dpo", "ppo", "grpo", "best_of_n", "sft_more"}
    for entry in found["comparisons"]:
        assert set(entry) >= COMPARISON
        assert entry["n"] == 24
        values = [found["arms"][entry[side]][entry["metric"]]["value"] for side in ("b", "a")]
        assert entry["difference"] == pytest.approx(values[0] - values[1], abs=1e-12)
    assert found["arms"]["reward"]["held-out accuracy"]["n"] > 0
    assert {"sft", "dpo", "ppo", "grpo", "reward", "pretrain"} <= set(found["cost"])
    assert set(found["provenance"]["test"]) == {"study.test.path"}


def test_the_record_says_what_was_learned_from(finished: Path) -> None:
    """SHA-256 of each trained section's data, of the model it began from, of template and tokenizer; its parameters."""
    record = json.loads((finished / "record.json").read_text())
    facts = {arm["name"]: arm["facts"] for arm in record["arms"] if arm["stage"] in ("sft", "dpo", "ppo", "grpo")}
    for found in facts.values():
        assert {"data", "model", "template"} == set(found["sha256"])
        assert found["parameters"] == facts["sft"]["parameters"]
    assert len({found["sha256"]["template"] for found in facts.values()}) == 1
    digest = hashlib.sha256((finished / "problems" / "test.jsonl").read_bytes()).hexdigest()
    assert record["provenance"]["test"] == {"study.test.path": digest}


def test_every_section_left_its_run(finished: Path) -> None:
    """A directory each, whose rows count up to the updates asked for; rollouts left 8 and 16 answers an update."""
    updates = {"pretrain": 2, "sft": 6, "ppo": 2, "grpo": 2}
    for name, count in updates.items():
        rows = rows_of(finished / name / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, count + 1))
        assert {"seconds", "tokens", "tokens_per_second"} <= set(rows[0])
    for name, answers in (("ppo", 8), ("grpo", 16)):
        samples = rows_of(finished / name / "samples.jsonl")
        assert len(samples) == 2 * answers
        assert set(samples[0]) == {"step", *NAMES}
    for name in ("pretrain", "sft", "reward", "dpo", "ppo", "grpo", "sft_more"):
        assert {"manifest.json", "metrics.jsonl", "result.json", "checkpoints", "model"} <= {
            path.name for path in (finished / name).iterdir()
        }
        assert (finished / name / "model" / "tokenizer.json").is_file()
    assert {"report.json", "report.md", "report.html"} <= {path.name for path in finished.iterdir()}
    assert rows_of(finished / "sft_more" / "metrics.jsonl")[-1]["stop"].startswith("the time is up")


def test_training_answers_rated_again_agree_with_the_curve(finished: Path) -> None:
    """ppo learned from gsm8k and a model, and logs both: gsm8k as the gold has the curve's mean at each update."""
    found = rate_again(rows_of(finished / "ppo" / "samples.jsonl"), RewardMix.model_validate("gsm8k"))
    assert found.abstained == 0
    for row in rows_of(finished / "ppo" / "metrics.jsonl"):
        drawn = [answer for answer in found.answers if answer.update == row["step"]]
        assert fmean(answer.gold for answer in drawn) == pytest.approx(row["reward/gsm8k"], abs=1e-12)
        assert fmean(answer.proxy for answer in drawn) == pytest.approx(row["reward"], abs=1e-12)


def test_best_of_n_keeps_all_its_answers(finished: Path) -> None:
    """24 questions with 2 answers each, all rated; the chosen one has the higher score and is the one evaluated."""
    candidates = read_rated(finished / "best_of_n" / "candidates.jsonl")
    assert len(candidates) == 48
    chosen = []
    for one, other in zip(candidates[::2], candidates[1::2], strict=True):
        assert one.key == other.key
        assert None not in (one.score, other.score, one.correct, other.reward)
        assert one.chosen is ((one.score or 0.0) >= (other.score or 0.0))
        assert other.chosen is not one.chosen
        chosen.append(one if one.chosen else other)
    assert chosen == read_rated(finished / "best_of_n" / "evaluation.jsonl")


def test_compare_and_grade_read_every_file_of_answers(finished: Path) -> None:
    """A training's samples, an arm's evaluation, best-of-n's candidates; of these the chosen are the evaluated ones."""
    chosen = finished / "best_of_n" / "evaluation.jsonl"
    files = {"ppo/samples.jsonl": None, "grpo/samples.jsonl": None, "sft/evaluation.jsonl": chosen}
    for name, other in (files | {"best_of_n/candidates.jsonl": chosen}).items():
        assert json.loads(smolt("grade", finished / name, "--json").stdout)["n"] > 0
        found = json.loads(smolt("compare", finished / name, other or finished / name, "--json").stdout)
        assert found["metric"] == ("reward" if name.startswith("grpo") else "accuracy")  # grpo: length
    assert found["difference"] == 0.0


def test_run_again_it_is_complete_and_changes_nothing(finished: Path) -> None:
    """In words and as one JSON object, by any spelling of its directory."""
    before = stamps(finished)
    done = smolt("study", "smoke", *SMALL, "--out", finished)
    assert done.exit_code == 0
    assert f"study: already complete; the report is {finished / 'report.html'}" in done.stdout
    done = smolt("study", "smoke", *SMALL, "--json", "--out", finished / ".." / finished.name)
    assert (done.exit_code, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["status"] == "already complete"
    assert {name: arm["reward"]["value"] for name, arm in report(finished)["arms"].items() if name in ARMS} == {
        name: found["arms"][name]["reward"] for name in ARMS
    }
    assert stamps(finished) == before


@pytest.mark.parametrize("change", ["dpo.beta=0.2", "study.items=23", "grpo.optim.lr=1e-4", "ppo.prompts=16"])
def test_another_recipe_is_refused_by_name(finished: Path, change: str) -> None:
    """Exit 2, the field, both values, and nothing written; --fresh is offered."""
    before = stamps(finished)
    done = smolt("study", "smoke", *SMALL, change, "--out", finished)
    field, value = change.split("=")
    line = next(line for line in done.stderr.splitlines() if f".{field.split('.', 1)[1]}: " in line)
    assert line.endswith(" now") and str(json.loads(value)) in line
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--fresh" in done.stderr
    assert stamps(finished) == before


def test_killed_in_the_middle_it_continues(finished: Path, tmp_path: Path) -> None:
    """SIGKILL of a real process while ppo trains; the same command ends with the same figures of every arm."""
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "smolt", "study", "smoke", *SMALL, "ppo.save.every=1", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (out / "ppo" / "checkpoints").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    assert not (out / "result.json").exists()
    assert not (out / "grpo").exists()
    done = smolt("study", "smoke", *SMALL, "ppo.save.every=1", "--json", "--out", out)
    assert (done.exit_code, json.loads(done.stdout)["status"]) == (0, "complete")
    found, expected = report(out)["arms"], report(finished)["arms"]
    assert {name: found[name] for name in (*ARMS, "reward")} == {name: expected[name] for name in (*ARMS, "reward")}
    for name in ("sft", "reward", "dpo", "ppo", "grpo"):
        model = Path(name) / "model" / "model.safetensors"
        assert (out / model).read_bytes() == (finished / model).read_bytes()


@pytest.mark.parametrize(
    ("function", "last", "following"),
    [("write_generated", "problems", "pretrain"), ("drive", "pretrain", "sft"), ("make_pairs", "pairs", "reward")],
)
def test_a_signal_between_two_sections(
    function: str, last: str, following: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM at the very end of a section: it is whole, the following one does not begin, exit 143."""
    work = vars(study)[function]

    def signalled(*arguments: Any) -> Any:
        result = work(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(study, function, signalled)
    done = smolt("study", "smoke", *SMALL, "--json", "--out", tmp_path / "out")
    assert (done.exit_code, json.loads(done.stdout)["exit_code"]) == (143, 143)
    assert "the same command continues" in done.stderr
    assert (tmp_path / "out" / last / "result.json").is_file()
    assert not (tmp_path / "out" / following).exists()


SEEDED = """
model: {device: cpu, threads: 1, path: "{pretrain}/model"}
study:
  seeds: [0, 1]
  test: {path: "{problems}/test.jsonl"}
  reward: gsm8k
  sampling: {max_tokens: 8}
problems: {train: 60, dev: 5, test: 6, demonstrations: 60}
pretrain:
  data: "{problems}/text.txt"
  tokenizer: {vocab: 300}
  shape: {hidden: 32, layers: 1, heads: 2, mlp: 64, window: 128}
  budget: {updates: 1}
sft: {data: "{problems}/demonstrations.jsonl", budget: {updates: 2}}
grpo:
  data: "{problems}/train.jsonl"
  reward: {name: length, options: {target: 8}}
  prompts: 2
  group: 2
  sampling: {max_tokens: 8}
  budget: {updates: 1}
"""


def test_each_seed_has_its_directories(tmp_path: Path) -> None:
    """Two seeds: two sets of runs, 6 answers of each arm and seed, all of them in the record with their seed."""
    (tmp_path / "seeded.yaml").write_text(SEEDED)
    done = smolt("study", tmp_path / "seeded.yaml", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    weights = set()
    for seed in (0, 1):
        folder = tmp_path / "out" / f"seed-{seed}"
        assert {path.name for path in folder.iterdir()} == {"problems", "pretrain", "sft", "grpo"}
        weights.add((folder / "sft" / "model" / "model.safetensors").read_bytes())
        assert [item.seed for item in read_rated(folder / "grpo" / "evaluation.jsonl")] == [seed] * 6
    assert len(weights) == 2
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    answering = [arm for arm in record["arms"] if arm["role"] != "component"]
    assert [arm["name"] for arm in record["arms"]] == ["sft", "grpo", "pretrain"]
    for arm in answering:
        assert sorted(item["seed"] for item in arm["items"]) == [0] * 6 + [1] * 6
    found = report(tmp_path / "out")
    assert found["arms"]["grpo"]["accuracy"]["n"] in (6, 12)
    by_run = {entry["b"]: [seed for seed, _ in entry["by_run"]] for entry in found["runs"]}
    assert by_run == {"grpo": [0, 1]}


def test_answers_with_strange_line_ends_come_back(tmp_path: Path) -> None:
    """Line separators that are not line feeds stand in JSON as they are; they do not end a row."""
    item = RatedAnswer("q", "a\u2028b", "kind", "\x85\x0b\x0c\r\n\u2029", 3, True, None, 0.5)
    write_rated(tmp_path / "rows.jsonl", [item, item])
    assert read_rated(tmp_path / "rows.jsonl") == [item, item]


def test_answers_measured_under_another_recipe_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after the first 6 answers and continued with 3 questions: every arm has 3, nothing is trained again."""
    recipe = tmp_path / "seeded.yaml"
    recipe.write_text(SEEDED.replace("seeds: [0, 1]", "seeds: [0]"))
    out, write = tmp_path / "out", study.write_sealed

    def stopped(*arguments: Any) -> None:
        write(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(study, "write_sealed", stopped)
        assert smolt("study", recipe, "--out", out).exit_code == 143
    assert [len(rows_of(path)) for path in out.glob("*/evaluation.jsonl")] == [6]
    weights = (out / "grpo" / "model" / "model.safetensors").stat().st_mtime_ns
    done = smolt("study", recipe, "study.items=3", "--out", out)
    assert done.exit_code == 0, done.output
    assert [len(rows_of(out / arm / "evaluation.jsonl")) for arm in ("sft", "grpo")] == [3, 3]
    assert (out / "grpo" / "model" / "model.safetensors").stat().st_mtime_ns == weights


def test_the_kl_of_a_bf16_study_is_that_of_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both models are read in fp32: in bf16 the rounding of the two forwards is more than a short training moves."""
    recipe, measured = tmp_path / "seeded.yaml", list[tuple[torch.dtype, torch.dtype]]()
    recipe.write_text(SEEDED.replace("seeds: [0, 1]", "seeds: [0]"))

    def noting(reference: Policy, policy: Policy, exam: Exam, ground: Ground) -> list[float]:
        measured.append((reference.trunk.precision.dtype, policy.trunk.precision.dtype))
        return kl_to(reference, policy, exam, ground)

    monkeypatch.setattr(study, "kl_to", noting)
    done = smolt("study", recipe, "model.dtype=bf16", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert measured == [(torch.float32, torch.float32)]

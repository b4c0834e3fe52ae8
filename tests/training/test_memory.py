"""Free memory from files written by hand, and trainings refused by what they would need, before anything is written."""

import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from smolt.cli.doctor import examined
from smolt.cli.doctor import machine as described
from smolt.config import make_recipe
from smolt.errors import UserError
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import from_answers
from smolt.training.memory import system
from smolt.training.memory.footprint import Estimate
from smolt.training.memory.outlook import Outlook, gib, look_ahead
from smolt.training.memory.system import free_memory, most_resident, release, resident
from tests.reliability.scenes import SCENES, open_scene, write_inputs

MEMINFO = "MemTotal:       24000000 kB\nMemFree:         1000 kB\nMemAvailable:    3000 kB\n"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("memory"))


@pytest.mark.parametrize(
    ("available", "limit", "used", "expected"),
    [
        (MEMINFO, None, None, 3_072_000),
        (MEMINFO, "2000000\n", "500000\n", 1_500_000),
        (MEMINFO, "max\n", "500000\n", 3_072_000),  # a group without a limit
        (MEMINFO, "9000000\n", "500000\n", 3_072_000),
        (None, "2000000\n", "2500000\n", 0),
        (None, None, None, None),
    ],
)
def test_free_memory(
    available: str | None,
    limit: str | None,
    used: str | None,
    expected: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The smaller of what the system has and what the control group leaves."""
    places = {"meminfo": available, "max": limit, "current": used}
    for name, text in places.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    monkeypatch.setattr(system, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(system, "LIMITS", ((tmp_path / "max", tmp_path / "current"),))
    assert free_memory() == expected


def test_what_this_process_holds() -> None:
    """50 MB that are written to count; the most so far is no less."""
    before = resident()
    block = b"x" * 50_000_000
    assert resident() - before == pytest.approx(len(block), rel=0.2)
    assert most_resident() >= resident() * 0.99


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to")
def test_free_blocks_are_given_back() -> None:
    """100 MB in blocks of 100 kB below one that stays, which the C library keeps when they are free."""
    blocks = [b"x" * 100_000 for _ in range(1000)]
    top = b"x" * 100_000
    held = resident()
    blocks.clear()
    release()
    assert held - resident() > 80_000_000
    assert len(top) == 100_000


PARTS = Estimate(
    process=100,
    weights=50,
    loading=20,
    moments=80,
    gradients=40,
    activations=500,
    logprobs=10,
    sampling=30,
)


def test_only_what_cannot_fit_with_its_margin_is_refused() -> None:
    """680 bytes are needed besides the process; 80 % of them are 544."""
    assert (PARTS.peak, PARTS.needed) == (780, 680)
    for free, refused in ((None, False), (680, False), (544, False), (543, True)):
        outlook = Outlook(PARTS, free, "Less")
        assert outlook.hopeless is refused
    with pytest.raises(UserError, match=r"^memory: this training needs about .*free\. Less\. To try .*budget.refuse=f"):
        Outlook(PARTS, 543, "Less").refuse()
    Outlook(PARTS, 544).refuse()


def test_the_record_and_the_sentence() -> None:
    gib = 2**30
    found = replace(PARTS, **{name: value * gib for name, value in vars(PARTS).items()})
    outlook = Outlook(found, 900 * gib)
    assert outlook.sentence == (
        "memory: about 780.00 GiB at the peak (process 100.00 GiB, weights 50.00 GiB, "
        "gradients and optimizer 120.00 GiB, activations 510.00 GiB); 900.00 GiB are free"
    )
    assert Outlook(PARTS, 7).record() == {"estimate": {**vars(PARTS), "peak": 780, "when": "learning"}, "free": 7}
    assert Outlook(replace(PARTS, sampling=700), None).when == "sampling"
    assert Outlook(replace(PARTS, loading=700), None).when == "loading"


@pytest.mark.parametrize("scene", SCENES)
def test_nothing_is_written_by_a_training_that_cannot_fit(
    scene: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1,000 bytes free nothing helps, and the message says by how much; told to, it tries nevertheless."""
    monkeypatch.setattr("smolt.training.memory.outlook.free_memory", lambda: 1000)
    with pytest.raises(
        UserError, match=r"memory: this training needs .*; 0\.0 MiB are free\. Even with .* MiB too much: take"
    ):
        open_scene(scene, inputs, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    open_scene(scene, inputs, tmp_path / "run", budget__refuse=False).close()


SHAPE: dict[str, Any] = {
    "vocab_size": 40_000,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}


def outlook(free: int, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> Outlook:
    """Of an sft of a model of 23 million weights on 32 answers of 300 tokens, 8 an update."""
    monkeypatch.setattr("smolt.training.memory.outlook.resident", lambda: 0)
    monkeypatch.setattr("smolt.training.memory.outlook.free_memory", lambda: free)
    monkeypatch.setattr("smolt.training.memory.outlook.MARGIN", 0.0)
    with torch.device("meta"):
        network = LlamaForCausalLM(LlamaConfig(**SHAPE))
    dtype = fields.pop("dtype", "fp32")
    recipe = make_recipe("sft", model={"path": "m", "dtype": dtype}, data="d", batch=8, **fields)
    items = [from_answers([[1, 2, 3]], [[[1] * 300]])] * 32
    found = look_ahead(recipe, choose_precision("cpu", dtype), network, items)
    assert found is not None
    return found


CHANGES: dict[str, dict[str, Any]] = {
    "budget.memory=0.0625": {"budget.memory": 0.0625},
    "budget.checkpointing=always": {"budget.checkpointing": "always"},
    "model.dtype=bf16": {"dtype": "bf16"},
    "a lora block (rank 16)": {"lora": {"rank": 16}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_advised_makes_it_fit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exactly as much free as a change needs, it is advised with that figure, and following it fits."""
    needed = outlook(2**40, monkeypatch, **CHANGES[name]).estimate.needed
    assert needed < outlook(2**40, monkeypatch).estimate.needed
    found = outlook(needed, monkeypatch)
    assert found.hopeless
    assert found.advice.startswith("It would fit with ")
    assert f"{name.rstrip(')')}" in found.advice
    assert f"({gib(needed)})" in found.advice
    assert not outlook(needed, monkeypatch, **CHANGES[name]).hopeless


def test_changes_that_help_only_together_are_said_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computing in bf16 helps with adapters alone, but not beside the other two: loading has become the peak."""
    needed = outlook(2**40, monkeypatch, **{"budget.memory": 0.0625, "lora": {"rank": 16}}).estimate.needed
    both = "budget.memory=0.0625 and a lora block (rank 16) instead of training all weights"
    assert outlook(needed, monkeypatch).advice == f"It would fit with {both} together ({gib(needed)})"
    short = outlook(needed - 2**20, monkeypatch).advice
    assert short == f"Even with {both} it needs {gib(needed)}, 1.0 MiB too much: take a smaller model"


def test_a_smaller_memory_recomputes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 303 tokens fit into 0.0625 GiB and not into 0.03, nor in bf16 into 0.01; never is never."""
    for given, recomputed in (
        ({"budget.memory": 0.0625}, False),
        ({"budget.memory": 0.03}, True),
        ({"budget.memory": 0.03, "dtype": "bf16"}, False),
        ({"budget.memory": 0.01, "dtype": "bf16"}, True),
        ({"budget.memory": 0.01, "budget.checkpointing": "never"}, False),
    ):
        assert bool(outlook(2**40, monkeypatch, **given).recomputed) is recomputed


def test_a_recipe_that_can_be_changed_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters and bf16 are not advised to who has them."""
    advice = outlook(1000, monkeypatch, dtype="bf16", lora={"rank": 1}).advice
    assert "bf16" not in advice
    assert "lora" not in advice


def test_no_reference_takes_no_memory(inputs: Path, tmp_path: Path) -> None:
    """With all weights trained ORPO holds one network, DPO a second that learns nothing: the estimate counts it."""
    weights = {}
    for scene in ("orpo-full", "dpo-full"):
        training = open_scene(scene, inputs, tmp_path / scene)
        training.close()
        weights[scene] = json.loads((tmp_path / scene / "manifest.json").read_text())["memory"]["estimate"]["weights"]
    assert weights["dpo-full"] == 2 * weights["orpo-full"]


def test_the_record_of_a_run(inputs: Path, tmp_path: Path) -> None:
    """The estimate is in the manifest before update 1, and in the result beside what was measured."""
    training = open_scene("grpo-lora", inputs, tmp_path / "run", checks__forecast=False)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    estimate = manifest["memory"]["estimate"]
    assert set(estimate) <= {*vars(PARTS), "peak", "when"}
    assert estimate["peak"] > estimate["process"] > 10 * 2**20
    assert [line for line in training.remarks if line.startswith("memory: about ")]
    result = training.finish().metrics
    assert result["memory"] == manifest["memory"]
    assert result["peak_memory"] > 10 * 2**20


def test_doctor_says_what_is_free_and_what_a_recipe_needs(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "free_memory", lambda: 3 * 2**29)
    assert described()["memory_free_gib"] == 1.5
    recipe = tmp_path / "small.yaml"
    text = f"stage: dpo\nmodel: {{path: {inputs / 'model'}, dtype: fp32, threads: 1}}\n"
    recipe.write_text(text + f"data: {inputs / 'preferences.jsonl'}\n")
    found = examined(str(recipe), [])
    assert found.exit_code == 0
    assert [check["what"] for check in found.facts["checks"]][-2:] == ["memory of dpo", "time of dpo"]
    monkeypatch.setattr("smolt.training.memory.outlook.free_memory", lambda: 1000)
    refused = examined(str(recipe), [])
    assert refused.exit_code == 2
    assert "; 0.0 MiB are free. Even with" in refused.facts["checks"][-1]["found"]
    assert examined(str(recipe), ["budget.refuse=false"]).exit_code == 0

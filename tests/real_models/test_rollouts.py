"""RL on SmolLM2-135M-Instruct in bf16, as `auto` chooses it: no false alarm, and planted faults are caught."""

import runpy
from pathlib import Path
from typing import Any

import pytest

import smolt
from smolt.errors import SelfCheckError
from tests.docs.workshop import README, blocks
from tests.invariance.test_rollout_faults import another_temperature, another_template, planted
from tests.real import SMOLLM2, real_model
from tests.shared import shared_path

pytestmark = pytest.mark.slow
TRAIN = {"grpo": smolt.grpo, "ppo": smolt.ppo}


@pytest.fixture(scope="module")
def model() -> str:
    return str(real_model(SMOLLM2))


def training(stage: str, model: str, updates: int) -> Any:
    shape: dict[str, Any] = {"group": 8} if stage == "grpo" else {"samples": 8, "inner": {"epochs": 2}}
    return TRAIN[stage](
        model,
        reward=lambda question, answer: -answer.tokens / 96,
        data=str(shared_path("data/gsm8k/train.jsonl")),
        prompts=2,
        lora={"rank": 8},
        sampling={"max_tokens": 96},
        budget={"updates": updates},
        checks={"forecast": False},
        **{"model.dtype": "bf16"},
        **shape,
    )


@pytest.mark.parametrize("stage", TRAIN)
def test_bf16_trains(stage: str, model: str) -> None:
    """Three updates without an alarm; the mean mismatch is that of bench/results: 0.008 to 0.035, by processor."""
    rows = list(training(stage, model, 3))
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(0.005 < row["mismatch"] < 0.05 and row["mismatch_kl"] < 0.002 for row in rows)


@pytest.mark.parametrize("fault", [another_temperature, another_template], ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_caught(fault: Any, model: str) -> None:
    """At update 1, in bf16, and not taken for rounding."""
    with planted(fault), pytest.raises(SelfCheckError, match=r"in bf16 .*a fault, not rounding"):
        next(training("grpo", model, 1))


def test_the_readme_example_runs_on_it(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As written, with only the path changed: one line an update, then the model's directory."""
    (program, *_) = [block.text for block in blocks(README, "python")]
    assert program.count('"my-model"') == 1
    written = tmp_path / "example.py"
    written.write_text(program.replace('"my-model"', repr(model)), encoding="utf-8")
    runpy.run_path(str(written))
    printed = capsys.readouterr().out.splitlines()
    assert Path(printed[-1]).joinpath("adapter_config.json").is_file()
    assert len(printed) == 20 + 1

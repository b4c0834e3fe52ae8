"""The four systems at their true configurations, with random weights: one update of every stage.

Slow (minutes) and large: Qwen2.5-0.5B needs about 6 GiB of memory, GPT-Neo-125M with full weights 4 GiB of disk.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from smolt.report.pictures import plots
from smolt.study.study import run_study
from tests.recipes.studies import small
from tests.recipes.systems import System, system_model, true_config

pytestmark = pytest.mark.slow

PARAMETERS: list[tuple[str, System | None, int]] = [
    ("smollm2-orca", "smollm2", 134_515_008),
    ("qwen-gsm8k-rlaif", "qwen", 494_032_768),
    ("gptneo-hh", "gptneo", 125_198_592),
    ("slm-25m", None, 24_845_824),
]
"""What the hub's model cards round to 135M, 0.5B, 125M; and our own 25M."""


@pytest.mark.parametrize(("name", "system", "parameters"), PARAMETERS)
def test_one_update_of_every_stage(
    name: str, system: System | None, parameters: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model has the published number of parameters, and the study ends with a report."""
    monkeypatch.setattr(plots, "draw", lambda *given: plots.Pictures())
    model = None
    if system:
        config = true_config(system)
        with torch.device("meta"):
            counted = counted_parameters(config)
        assert counted == parameters
        model = system_model(tmp_path / "base", system, config, torch.bfloat16)
    recipe = small(name, model, 60, 1, "model.window=320", *([] if model else ["pretrain.batch=2"]))
    assert run_study(recipe, out=tmp_path / "study")["status"] == "complete"


def counted_parameters(config: Any) -> int:
    """Parameters of a configuration, tied ones once."""
    network = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return sum(parameter.numel() for parameter in network.parameters())

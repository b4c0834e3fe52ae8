"""On a CUDA device the numbers are the CPU's, and a training ends with a model: `pytest -m gpu`."""

from pathlib import Path

import pytest
import torch

import smolt
from smolt.config import LoRA
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import from_answers
from smolt.models.locating import locate
from smolt.models.roles import Policy, open_policy
from smolt.models.sampling import Drawing, sample
from tests import tiny_models
from tests.invariance.conftest import Models
from tests.tiny import tiny_model
from tests.tiny_models import apart

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
TOLERANCE = 1e-4
CONTEXTS = [list(range(3, 20)), [5], list(range(30, 35))]
GROUPS = from_answers(CONTEXTS, [[[8, 9, 10], [11]], [[12] * 20, [13, 14]], [[15, 16, 17, 18]]])
ARCHITECTURES = [*tiny_models.PACKED, *tiny_models.PADDED]


def policy(folder: Path, device: str, dtype: str = "fp32", lora: bool = True) -> Policy:
    """With an adapter that is not zero, or with all weights trained."""
    adapter = LoRA(rank=4, alpha=8) if lora else None
    opened = open_policy(locate(str(folder)), choose_precision(device, dtype), adapter, 0)
    if lora:
        tiny_models.shake(opened)
    return opened


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning")  # peft on GPT-2's transposed linear layers
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_probabilities_and_gradients_are_the_cpus(architecture: str, lora: bool, models: Models) -> None:
    """fp32, every family: log-probabilities within 1e-4, each gradient within 1e-3 of its norm."""
    found = {}
    for device in ("cpu", DEVICE):
        opened = policy(models(architecture), device, lora=lora)
        logprobs, _ = opened(GROUPS, 1.0)
        logprobs.sum().backward()
        gradients = {name: value.grad for name, value in opened.parameters().items() if value.grad is not None}
        found[device] = logprobs.detach().cpu(), {name: value.cpu() for name, value in gradients.items()}
    (expected, slopes), (ours, our_slopes) = found["cpu"], found[DEVICE]
    assert apart(ours, expected) <= TOLERANCE
    assert slopes.keys() == our_slopes.keys() != set()
    for name, slope in slopes.items():
        assert float((our_slopes[name] - slope).norm()) <= 1e-3 * float(slope.norm()) + 1e-6, name


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning")  # peft on GPT-2's transposed linear layers
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sampled_log_probabilities_are_what_training_recomputes(architecture: str, models: Models) -> None:
    """fp32, within 1e-4, 5 slots for 9 answers."""
    opened = policy(models(architecture), DEVICE)
    drawing = Drawing(max_tokens=40, temperature=1.0, batch=5, stop_ids=frozenset({0, 1}))
    groups = sample(opened, CONTEXTS, 3, drawing, (0, 1))
    with torch.no_grad():
        assert apart(groups.columns["sampled"], opened(groups, 1.0)[0].cpu()) <= TOLERANCE


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_a_training_ends_with_a_model(stage: str, dtype: str, tmp_path: Path) -> None:
    """Two updates with adapters; the checks before and within them hold, and the model opens on the CPU."""
    tiny_model(tmp_path / "model")
    train = {"grpo": smolt.grpo, "ppo": smolt.ppo}[stage]
    result = train(
        tmp_path / "model",
        ["a", "b"],
        reward=lambda question, answer: len(answer.text) % 7,
        out=tmp_path / "run",
        prompts=2,
        **{"model.device": DEVICE, "model.dtype": dtype, "lora.rank": 4, "budget.updates": 2, "sampling.max_tokens": 5},
        **({"group": 4} if stage == "grpo" else {"samples": 4}),
    ).finish()
    assert result.metrics["updates"] == 2
    assert open_policy(locate(str(result.path)), choose_precision("cpu", "fp32"), LoRA(rank=4), 0).adapter is not None

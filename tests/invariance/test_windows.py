"""Windows of attention and positions that depend on the row: each row as it is alone, or a refusal that says why.

The truth is the network's own eager forward, one row at a time, on rows of unequal length well beyond the window.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Olmo3Config,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    StableLmConfig,
    Starcoder2Config,
)

from smolt.errors import UserError
from smolt.models.forward import probing
from smolt.models.ground import window_of
from smolt.models.groups import Groups, from_answers
from smolt.models.locating import locate
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing, sample
from tests.invariance.test_packing import TOLERANCE, alone
from tests.tiny_models import CONTROLS, SHAPE, apart, open_full

LAYERS = {"layer_types": ["sliding_attention", "full_attention"]}
WINDOWED: dict[str, Callable[[int], PretrainedConfig]] = {
    "mistral": lambda window: MistralConfig(**SHAPE, **CONTROLS, sliding_window=window),
    "qwen2": lambda window: Qwen2Config(
        **SHAPE, **CONTROLS, use_sliding_window=True, sliding_window=window, max_window_layers=1
    ),
    "qwen3": lambda window: Qwen3Config(
        **SHAPE, **CONTROLS, head_dim=8, use_sliding_window=True, sliding_window=window, **LAYERS
    ),
    "gemma3_text": lambda window: Gemma3TextConfig(**SHAPE, **CONTROLS, head_dim=8, sliding_window=window, **LAYERS),
    "phi3": lambda window: Phi3Config(**SHAPE, **CONTROLS, sliding_window=window),
    "starcoder2": lambda window: Starcoder2Config(**SHAPE, **CONTROLS, sliding_window=window),
    "olmo3": lambda window: Olmo3Config(**SHAPE, **CONTROLS, sliding_window=window, **LAYERS),
}
LEAN = ("mistral", "qwen2", "qwen3")


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


FACTORS = {"short_factor": [1.0] * 4, "long_factor": [1.5, 2.0, 4.0, 8.0], "original_max_position_embeddings": 64}
BY_ROW: dict[str, PretrainedConfig] = {
    "dynamic": LlamaConfig(**{**SHAPE, "max_position_embeddings": 64}, **CONTROLS, **rope("dynamic", factor=4.0)),
    "longrope": Phi3Config(**SHAPE, **CONTROLS, original_max_position_embeddings=64, **rope("longrope", **FACTORS)),
    "stablelm": StableLmConfig(
        **{**SHAPE, "max_position_embeddings": 64}, **CONTROLS, **rope("dynamic", factor=2.0, partial_rotary_factor=0.5)
    ),
}


def opened(config: PretrainedConfig, folder: Path) -> Policy:
    """A policy of a random network that is far from its initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    network.save_pretrained(folder)
    return open_full(folder)


def truth(folder: Path, groups: Groups) -> Tensor:
    network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", trust_remote_code=False)
    with torch.no_grad():
        return alone(network.eval(), groups)


def rows(*lengths: int) -> Groups:
    """One context of 5 tokens and, for each length, an answer that makes a row of it; the first two share theirs."""
    draw = torch.Generator().manual_seed(5)
    ids = torch.randint(1, 97, (len(lengths), max(lengths)), generator=draw).tolist()
    answers = [row[5:length] for row, length in zip(ids, lengths, strict=True)]
    return from_answers([row[:5] for row in ids[1:]], [answers[:2], *([answer] for answer in answers[2:])])


@pytest.mark.parametrize("window", [16, 32])
@pytest.mark.parametrize("family", WINDOWED)
def test_a_window_shorter_than_the_row(family: str, window: int, tmp_path: Path) -> None:
    """Rows of 60, 9, 41 and 17 tokens: log-probabilities within 1e-5, and what is sampled is what is recomputed."""
    policy, groups = opened(WINDOWED[family](window), tmp_path / "model"), rows(60, 9, 41, 17)
    with torch.no_grad():
        assert apart(policy(groups)[0], truth(tmp_path / "model", groups)) <= TOLERANCE
        drawn = sample(policy, [list(range(3, 40)), [7, 8]], 2, Drawing(30, 1.0, 4, frozenset()), (0,))
        expected = truth(tmp_path / "model", drawn)
    assert apart(drawn.columns["sampled"], expected) <= TOLERANCE
    assert policy.trunk.packed
    assert policy.trunk.lean is (family in LEAN), policy.trunk.why_not_lean


@pytest.mark.parametrize("kind", BY_ROW)
def test_positions_that_depend_on_the_longest_row(kind: str, tmp_path: Path) -> None:
    """Below the limit of 64 each row as alone, 63 beside 9; a row beyond it is refused before anything is computed."""
    policy = opened(BY_ROW[kind], tmp_path / "model")
    groups = rows(63, 9, 30)
    with torch.no_grad():
        assert apart(policy(groups)[0], truth(tmp_path / "model", groups)) <= TOLERANCE
        drawn = sample(policy, [list(range(3, 40)), [7, 8]], 2, Drawing(26, 1.0, 4, frozenset()), (0,))
        assert apart(drawn.columns["sampled"], truth(tmp_path / "model", drawn)) <= TOLERANCE
        with pytest.raises(UserError, match=r"100 tokens .* 64"):
            policy(rows(9, 30, 100))
        with pytest.raises(UserError, match=r"67 tokens .* 64"):
            sample(policy, [list(range(3, 40)), [7, 8]], 2, Drawing(30, 1.0, 4, frozenset()), (0,))
    assert window_of(locate(str(tmp_path / "model"))) == 63  # a stop token that is appended has room


@pytest.mark.parametrize("kind", ["linear", "yarn", "llama3"])
def test_positions_that_do_not(kind: str, tmp_path: Path) -> None:
    """Scaled positions that are a function of the position alone have no such limit."""
    more: dict[str, Any] = {"factor": 4.0, "original_max_position_embeddings": 64}
    if kind == "llama3":
        more |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    policy = opened(LlamaConfig(**SHAPE, **CONTROLS, **rope(kind, **more)), tmp_path / "model")
    groups = rows(100, 9, 30)
    with torch.no_grad():
        assert apart(policy(groups)[0], truth(tmp_path / "model", groups)) <= TOLERANCE
    assert window_of(locate(str(tmp_path / "model"))) == 128


def test_a_window_that_no_probe_has_seen_takes_the_padded_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Narrowing that does not reach the network proves nothing: no packed forward, and the reason is kept."""
    monkeypatch.setattr(probing, "NARROW", 500)
    policy, groups = opened(WINDOWED["mistral"](16), tmp_path / "model"), rows(60, 9, 41, 17)
    assert not policy.trunk.packed
    assert "sliding_window" in policy.trunk.why
    with torch.no_grad():
        assert apart(policy(groups)[0], truth(tmp_path / "model", groups)) <= TOLERANCE

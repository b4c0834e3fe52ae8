"""Random models of a few thousand weights, one for each architecture smolt says it serves, opened in their roles."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from smolt.config import LoRA
from smolt.models.forward.precision import choose_precision
from smolt.models.forward.trunk import load_trunk
from smolt.models.locating import locate
from smolt.models.roles import Policy, Scorer, open_policy, score_head

VOCABULARY = 97
STOP = 0
"""Pad and stop token are the same id in every one of these models, as in SmolLM2-Instruct (trap 3)."""

CONTROLS: dict[str, Any] = {"pad_token_id": STOP, "eos_token_id": STOP, "bos_token_id": STOP}
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
ONE_HEAD_EACH = {name: value for name, value in SHAPE.items() if name != "num_key_value_heads"}
GPT2_SHAPE = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
NEO_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 8,
    "max_position_embeddings": 128,
}
CONFIGURATIONS = {
    "llama": LlamaConfig(**SHAPE, **CONTROLS),
    "qwen2": Qwen2Config(**SHAPE, **CONTROLS),
    "qwen3": Qwen3Config(**SHAPE, **CONTROLS, head_dim=8),
    "gpt2": GPT2Config(**GPT2_SHAPE, **CONTROLS),
    "gpt_neox": GPTNeoXConfig(**ONE_HEAD_EACH, **CONTROLS),
    "gpt_neo": GPTNeoConfig(**NEO_SHAPE, **CONTROLS),
    "gemma2": Gemma2Config(**SHAPE, **CONTROLS, head_dim=8),
    "gemma3_text": Gemma3TextConfig(
        **SHAPE,
        **CONTROLS,
        head_dim=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
    ),
}
PACKED = ("llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "gemma3_text")
PADDED = ("gpt_neo", "gemma2")
"""GPT-Neo does not route through the attention interface; Gemma 2 caps its attention scores and its logits."""


def network(architecture: str) -> PreTrainedModel:
    """The plain transformers model, eager attention, no dropout, weights far from a fresh initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: PreTrainedModel = AutoModelForCausalLM.from_config(
            CONFIGURATIONS[architecture], attn_implementation="eager", trust_remote_code=False
        )
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return made.eval()


def save(architecture: str, folder: Path) -> Path:
    """A model directory."""
    network(architecture).save_pretrained(folder)
    return folder


def open_full(folder: Path) -> Policy:
    """A policy whose weights are all trained, fp32 on the CPU."""
    return open_policy(locate(str(folder)), choose_precision("cpu", "fp32"), None, 0)


def open_adapted(folder: Path, rank: int = 4, seed: int = 0, dtype: str = "fp32") -> Policy:
    """A policy with a fresh adapter on every linear layer."""
    lora = LoRA(rank=rank, alpha=2.0 * rank)
    return open_policy(locate(str(folder)), choose_precision("cpu", dtype), lora, seed)


def open_full_scorer(folder: Path) -> Scorer:
    """A scorer with a trunk of its own, all weights trained, and a head that is not zero."""
    trunk = load_trunk(locate(str(folder)), choose_precision("cpu", "fp32"), True)
    trunk.train_all()
    return Scorer(trunk, None, score_head(trunk.width, 7, trunk.precision.device))


def shake(policy: Policy | Scorer, seed: int = 1, width: float = 0.1) -> None:
    """Move what the role trains, so that an adapter is no longer zero."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(policy.parameters().items()):
            parameter.add_(width * torch.randn(parameter.shape, generator=draw).to(parameter.dtype))


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference of two tensors of one shape."""
    assert found.shape == expected.shape
    return float((found.detach() - expected.detach()).abs().max())

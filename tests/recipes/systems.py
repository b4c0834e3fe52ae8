"""Random models of the architectures that the shipped recipes name: the true configurations, and shrunken copies.

A shrunken copy keeps what makes the architecture different (tied embeddings, 9 heads that share 3 for keys and values,
biases, more embedding rows than tokens, local attention, the hub's sampling settings) and loses only size.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, GPTNeoConfig, LlamaConfig, PretrainedConfig, Qwen2Config

from tests.tiny import tiny_tokenizer

System = Literal["qwen", "gptneo", "smollm2"]

POSITIONS = 1024
"""Window of the shrunken copies: a byte is a token, so texts are long."""

SAMPLING_OF_THE_HUB: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
"""What Qwen2.5-Instruct ships beside a repetition penalty of 1.1 (trap 5)."""


def true_config(system: System) -> PretrainedConfig:
    """The configuration the hub has."""
    match system:
        case "smollm2":
            return LlamaConfig(
                vocab_size=49152,
                hidden_size=576,
                intermediate_size=1536,
                num_hidden_layers=30,
                num_attention_heads=9,
                num_key_value_heads=3,
                max_position_embeddings=8192,
                rope_parameters={"rope_type": "default", "rope_theta": 1e5},
                rms_norm_eps=1e-5,
                tie_word_embeddings=True,
            )
        case "qwen":
            return Qwen2Config(
                vocab_size=151936,
                hidden_size=896,
                intermediate_size=4864,
                num_hidden_layers=24,
                num_attention_heads=14,
                num_key_value_heads=2,
                max_position_embeddings=32768,
                rope_parameters={"rope_type": "default", "rope_theta": 1e6},
                rms_norm_eps=1e-6,
                tie_word_embeddings=True,
            )
        case "gptneo":
            return GPTNeoConfig(
                vocab_size=50257,
                hidden_size=768,
                num_layers=12,
                num_heads=12,
                attention_types=[[["global", "local"], 6]],
                window_size=256,
                max_position_embeddings=2048,
            )


def shrunken_config(system: System) -> PretrainedConfig:
    """The same flags and ratios at two layers."""
    config = true_config(system)
    small: dict[str, Any] = {"max_position_embeddings": POSITIONS}
    match system:
        case "smollm2":
            small |= {"vocab_size": 266, "hidden_size": 72, "intermediate_size": 96, "num_hidden_layers": 2}
        case "qwen":
            small |= {"vocab_size": 304, "hidden_size": 56, "intermediate_size": 96, "num_hidden_layers": 2}
            small |= {"layer_types": ["full_attention"] * 2, "max_window_layers": 2}
        case "gptneo":
            small |= {"vocab_size": 266, "hidden_size": 48, "num_layers": 2, "window_size": 8}
            small |= {"attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"]}
    known = {
        name: value for name, value in config.to_dict().items() if name not in ("head_dim", "transformers_version")
    }
    return type(config)(**{**known, **small})


def system_model(directory: Path, system: System, config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> Path:
    """Write a random model with a byte-level tokenizer as its original has it: pad, stop token and chat template.

    SmolLM2-Instruct pads with its stop token; GPT-Neo has one control token and no template.
    """
    tokenizer = tiny_tokenizer(pad_is_eos=system != "qwen", chat=system != "gptneo")
    tokenizer.save_pretrained(directory)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    model.save_pretrained(directory)
    if system == "qwen":
        stops = [tokenizer.eos_token_id, tokenizer.bos_token_id]
        settings = {**SAMPLING_OF_THE_HUB, "repetition_penalty": 1.1, "eos_token_id": stops}
        (directory / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return directory

"""A random model deep and wide enough that bf16 rounds its log-probabilities as it does a real model's.

Ten layers of width 128 with these weights: sampler and trainer differ by 0.03 a token on average, 0.12 at 99 %, KL
0.0008; SmolLM2-135M-Instruct has 0.029, 0.155 and 0.001.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from tests.tiny import tiny_tokenizer


def deep_model(directory: Path, layers: int = 10, spread: float = 0.08) -> Path:
    """Write the model with its tokenizer; `spread` is the standard deviation of its weights."""
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(directory)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        initializer_range=spread,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        with torch.no_grad():
            network.get_input_embeddings().weight.normal_()
            network.get_output_embeddings().weight.normal_(0, 0.25)
    network.save_pretrained(directory)
    return directory

"""The tiny models of the tests load as any model directory does, and are the same every time."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny import ARCHITECTURES, CHATML, CONTROLS, VOCABULARY, WINDOW, Architecture, tiny_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_loads_and_reads_a_whole_window(tmp_path: Path, architecture: Architecture) -> None:
    """128 tokens in, 128 x 266 finite logits out, far from uniform; the type is the one asked for."""
    tiny_model(tmp_path, architecture)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=False).eval()
    assert (model.config.model_type, model.config.eos_token_id, model.dtype) == (architecture, 2, torch.float32)
    ids = torch.arange(WINDOW)[None] % VOCABULARY
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    assert logits.shape == (1, WINDOW, VOCABULARY)
    assert bool(logits.isfinite().all())
    assert float(logits.std(-1).min()) > 0.2
    assert sum(parameter.numel() for parameter in model.parameters()) < 60_000


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_seeds_give_equal_bytes(tmp_path: Path, architecture: Architecture) -> None:
    state = torch.random.get_rng_state()
    weights = [
        (tiny_model(tmp_path / name, architecture, seed) / "model.safetensors").read_bytes()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_local_layers_see_eight_positions(tmp_path: Path) -> None:
    neo = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path / "neo", "gpt_neo"), trust_remote_code=False)
    assert (neo.config.attention_layers, neo.config.window_size) == (["global", "local"], 8)
    gemma = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path / "g", "gemma3_text"), trust_remote_code=False)
    assert (gemma.config.layer_types, gemma.config.sliding_window) == (["sliding_attention", "full_attention"], 8)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3_text"])
def test_queries_are_grouped(tmp_path: Path, architecture: Architecture) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path, architecture), trust_remote_code=False)
    attention = model.model.layers[0].self_attn
    assert (attention.q_proj.out_features, attention.k_proj.out_features) == (32, 16)


@pytest.mark.parametrize(
    ("pad_is_eos", "chat", "pad", "eos"),
    [
        (False, True, "<|pad|>", "<|im_end|>"),
        (True, True, "<|im_end|>", "<|im_end|>"),
        (False, False, "<|pad|>", "<|endoftext|>"),
        (True, False, "<|endoftext|>", "<|endoftext|>"),
    ],
)
def test_the_tokenizer_loads(tmp_path: Path, pad_is_eos: bool, chat: bool, pad: str, eos: str) -> None:
    tiny_model(tmp_path, pad_is_eos=pad_is_eos, chat=chat)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)
    assert (tokenizer.pad_token, tokenizer.eos_token, len(tokenizer)) == (pad, eos, VOCABULARY)
    assert tokenizer.chat_template == (CHATML if chat else None)
    assert [tokenizer.convert_tokens_to_ids(control) for control in CONTROLS] == [0, 1, 2, 3]
    text = " the heron's inner größe,\n\tthen 3.5 € <b>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer(" the")["input_ids"]) == ["Ġthe"]


def test_chat_is_chatml(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model(tmp_path), trust_remote_code=False)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True)["input_ids"]
    assert (ids[0], ids.count(2), ids.count(1)) == (1, 1, 2)
    assert tokenizer.decode(ids) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_a_padded_vocabulary(tmp_path: Path) -> None:
    tiny_model(tmp_path, vocab=300)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)
    assert (model.get_input_embeddings().weight.shape[0], len(tokenizer)) == (300, VOCABULARY)

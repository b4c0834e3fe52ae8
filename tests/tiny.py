"""Tiny random models in model directories, one of each architecture smolt knows, for tests that need a real one."""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

Architecture = Literal["llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "gpt_neo", "gemma3_text"]
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "gpt_neo", "gemma3_text")

WINDOW = 128
"""Positions of every tiny model."""

LOCAL_WINDOW = 8
"""Attention window of the local layers of gpt_neo and gemma3_text."""

CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
MERGES = [("h", "e"), ("Ġ", "t"), ("Ġt", "he"), ("i", "n"), ("Ġ", "a"), ("e", "r")]
VOCABULARY = len(CONTROLS) + 256 + len(MERGES)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

MATRIX_SPREAD = 0.2
VECTOR_SPREAD = 0.1


def tiny_model(
    directory: Path,
    architecture: Architecture = "llama",
    seed: int = 0,
    vocab: int = VOCABULARY,
    pad_is_eos: bool = False,
    chat: bool = True,
) -> Path:
    """Write a model of 2 layers, width 32 and 4 heads (2 for keys and values where it groups them).

    Weights are ten times wider than a fresh initialisation and biases are not zero, so that a wrong position, mask or
    temperature is visible in the logits. Equal arguments give equal bytes. Dropout keeps its default.

    Args:
        directory: where to; created.
        architecture: the `model_type` of the configuration.
        seed: of the weights.
        vocab: rows of the embedding; more than the tokenizer's 266 give tokens without text, as in padded vocabularies.
        pad_is_eos: the tokenizer pads with its stop token.
        chat: ChatML template and stop token <|im_end|>; else no template and stop token <|endoftext|>.

    Returns:
        `directory`.
    """
    tokenizer = tiny_tokenizer(pad_is_eos, chat)
    tokenizer.save_pretrained(directory)
    config = _config(architecture, vocab)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    _fill(model, seed)
    model.save_pretrained(directory)
    return directory


def tiny_tokenizer(pad_is_eos: bool = False, chat: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 4 control tokens, 256 bytes and 6 merges; any text comes back from its tokens."""
    eos = "<|im_end|>" if chat else "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_byte_level()),
        bos_token="<|endoftext|>",
        eos_token=eos,
        pad_token=eos if pad_is_eos else "<|pad|>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
        model_max_length=WINDOW,
    )
    tokenizer.chat_template = CHATML if chat else None
    return tokenizer


@cache
def _byte_level() -> str:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*CONTROLS, *letters, *("".join(pair) for pair in MERGES)]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(CONTROLS))
    return str(tokenizer.to_str())


def _config(architecture: Architecture, vocab: int) -> Any:
    own = {"vocab_size": vocab, "max_position_embeddings": WINDOW, "hidden_size": 32}
    plain = {**own, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    grouped = {**plain, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True}
    match architecture:
        case "llama":
            return LlamaConfig(**grouped)
        case "qwen2":
            return Qwen2Config(**{name: value for name, value in grouped.items() if name != "head_dim"})
        case "qwen3":
            return Qwen3Config(**grouped)
        case "gemma3_text":
            local = {"sliding_window": LOCAL_WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
            return Gemma3TextConfig(**grouped, **local, query_pre_attn_scalar=8)
        case "gpt2":
            return GPT2Config(vocab_size=vocab, n_positions=WINDOW, n_embd=32, n_layer=2, n_head=4)
        case "gpt_neox":
            return GPTNeoXConfig(**plain)
        case "gpt_neo":
            layers = [[["global", "local"], 1]]
            return GPTNeoConfig(**own, num_layers=2, num_heads=4, attention_types=layers, window_size=LOCAL_WINDOW)


def _fill(model: torch.nn.Module, seed: int) -> None:
    """Matrices get noise alone; biases and norm weights keep what they were made with (0 or 1) and get noise on top."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(MATRIX_SPREAD * noise)
            else:
                parameter.add_(VECTOR_SPREAD * noise)

"""The tiny models and rows of the parity tests, made from frozen arithmetic so that nothing binary is stored.

Weights come from numpy's legacy `RandomState`, whose streams numpy has promised never to change. They are ten times
wider than a fresh initialisation: logits far from uniform make a wrong position, mask or temperature visible.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

VOCABULARY = 200
PAD, STOP, START = 0, 1, 2
SPREAD = 0.2
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ' ' + message['content'] + ' <eos> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)

# Contexts and answers as token ids; every answer ends with the stop token, except where a test says "truncated".
CONTEXTS = [[2, 17, 33, 5], [2, 90, 12, 44, 71, 8, 150], [2, 60]]
CHOSEN = [[21, 34, 9, 1], [101, 7, 1], [55, 180, 23, 23, 199, 1]]
REJECTED = [[40, 1], [19, 88, 112, 63, 1], [3, 1]]
ANSWERS = [  # two groups of four, for CONTEXTS[0] and CONTEXTS[1]; the fourth of the first is truncated
    [[21, 34, 9, 1], [40, 1], [77, 50, 61, 28, 30, 1], [15, 16, 17, 18, 19, 20]],
    [[101, 7, 1], [19, 88, 112, 63, 1], [5, 1], [140, 141, 9, 1]],
]
ADVANTAGES = [0.9, -0.4, 0.25, -0.75, 1.2, -1.2, 0.3, -0.3]


def configuration() -> LlamaConfig:
    """A two-layer Llama with grouped queries, untied embeddings and no dropout."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        attention_dropout=0.0,
        pad_token_id=PAD,
        eos_token_id=STOP,
        bos_token_id=START,
        dtype="float32",
    )


def fill(model: torch.nn.Module, seed: int, base: torch.nn.Module | None = None, drift: float = 0.0) -> None:
    """Set every weight from the seed (norm weights around 1), or to the base's plus `drift` times that."""
    generator = np.random.RandomState(seed)
    origin = dict(base.named_parameters()) if base is not None else {}
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.from_numpy(generator.standard_normal(parameter.shape).astype(np.float32))
            if name in origin:
                parameter.copy_(origin[name] + drift * noise)
            else:
                parameter.copy_(SPREAD * noise + ("norm" in name))


def policy() -> LlamaForCausalLM:
    """The model that is trained, seed 0."""
    model = LlamaForCausalLM(configuration()).eval()
    fill(model, 0)
    return model


def near_policy(seed: int, drift: float) -> LlamaForCausalLM:
    """The policy with every weight moved a little: the reference (seed 1), or the policy that sampled (seed 2)."""
    model = LlamaForCausalLM(configuration()).eval()
    fill(model, seed, base=policy(), drift=drift)
    return model


def reference() -> LlamaForCausalLM:
    """The frozen model of DPO and of the KL terms."""
    return near_policy(1, 0.02)


def sampled() -> LlamaForCausalLM:
    """The policy that wrote the answers; far enough from the policy that clipping acts on some tokens."""
    return near_policy(2, 0.02)


def scorer() -> LlamaForSequenceClassification:
    """A reward model with one score and no bias, seed 3."""
    settings = configuration()
    settings.num_labels = 1
    model = LlamaForSequenceClassification(settings).eval()
    fill(model, 3)
    return model


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of 200 words whose pad token is not its stop token, with a chat template."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "user", "assistant", "system"]
    words += [f"w{number}" for number in range(len(words), VOCABULARY)]
    backend = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )
    made.chat_template = TEMPLATE
    return made


def save(model: torch.nn.Module, folder: Path) -> Path:
    """Write a model directory with its tokenizer, as a user has one."""
    kept: Any = model
    kept.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def logprobs(model: LlamaForCausalLM, context: list[int], answer: list[int], temperature: float = 1.0) -> list[float]:
    """Log-probability of each answer token, from the plain forward of one unpadded sequence."""
    row = torch.tensor([context + answer])
    with torch.no_grad():
        logits = model(input_ids=row).logits[0, len(context) - 1 : -1].float() / temperature
    chosen = logits.log_softmax(-1).gather(1, row[0, len(context) :, None])[:, 0]
    return [float(value) for value in chosen]


def gradients(model: torch.nn.Module) -> dict[str, list[float]]:
    """A fingerprint of every parameter's gradient: its norm, and its product with the vector cos(0), cos(1) ..."""
    prints = {}
    for name, parameter in sorted(model.named_parameters()):
        gradient = parameter.grad.double().flatten() if parameter.grad is not None else torch.zeros(1).double()
        wave = torch.arange(gradient.numel(), dtype=torch.float64).cos()
        prints[name] = [float(gradient.norm()), float(gradient @ wave)]
    return prints

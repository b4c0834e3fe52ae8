"""GGUF in and out, on SmolLM2-135M-Instruct and Qwen2.5-Coder-0.5B-Instruct: tokens and greedy text are llama.cpp's."""

import unicodedata
from pathlib import Path

import gguf
import pytest
import torch
from transformers import AutoTokenizer

from smolt.data import Turn
from smolt.models.forward.precision import choose_precision
from smolt.models.gguf.reader import import_gguf
from smolt.models.gguf.writer import export_gguf
from smolt.models.groups import from_answers
from smolt.models.rendering import load_renderer
from smolt.models.sampling import Drawing, sample
from smolt.models.saving import load_policy
from tests.gguf_files import LlamaCpp, texts, write_gguf
from tests.real import QWEN, SMOLLM2, real_model

pytestmark = pytest.mark.slow
TIE = 0.1
"""Nats between two tokens that fp16 sums may put in either order."""

PROMPTS = [
    *("The capital of France is", "Once upon a time", "def add(a, b):", "The three states of matter are", "2 + 2 ="),
    *(
        "Dear Sir or Madam,",
        "In 1969, humans",
        "The opposite of hot is",
        "A recipe for pancakes:",
        "import numpy as np",
    ),
    *("Water boils at", "My favourite season is", "The Pythagorean theorem", "Roses are red,", "To be or not to be,"),
    *("The largest planet is", "for i in range(10):", "She opened the door and", "The sum of 12 and 30 is", "Paris is"),
]


def file_of(name: str) -> Path:
    """The GGUF file a real model's directory was made of; it lies beside it."""
    return next(real_model(name).parent.glob("SmolLM2*.gguf" if name == SMOLLM2 else "qwen*.gguf"))


@pytest.mark.parametrize("name", [SMOLLM2, QWEN])
def test_token_ids_of_500_texts(name: str, tmp_path: Path) -> None:
    """Qwen's own tokenizer composes letters and accents first (NFC), llama.cpp does not: the texts are composed."""
    file = file_of(name)
    import_gguf(file, tmp_path / "in")
    ours, theirs = AutoTokenizer.from_pretrained(tmp_path / "in"), LlamaCpp(file)
    assert ours("\n\n12", add_special_tokens=False)["input_ids"] == theirs.tokens("\n\n12")
    for text in texts(500):
        text = unicodedata.normalize("NFC", text)
        assert ours(text, add_special_tokens=False)["input_ids"] == theirs.tokens(text), text


def alike(directory: Path, file: Path) -> int:
    """How many of PROMPTS smolt's sampler and llama.cpp continue with the same 32 greedy tokens.

    The others part at two tokens nearer than TIE nats.
    """
    tokenizer, theirs = AutoTokenizer.from_pretrained(directory), LlamaCpp(file)
    policy = load_policy(str(directory), choose_precision("cpu", "fp32"))
    contexts = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in PROMPTS]
    drawn = sample(policy, contexts, 1, Drawing(32, 0.0, 20, frozenset({tokenizer.eos_token_id})), (0,))
    equal = 0
    for context, answer in zip(contexts, drawn.answers, strict=True):
        ours, found = answer.tolist(), theirs.greedy(context, 32)
        ours = [token for token in ours if token != tokenizer.eos_token_id]
        same = next((place for place, (a, b) in enumerate(zip(ours, found, strict=False)) if a != b), None)
        if same is None:
            equal += 1
            continue
        rivals = [[*ours[:same], ours[same]], [*ours[:same], found[same]]]
        with torch.no_grad():
            last = policy(from_answers([context], [rivals]))[0][:, same]
        assert float(last[0] - last[1]) < TIE, (tokenizer.decode(context), rivals)
    return equal


def test_greedy_text_of_an_f16_file(tmp_path: Path) -> None:
    """32 tokens on 20 prompts: equal, or they part at two tokens nearer than a tenth of a nat; most are equal."""
    file = write_gguf(real_model(SMOLLM2), tmp_path / "f16.gguf", gguf.GGMLQuantizationType.F16, pre="smollm")
    import_gguf(file, tmp_path / "in")
    equal = alike(tmp_path / "in", file)
    assert equal >= 15, equal


@pytest.mark.parametrize("name", [SMOLLM2, QWEN])
def test_greedy_text_of_an_exported_f32_file(name: str, tmp_path: Path) -> None:
    """32 tokens on 20 prompts are smolt's own; a chat's token ids and those of 500 texts are the model's."""
    own, file = real_model(name), tmp_path / "f32.gguf"
    facts = export_gguf(str(own), file, "f32")
    assert facts["pre_tokenizer"] == ("smollm" if name == SMOLLM2 else "qwen2")
    renderer, theirs = load_renderer(own), LlamaCpp(file)
    for text in texts(500):
        text = unicodedata.normalize("NFC", text)
        assert theirs.tokens(text) == renderer.tokenizer(text, add_special_tokens=False)["input_ids"], text
    asked = Turn("user", "What is 3 + 4?")
    assert theirs.context(asked) == renderer.context((asked,))
    del theirs
    assert alike(own, file) == len(PROMPTS)

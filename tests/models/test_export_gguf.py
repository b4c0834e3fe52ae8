"""GGUF out: read back to the bit by transformers and smolt, run by llama.cpp with the same tokens and the same text."""

import logging
import resource
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from typer.testing import CliRunner

from smolt.cli import app
from smolt.data import Turn
from smolt.errors import UserError
from smolt.models.gguf.reader import import_gguf
from smolt.models.gguf.writer import export_gguf
from smolt.models.rendering import Renderer, load_renderer, train_tokenizer
from tests import tokenizers_on_the_spot as made
from tests.gguf_files import LlamaCpp, stored_as, texts
from tests.tiny import tiny_model, tiny_tokenizer

TIE = 0.02
"""Nats between two tokens that sums in another order may put either way."""

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
GROUPED: dict[str, Any] = {**SHAPE, "num_key_value_heads": 2}
SLIDING = ["sliding_attention"]
GEMMA: dict[str, Any] = {**GROUPED, "sliding_window": 16, "head_dim": 16, "query_pre_attn_scalar": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGURATIONS: dict[str, Callable[[int], Any]] = {
    "llama": lambda rows: LlamaConfig(**GROUPED, vocab_size=rows),
    "llama, wide heads": lambda rows: LlamaConfig(**GROUPED, vocab_size=rows, head_dim=12),
    "llama, untied": lambda rows: LlamaConfig(**GROUPED | {"tie_word_embeddings": False}, vocab_size=rows),
    "mistral": lambda rows: MistralConfig(**GROUPED, vocab_size=rows, sliding_window=None),
    "qwen2": lambda rows: Qwen2Config(**GROUPED, vocab_size=rows),
    "qwen3": lambda rows: Qwen3Config(**GROUPED, vocab_size=rows, head_dim=128),
    "gpt2": lambda rows: GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=rows),
    "gemma3_text": lambda rows: Gemma3TextConfig(
        **GEMMA | {"num_hidden_layers": 7, "head_dim": 256, "query_pre_attn_scalar": 256}, vocab_size=rows
    ),
    # Of the rest transformers does not read everything: biases, scales, heads or positions that are not its defaults.
    "llama, biases": lambda rows: LlamaConfig(**GROUPED, vocab_size=rows, attention_bias=True, mlp_bias=True),
    "llama, llama3 positions": lambda rows: LlamaConfig(**GROUPED, vocab_size=rows, rope_parameters=LLAMA3),
    "llama, linear positions": lambda rows: LlamaConfig(
        **GROUPED, vocab_size=rows, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    ),
    "qwen3, narrow heads": lambda rows: Qwen3Config(**GROUPED, vocab_size=rows, head_dim=8),
    "gpt2, 256 positions": lambda rows: GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=rows, n_positions=256),
    "gpt_neox": lambda rows: GPTNeoXConfig(**SHAPE, vocab_size=rows, hidden_act="gelu_new"),
    "gpt_neox, one after the other": lambda rows: GPTNeoXConfig(
        **SHAPE, vocab_size=rows, hidden_act="gelu", use_parallel_residual=False
    ),
    "gemma3_text, every second, positions of its own": lambda rows: Gemma3TextConfig(
        **GEMMA,
        vocab_size=rows,
        layer_types=[*SLIDING, "full_attention"],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 8.0},
        },
    ),
}
READ_BACK = list(CONFIGURATIONS)[:8]


def model(out: Path, name: str = "llama", tokenizer: PreTrainedTokenizerFast | None = None, **more: Any) -> Path:
    """A random model directory; norms differ from 1 by what fp32 holds of 1 + it."""
    tokenizer = tokenizer or tiny_tokenizer()
    config = CONFIGURATIONS[name](len(tokenizer) + 3)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    for field, value in more.items():
        setattr(config, field, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in sorted(network.named_parameters()):
            noise = torch.randn(parameter.shape, generator=draw)
            parameter.add_((0.1 * noise * 1024).round() / 1024 if parameter.dim() == 1 else 0.2 * noise)
    network.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def network(folder: Path, **read: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **read).eval()


def logits(one: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = one(torch.tensor([ids])).logits[0]
    return found


def greedy(one: Any, ids: list[int], tokens: int, stops: set[int]) -> list[int]:
    """The likeliest continuation by transformers, without the stop token."""
    given = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": sorted(stops), "pad_token_id": 0}
    found = one.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **given)[0, len(ids) :].tolist()
    return [token for token in found if token not in stops]


def parts_at_a_tie(one: Any, ids: list[int], ours: list[int], theirs: list[int]) -> bool:
    """Whether two continuations are equal, or part where the model has the two next tokens equally likely."""
    at = next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if at is None:
        return True
    rivals = logits(one, [*ids, *ours[:at]])[-1][[ours[at], theirs[at]]]
    return float(rivals[0] - rivals[1]) < TIE


@pytest.mark.parametrize("name", READ_BACK)
def test_transformers_reads_back_the_same_logits(name: str, tmp_path: Path) -> None:
    """f32, 100 tokens: the largest difference of a logit is 0.0."""
    own = model(tmp_path / "model", name)
    facts = export_gguf(str(own), tmp_path / "m.gguf", "f32")
    ids = torch.randint(0, 266, (100,), generator=torch.Generator().manual_seed(1)).tolist()
    found, wanted = logits(network(tmp_path, gguf_file="m.gguf"), ids), logits(network(own), ids)
    assert float((found - wanted).abs().max()) == 0.0
    assert facts["tensors"].keys() == {"F32"}
    names = [tensor.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors]
    assert ("output.weight" in names) == ("untied" in name)


@pytest.mark.parametrize("name", ["llama, llama3 positions", "llama, linear positions"])
def test_positions_come_back(name: str, tmp_path: Path) -> None:
    """transformers alone reads neither, its logits are off by more than 0.01; imported, the difference is 0.0."""
    own = model(tmp_path / "model", name)
    export_gguf(str(own), tmp_path / "m.gguf", "f32")
    import_gguf(tmp_path / "m.gguf", tmp_path / "in")
    ids = torch.randint(0, 266, (100,), generator=torch.Generator().manual_seed(1)).tolist()
    wanted = logits(network(own), ids)
    assert float((logits(network(tmp_path, gguf_file="m.gguf"), ids) - wanted).abs().max()) > 0.01
    assert float((logits(network(tmp_path / "in"), ids) - wanted).abs().max()) == 0.0


def test_an_import_that_would_be_another_model_is_refused(tmp_path: Path) -> None:
    """Weights and fields that transformers leaves; a stretch of positions that is not known."""
    for number, (name, old, new, message) in enumerate(
        (
            ("llama, biases", b"", b"", "448 of its 24,576 numbers have no place in what transformers makes of it"),
            (
                "gemma3_text, every second, positions of its own",
                b"",
                b"",
                "sliding_window_pattern is 2, but .* makes 3",
            ),
            ("llama, linear positions", b"linear", b"yarned", "its positions are stretched by 'yarned'"),
        )
    ):
        file = tmp_path / f"{number}.gguf"
        export_gguf(str(model(tmp_path / str(number), name)), file, "f32")
        file.write_bytes(file.read_bytes().replace(old, new) if old else file.read_bytes())
        with pytest.raises(UserError, match=message):
            import_gguf(file, tmp_path / "in")
    assert not (tmp_path / "in").exists()


def furthest(one: Any, theirs: LlamaCpp, ids: list[int]) -> list[float]:
    """The largest difference of a log-probability of llama.cpp's 20 likeliest next tokens, where it gives any."""
    wanted = torch.log_softmax(logits(one, ids)[-1], -1)
    apart = [abs(float(wanted[token]) - found) for token, found in theirs.logprobs(ids, 20).items()]
    return [max(apart)] if apart else []


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_llama_cpp_computes_the_same(name: str, tmp_path: Path) -> None:
    """f32, 12 prompts of up to 150 tokens: the next token's log-probabilities are equal to 2e-5, to 3e-3 with GELU.

    (llama.cpp takes GELU from a table in fp16.) 32 greedy tokens are transformers', or part at a tie; 11 are equal.
    """
    own = model(tmp_path / "model", name)
    export_gguf(str(own), tmp_path / "m.gguf", "f32")
    renderer, one, theirs = load_renderer(own), network(own), LlamaCpp(tmp_path / "m.gguf")
    equal, stops = 0, {*renderer.stop_ids, 0}  # llama.cpp stops at <|endoftext|> by its name
    apart: list[float] = []
    for text in texts(12):
        ids = renderer.tokenizer(text * 3, add_special_tokens=False)["input_ids"][:150]
        apart += furthest(one, theirs, ids)
        ours, found = greedy(one, ids, 32, stops), [token for token in theirs.greedy(ids, 32) if token not in stops]
        assert parts_at_a_tie(one, ids, ours, found), text
        equal += ours == found
    assert equal >= 11, equal
    assert max(apart) < (3e-3 if name.startswith("g") else 2e-5)


def own_tokenizer(digits: bool) -> Callable[[], PreTrainedTokenizerFast]:
    return lambda: train_tokenizer([made.TEXT], vocab=400, digits=digits)


def begun_twice() -> PreTrainedTokenizerFast:
    """As Llama 3's: the tokenizer begins a text with bos, and so does the template; it must stand there once."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer.chat_template = "{{ bos_token }}" + str(tokenizer.chat_template)
    return tokenizer


TOKENIZERS: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], str]] = {
    "ChatML": (made.smollm, "gpt-2"),
    "an added token that is not special": (made.qwen, "gpt-2"),
    "smolt's own": (own_tokenizer(digits=False), "gpt-2"),
    "smolt's own, digits apart": (own_tokenizer(digits=True), "smollm"),
    "bos by tokenizer and template": (begun_twice, "gpt-2"),
    "SentencePiece": (made.llama2, "default"),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_token_ids_are_those_of_the_model(kind: str, tmp_path: Path) -> None:
    """300 texts and a chat: smolt's import and llama.cpp give the ids of the model's own tokenizer and renderer."""
    make, pre = TOKENIZERS[kind]
    own = model(tmp_path / "model", tokenizer=make())
    facts = export_gguf(str(own), tmp_path / "m.gguf", "f32")
    import_gguf(tmp_path / "m.gguf", tmp_path / "in")
    first, again, theirs = load_renderer(own), load_renderer(tmp_path / "in"), LlamaCpp(tmp_path / "m.gguf")
    assert (facts["pre_tokenizer"], facts["notes"]) == (pre, [])
    for text in texts(300):
        ids = first.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert theirs.tokens(text) == ids, text
        assert again.tokenizer(text, add_special_tokens=False)["input_ids"] == ids, text
    asked = Turn("user", "Hi, 12?")
    assert theirs.context(asked) == again.context((asked,)) == first.context((asked,))
    assert again.stop_ids == first.stop_ids
    written = dict(network(own).named_parameters())
    found = dict(network(tmp_path / "in").named_parameters())
    assert written.keys() == found.keys() and all(torch.equal(found[name], written[name]) for name in written)


@pytest.mark.parametrize("style", ["plain", "question", "dialogue"])
@pytest.mark.parametrize("make", [made.smollm, made.metaspace])
def test_a_chat_without_a_template_asks_as_training_did(
    style: str, make: Callable[[], PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    """The file gets a template of the style: llama.cpp's contexts of one turn and of several are the renderer's."""
    tokenizer = make()
    own = model(tmp_path / "model", tokenizer=tokenizer)
    Renderer(tokenizer, style=style).save(own)
    export_gguf(str(own), tmp_path / "m.gguf", "f32")
    renderer, theirs = load_renderer(own), LlamaCpp(tmp_path / "m.gguf")
    assert (renderer.style, renderer.template) == (style, None)
    asked, told = Turn("user", "Hi, 12?"), Turn("assistant", "Ho.")
    for turns in ((asked,), (asked, told, asked))[: 1 if style == "plain" else 2]:
        assert theirs.context(*turns) == renderer.context(turns)


def test_text_that_qwen_composes(tmp_path: Path) -> None:
    """Qwen's tokenizer composes letters first and llama.cpp does not: said, and equal for composed text."""
    own = model(tmp_path / "model", "qwen2")
    facts = export_gguf(str(own), tmp_path / "m.gguf")
    assert facts["pre_tokenizer"] == "qwen2"
    assert [note for note in facts["notes"] if "NFC" in note] == facts["notes"] != []
    tokenizer, theirs = load_renderer(own).tokenizer, LlamaCpp(tmp_path / "m.gguf")
    for text in (unicodedata.normalize("NFC", text) for text in texts(300)):
        assert theirs.tokens(text) == tokenizer(text, add_special_tokens=False)["input_ids"], text


def test_a_space_that_only_the_tokenizer_puts(tmp_path: Path) -> None:
    """Metaspace puts none before a text that begins with one: said, and equal for the others."""
    own = model(tmp_path / "model", tokenizer=made.metaspace())
    assert "puts a space before a text that begins with none" in export_gguf(str(own), tmp_path / "m.gguf")["notes"][0]
    renderer, theirs = load_renderer(own), LlamaCpp(tmp_path / "m.gguf")
    for text in texts(300):
        ids = renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert theirs.tokens(text) == ids or text.startswith(" "), text
    asked = Turn("user", "Hi, 12?")
    assert theirs.context(asked) == renderer.context((asked,))


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_matrices_are_stored_as_asked(kind: str, tmp_path: Path) -> None:
    """Each is rounded once; vectors stay f32, rows that blocks of 32 do not fit f16 (the 48 of ffn_down)."""
    own = model(tmp_path / "model")
    facts = export_gguf(str(own), tmp_path / "m.gguf", kind)
    plain = export_gguf(str(own), tmp_path / "f32.gguf", "f32")
    exact = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "f32.gguf").tensors}
    wanted = gguf.GGMLQuantizationType[kind.upper()]
    for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors:
        values = np.asarray(exact[tensor.name].data)
        held = stored_as(values, wanted)
        assert tensor.tensor_type == held, tensor.name
        assert np.array_equal(tensor.data, gguf.quants.quantize(values, held)), tensor.name
    counts = {"f16": {"F16": 15}, "bf16": {"BF16": 15}, "q8_0": {"F16": 2, "Q8_0": 13}}
    assert facts["tensors"] == {"F32": 5, **counts[kind]}
    assert facts["parameters"] == plain["parameters"] and facts["bytes"] < plain["bytes"]
    ids = list(range(60))
    apart = logits(network(tmp_path, gguf_file="m.gguf"), ids) - logits(network(own), ids)
    spread = float(logits(network(own), ids).std())
    assert 0 < float(apart.square().mean().sqrt()) / spread < {"f16": 0.002, "bf16": 0.02, "q8_0": 0.04}[kind]


def test_q8_0_in_llama_cpp(tmp_path: Path) -> None:
    """The 20 likeliest tokens after 12 prompts: log-probabilities differ by at most 0.2 nats from the model's own."""
    own = model(tmp_path / "model")
    export_gguf(str(own), tmp_path / "m.gguf", "q8_0")
    one, theirs, tokenizer = network(own), LlamaCpp(tmp_path / "m.gguf"), tiny_tokenizer()
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts(12)]
    apart = [found for ids in prompts for found in furthest(one, theirs, ids)]
    assert len(apart) >= 6 and max(apart) < 0.2


def test_the_weights_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One step for all of them, with how far it has come."""
    caplog.set_level(logging.DEBUG, logger="smolt")
    export_gguf(str(model(tmp_path / "model")), tmp_path / "m.gguf")
    at = caplog.messages.index("writing the weights of m.gguf as f16")
    assert caplog.messages[at + 1 :] == [f"{done} of 20" for done in range(1, 21)]


def test_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends the writing leaves nothing behind, and an earlier file where it was."""
    own = model(tmp_path / "model")
    out = tmp_path / "out"
    out.mkdir()
    export_gguf(str(own), out / "m.gguf")
    before = (out / "m.gguf").read_bytes()
    whole = gguf.GGUFWriter.write_tensor_data

    def full(self: Any, tensor: Any, **given: Any) -> None:
        if tensor.size > 1500:
            raise OSError(28, "No space left on device")
        whole(self, tensor, **given)

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    done = CliRunner().invoke(app, ["export", str(own), "--gguf", "--out", str(out / "m.gguf"), "--fresh"])
    assert done.exit_code == 74
    assert [file.name for file in out.iterdir()] == ["m.gguf"]
    assert (out / "m.gguf").read_bytes() == before
    monkeypatch.undo()
    assert export_gguf(str(own), out / "m.gguf", fresh=True)["bytes"] == len(before)
    assert sorted(file.name for file in out.iterdir()) == ["m.gguf", "m.gguf.old-1"]


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """Files may grow to 60,000 bytes of the 102,000 that are needed: exit code 74, and nothing is left."""
    own = model(tmp_path / "model")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        done = CliRunner().invoke(
            app, ["export", str(own), "--gguf", "--type", "f32", "--out", str(tmp_path / "m.gguf")]
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.exit_code == 74 and "writing failed (" in done.stderr and "(None)" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (1e5, "holds 100000, which F16 cannot hold; choose --type bf16 or f32"),
        (float("nan"), "holds nan, which F16 cannot hold: the model is damaged, or its training diverged"),
    ],
)
def test_a_number_that_f16_cannot_hold(number: float, message: str, tmp_path: Path) -> None:
    """Refused by the weight's name; bf16 holds the large one."""
    own = network(tiny_model(tmp_path / "first"))
    with torch.no_grad():
        own.model.layers[1].mlp.down_proj.weight[0, 0] = number
    own.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    words = ["export", str(tmp_path / "model"), "--gguf", "--out", str(tmp_path / "m.gguf")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and f"blk.1.ffn_down.weight: {message}" in done.stderr
    assert not (tmp_path / "m.gguf").exists()
    assert CliRunner().invoke(app, [*words, "--type", "bf16"]).exit_code == (0 if number == 1e5 else 2)

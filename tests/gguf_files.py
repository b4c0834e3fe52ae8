"""GGUF files of tiny models, as llama.cpp's converter writes them, and llama.cpp itself to ask about them."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from smolt.data import Turn
from smolt.data.nouns import as_messages

NORMAL, CONTROL = 1, 3
LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(
    model: Path,
    file: Path,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    pre: str | None = "gpt-2",
    template: bool = True,
    **ids: int,
) -> Path:
    """Write a Llama or Qwen2 directory as GGUF: matrices of the given kind, vectors in fp32.

    Args:
        model: a Hugging Face directory.
        file: where to.
        kind: of the matrices.
        pre: name of the pre-tokenizer; None writes none.
        template: whether the chat template goes with it.
        ids: further token ids, such as eot.
    """
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    config, architecture = network.config, network.config.model_type
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if architecture == "llama":
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    _write_tokenizer(writer, tokenizer, config.vocab_size, pre, template, ids)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, weight in network.named_parameters():
        place = _name(name)
        values = weight.detach().float().numpy()
        own = place.split(".")[-2]
        if architecture == "llama" and own in heads:
            values = _interleaved(values, heads[own])
        held = stored_as(values, kind)
        writer.add_tensor(place, gguf.quants.quantize(values, held), raw_dtype=held)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def stored_as(values: np.ndarray[Any, Any], kind: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    """Vectors stay fp32; rows that blocks of 32 do not fit are fp16, as llama.cpp's converter has them."""
    if values.ndim == 1:
        return gguf.GGMLQuantizationType.F32
    blocks = kind is gguf.GGMLQuantizationType.Q8_0 and values.shape[-1] % 32
    return gguf.GGMLQuantizationType.F16 if blocks else kind


def _write_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: Any, size: int, pre: str | None, template: bool, ids: dict[str, int]
) -> None:
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    pieces = {index: piece for piece, index in tokenizer.get_vocab().items()}
    controls = {added["id"] for added in described["added_tokens"] if added["special"]}
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list([pieces.get(index, f"[PAD{index}]") for index in range(size)])
    writer.add_token_types([CONTROL if index in controls else NORMAL for index in range(size)])
    writer.add_token_merges([" ".join(pair) for pair in described["model"]["merges"]])
    roles = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "padding": tokenizer.pad_token_id}
    for role, index in {**roles, **ids}.items():
        if index is not None:
            writer.add_uint32(f"tokenizer.ggml.{role}_token_id", index)
    writer.add_add_bos_token(False)
    if template and tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _name(name: str) -> str:
    module, _, kind = name.rpartition(".")
    if module in WHOLE:
        return f"{WHOLE[module]}.{kind}"
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{LAYER[rest]}.{kind}"


def _interleaved(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of a rotated projection in llama.cpp's order: pairs side by side instead of halves one after the other."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


class LlamaCpp:
    """llama.cpp with one file, one thread, keys and values in fp32; skips with a reason where it cannot be had."""

    def __init__(self, file: Path) -> None:
        engine = pytest.importorskip("xllamacpp", reason="llama.cpp (xllamacpp) is not installed")
        parameters = engine.CommonParams()
        parameters.model.path = str(file)
        parameters.n_ctx, parameters.n_parallel, parameters.warmup = 512, 1, False
        parameters.cpuparams.n_threads = 1
        parameters.cache_type_k = parameters.cache_type_v = engine.ggml_type.GGML_TYPE_F32
        parameters.flash_attn_type = engine.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = engine.Server(parameters)

    def ask(self, place: str, **body: Any) -> dict[str, Any]:
        """The reply to one request."""
        request = urllib.request.Request(
            f"{self.server.listening_address}/{place}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            found: dict[str, Any] = json.loads(reply.read())
        return found

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, control tokens read as such."""
        found: list[int] = self.ask("tokenize", content=text, add_special=False, parse_special=True)["tokens"]
        return found

    def greedy(self, ids: list[int], tokens: int) -> list[int]:
        """The likeliest continuation."""
        given = {"prompt": ids, "n_predict": tokens, "temperature": 0, "return_tokens": True, "cache_prompt": False}
        found: list[int] = self.ask("completion", **given)["tokens"]
        return found

    def logprobs(self, ids: list[int], number: int) -> dict[int, float]:
        """Log-probabilities of the likeliest next tokens; none where the very likeliest is no whole character."""
        given = {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": number, "cache_prompt": False}
        found = self.ask("completion", **given, ignore_eos=True).get("completion_probabilities", [{"top_logprobs": []}])
        return {entry["id"]: entry["logprob"] for entry in found[0]["top_logprobs"]}

    def context(self, *turns: Turn) -> list[int]:
        """Token ids of a dialogue, by the file's own template."""
        text = self.ask("apply-template", messages=as_messages(turns))["prompt"]
        found: list[int] = self.ask("tokenize", content=text, add_special=True, parse_special=True)["tokens"]
        return found


PARTS = (
    *("12", "3.14", "1,000", "2024", "0007", "x", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", " \n", "\n ", "\r\n"),
    *("def f(x):\n    return x**2\n", "for i in range(10):", "if (a != b) { c += 1; }", "snake_case", "CamelCase"),
    *("<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n", "<|endoftext|>", "<|im", "|>"),
    *("Hello", "world", "don't", "I'll", "WE'VE", "'s", "...", "!?", "$9,500", "50%", "(1+2)*3=9", "# Title", "- item"),
    *("été", "naïve", "你好", "да", "—", "“quoted”", "```python\n", "½", "٣٤", "http://a.b/c?d=1"),
)


def texts(number: int) -> list[str]:
    """Texts with digits, runs of blanks and newlines, code and chat markup; the same ones each time."""
    generator = np.random.default_rng(0)
    return ["".join(str(generator.choice(PARTS)) for _ in range(int(generator.integers(1, 15)))) for _ in range(number)]

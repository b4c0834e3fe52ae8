#!/usr/bin/env bash
# transformers 5.23.0, llama.cpp (xllamacpp 2026.10.11549): a GGUF file names its tokenizer's pre-tokenizer (tokenizer.ggml.pre),
# and has no word for its normalizer. Qwen2's and Qwen3's tokenizers compose letters first (NFC); under the name "qwen2"
# llama.cpp composes nothing. One might guess that equal vocabulary, merges and pre-tokenizer give equal tokens. A letter
# written as base and accent (as macOS file names and some keyboards and scanned texts have it) is one token in training
# and several in llama.cpp, and the model reads a spelling that it was never trained on.
#
# Seen: U+00E9 is 1 token for both; e + U+0301 is 1 token for Qwen2Tokenizer, 3 for llama.cpp (and for the same tokenizer
# without its normalizer).
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check xllamacpp==2026.10.11549 gguf==0.19.0 tokenizers==0.23.3 \
  transformers==5.23.0 numpy 2>"$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
cat >"$folder/compare.py" <<'P'
import json
import sys
import urllib.request

import gguf
import numpy as np
import xllamacpp
from tokenizers import normalizers, pre_tokenizers
from transformers import Qwen2Tokenizer

composed, apart = "\u00e9", "e\u0301"

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
pair = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(composed)[0][0]
tokens = [*letters, pair, "<|endoftext|>"]
vocabulary, merges = {token: number for number, token in enumerate(tokens)}, [(pair[0], pair[1])]


own = Qwen2Tokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
bare = Qwen2Tokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
bare.normalizer = normalizers.Sequence([])

width, file, end = 32, sys.argv[1], len(tokens) - 1
writer = gguf.GGUFWriter(file, "llama")
for add, value in (
    (writer.add_context_length, 64),
    (writer.add_embedding_length, width),
    (writer.add_block_count, 1),
    (writer.add_feed_forward_length, width),
    (writer.add_head_count, 1),
    (writer.add_head_count_kv, 1),
    (writer.add_layer_norm_rms_eps, 1e-5),
    (writer.add_rope_dimension_count, width),
    (writer.add_vocab_size, len(tokens)),
    (writer.add_tokenizer_model, "gpt2"),
    (writer.add_tokenizer_pre, "qwen2"),
    (writer.add_token_list, tokens),
    (writer.add_token_types, [1] * end + [3]),
    (writer.add_token_merges, [" ".join(merge) for merge in merges]),
    (writer.add_eos_token_id, end),
    (writer.add_add_bos_token, False),
):
    add(value)
square = np.eye(width, dtype=np.float32)
for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
    writer.add_tensor(f"blk.0.{name}.weight", square)
for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
    writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
writer.add_tensor("token_embd.weight", np.ones((len(tokens), width), dtype=np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.n_ctx, parameters.n_parallel, parameters.warmup = file, 64, 1, False
server = xllamacpp.Server(parameters)


def served(text):
    body = json.dumps({"content": text, "add_special": False}).encode()
    asked = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as reply:
        return json.load(reply)["tokens"]


for name, text in (("U+00E9", composed), ("e + U+0301", apart)):
    trained, plain = (made.encode(text).ids for made in (own, bare))
    print(f"{name}: Qwen2's {len(trained)}, without its normalizer {len(plain)}, llama.cpp {len(served(text))}", flush=True)
    assert served(text) == plain, "llama.cpp normalises now"
    assert (trained == plain) == (text == composed)
P
"$folder/venv/bin/python" "$folder/compare.py" "$folder/tiny.gguf" 2>"$folder/log" || { tail -5 "$folder/log"; echo "the behaviour has changed"; exit 1; }

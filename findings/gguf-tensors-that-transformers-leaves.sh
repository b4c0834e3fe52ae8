#!/usr/bin/env bash
# transformers 5.23.0, llama.cpp (xllamacpp 2026.10.11549): from_pretrained(gguf_file=...) takes from a GGUF file what its table
# of names knows (integrations.ggml.GGUF_CONFIG_MAPPING; load_gguf_checkpoint goes on past every other tensor). For Llama
# the stretch of positions (rope_freqs.weight, which every Llama 3.1 and 3.2 has; rope.scaling.*) and attention biases are
# not in it. A guess would be that a file is one model whoever opens it, or that leftover weights are named as they are
# for safetensors. Here four files are one model to transformers and four to llama.cpp, and nothing is said.
#
# Seen, the likeliest next token after 64 tokens and its log-probability:
#   plain                     transformers (5, -0.13)  llama.cpp (5, -0.13)
#   rope_freqs.weight of 8    transformers (5, -0.13)  llama.cpp (72, -0.26)
#   rope.scaling.factor of 8  transformers (5, -0.13)  llama.cpp (72, -0.26)
#   biases                    transformers (5, -0.13)  llama.cpp (72, -0.09)
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check xllamacpp==2026.10.11549 gguf==0.19.0 transformers==5.23.0 accelerate==1.15.0 torch==2.13.0 numpy \
  2>"$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
cat >"$folder/compare.py" <<'P'
import json
import sys
import urllib.request

import gguf
import numpy as np
import torch
import xllamacpp
from transformers import AutoModelForCausalLM

folder, width = sys.argv[1], 32
tokens = [chr(code) for code in range(33, 127)]
ids, end = list(range(20, 84)), len(tokens) - 1


def write(file, factors=None, stretch=None, bias=None):
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(file, "llama")
    for add, value in (
        (writer.add_context_length, 256),
        (writer.add_embedding_length, width),
        (writer.add_block_count, 1),
        (writer.add_feed_forward_length, width),
        (writer.add_head_count, 1),
        (writer.add_head_count_kv, 1),
        (writer.add_layer_norm_rms_eps, 1e-5),
        (writer.add_rope_dimension_count, width),
        (writer.add_vocab_size, len(tokens)),
        (writer.add_tokenizer_model, "gpt2"),
        (writer.add_tokenizer_pre, "gpt-2"),
        (writer.add_token_list, tokens),
        (writer.add_token_types, [1] * len(tokens)),
        (writer.add_token_merges, ["a b"]),
        (writer.add_eos_token_id, end),
    ):
        add(value)
    if stretch:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(stretch)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", draw.normal(0, 0.3, (width, width)).astype(np.float32))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
    writer.add_tensor("token_embd.weight", draw.normal(0, 1, (len(tokens), width)).astype(np.float32))
    if factors:
        writer.add_tensor("rope_freqs.weight", np.full(width // 2, factors, dtype=np.float32))
    for name in ("attn_q", "attn_k", "attn_v") if bias else ():
        writer.add_tensor(f"blk.0.{name}.bias", draw.normal(0, bias, width).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def by_transformers(name):
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    with torch.no_grad():
        best = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1).max(-1)
    return best.indices.item(), round(best.values.item(), 2)


def by_llama_cpp(name):
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.n_parallel, parameters.warmup = f"{folder}/{name}", 128, 1, False
    server = xllamacpp.Server(parameters)
    body = {"prompt": ids, "n_predict": 1, "n_probs": 1, "temperature": 0, "logit_bias": [[end, False]]}
    request = urllib.request.Request(
        f"{server.listening_address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        best = json.load(reply)["completion_probabilities"][0]["top_logprobs"][0]
    return best["id"], round(best["logprob"], 2)


seen = []
for name, more in (
    ("plain", {}),
    ("rope_freqs.weight of 8", {"factors": 8.0}),
    ("rope.scaling.factor of 8", {"stretch": 8.0}),
    ("biases", {"bias": 1.0}),
):
    write(f"{folder}/{name}.gguf", **more)
    seen.append((by_transformers(f"{name}.gguf"), by_llama_cpp(f"{name}.gguf")))
    print(f"{name:25} transformers {seen[-1][0]}  llama.cpp {seen[-1][1]}", flush=True)
(plain, same), *others = seen
assert plain[0] == same[0] and abs(plain[1] - same[1]) < 0.02, "the two differ on the plain file"
assert all(one == plain and other[0] != plain[0] for one, other in others), "the behaviour has changed"
P
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore "$folder/compare.py" "$folder" 2>"$folder/log" ||
  { tail -5 "$folder/log"; echo "the behaviour has changed"; exit 1; }

#!/usr/bin/env bash
# llama.cpp (xllamacpp 2026.10.11549): a GGUF file need not name an end token, and a model trained from scratch on plain text
# has none. For a byte-level vocabulary llama.cpp then takes token 11, a number left over from Falcon
# (llama_vocab::impl::load, "default special tokens"); it does so for the beginning of a text too. Token 11 is "," in the
# vocabularies of GPT-2, Llama 3 and Qwen2, and in what the tokenizers library trains. A guess would be that without an end
# token a text ends at n_predict. It ends at the first comma, with the reason "eos", and where a beginning is asked for every
# prompt starts with a comma that nobody wrote.
#
# Seen, a model that always writes ",":
#   no end token: text ',', ended by eos; prompts begin with ','
#   end token 255: text ',,,,,', ended by limit; prompts begin with ','
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check xllamacpp==2026.10.11549 gguf==0.19.0 tokenizers==0.23.3 numpy \
  2>"$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
cat >"$folder/comma.py" <<'P'
import json
import sys
import urllib.request

import gguf
import numpy as np
import xllamacpp
from tokenizers import ByteLevelBPETokenizer

trained = ByteLevelBPETokenizer()
trained.train_from_iterator(["a text of words, and of commas"] * 2, vocab_size=256, show_progress=False)
tokens = [trained.id_to_token(number) for number in range(256)]


def write(file, end):
    width, writer = 32, gguf.GGUFWriter(file, "llama")
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
        (writer.add_tokenizer_pre, "gpt-2"),
        (writer.add_token_list, tokens),
        (writer.add_token_types, [1] * len(tokens)),
        (writer.add_token_merges, ["a b"]),
        (writer.add_add_bos_token, True),
    ):
        add(value)
    if end is not None:
        writer.add_eos_token_id(end)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((width, width), dtype=np.float32))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
    writer.add_tensor("token_embd.weight", np.ones((len(tokens), width), dtype=np.float32))
    head = np.zeros((len(tokens), width), dtype=np.float32)
    head[tokens.index(",")] = 1
    writer.add_tensor("output.weight", head)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def asked(server, place, **body):
    request = urllib.request.Request(
        f"{server.listening_address}/{place}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


seen = []
for name, end in (("no end token", None), ("end token 255", 255)):
    file = f"{sys.argv[1]}/{end}.gguf"
    write(file, end)
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.n_parallel, parameters.warmup = file, 64, 1, False
    server = xllamacpp.Server(parameters)
    found = asked(server, "completion", prompt="words", n_predict=5, temperature=0)
    start = asked(server, "tokenize", content="w", add_special=True, with_pieces=True)["tokens"][0]["piece"]
    seen.append((found["content"], found["stop_type"], start))
    print(f"{name}: text {found['content']!r}, ended by {found['stop_type']}; prompts begin with {start!r}", flush=True)
assert seen == [(",", "eos", ","), (",,,,,", "limit", ",")], "the behaviour has changed"
P
"$folder/venv/bin/python" "$folder/comma.py" "$folder" 2>"$folder/log" || { tail -5 "$folder/log"; echo "the behaviour has changed"; exit 1; }

#!/usr/bin/env bash
# llama.cpp (xllamacpp 2026.10.11549): asked for the ids of an answer's tokens and for their log-probabilities (return_tokens
# and n_probs of /completion), its server gives all ids and may give fewer log-probabilities. A token after which the text
# ends within a character ("é" is two tokens where bytes are tokens, and so are emojis in larger vocabularies) has none, and
# nothing says which are left out. In /v1/completions, where ids stand beside the log-probabilities only, such tokens are
# missing altogether, while usage counts them. A guess would be one entry for each token. Whoever learns from answers and joins
# the two lists by place gives tokens the log-probability of others.
#
# Seen, a model that writes "ééé":
#   completion: 6 ids, 3 log-probabilities
#   v1/completions: 6 tokens counted, 3 entries
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check xllamacpp==2026.10.11549 gguf==0.19.0 tokenizers==0.23.3 numpy \
  2>"$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
cat >"$folder/accent.py" <<'P'
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


first, second = (tokens.index(letter) for letter in "Ã©")  # the bytes C3 and A9 of "é"


def write(file):
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
    writer.add_eos_token_id(255)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((width, width), dtype=np.float32))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
    embedding = np.zeros((len(tokens), width), dtype=np.float32)
    embedding[:, 2] = 1
    embedding[[first, second]] = np.eye(width, dtype=np.float32)[:2]
    writer.add_tensor("token_embd.weight", embedding)
    head = np.zeros((len(tokens), width), dtype=np.float32)
    head[first, 1:3] = head[second, 0] = 1
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


file = f"{sys.argv[1]}/accents.gguf"
write(file)
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.n_ctx, parameters.n_parallel, parameters.warmup = file, 64, 1, False
server = xllamacpp.Server(parameters)
own = asked(server, "completion", prompt="w", n_predict=6, temperature=0, n_probs=1, return_tokens=True)
openai = asked(server, "v1/completions", prompt="w", max_tokens=6, temperature=0, logprobs=1)
entries = openai["choices"][0]["logprobs"]["content"]
print(f"completion: {len(own['tokens'])} ids, {len(own['completion_probabilities'])} log-probabilities")
print(f"v1/completions: {openai['usage']['completion_tokens']} tokens counted, {len(entries)} entries", flush=True)
assert own["content"] == openai["choices"][0]["text"] == "ééé"
seen = len(own["tokens"]), len(own["completion_probabilities"]), openai["usage"]["completion_tokens"], len(entries)
assert seen == (6, 3, 6, 3), "the behaviour has changed"
P
"$folder/venv/bin/python" "$folder/accent.py" "$folder" 2>"$folder/log" || { tail -5 "$folder/log"; echo "the behaviour has changed"; exit 1; }

#!/usr/bin/env bash
# transformers 5.23.0: a reward model (LlamaForSequenceClassification, one label) whose padding token is its end token,
# as many small models are set up, gives an answer that was cut and the same answer with its end token one score.
# The head reads the last token that is not padding, told by its id and not by attention_mask, so the end token that
# closes an answer is taken for padding and never scored. A guess would be that the two differ, as they do as soon as
# the padding token is another: a reward learned this way cannot prefer answers that end.
#
# Seen:
#   padding is the end token: cut and complete differ by 0.0, with or without an attention mask
#   padding is another token: they differ by 0.03
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 torch==2.13.0 numpy 2>"$folder/pip.log" ||
  { cat "$folder/pip.log"; exit 1; }
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'P'
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

END = 2
shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)


def differences(padding):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=100, pad_token_id=padding, eos_token_id=END, num_labels=1, **shape)
    model = LlamaForSequenceClassification(config).eval()
    cut, complete = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[5, 6, 7, 8, END]])
    with torch.no_grad():
        plain = model(complete).logits - model(cut).logits
        masked = model(complete, attention_mask=torch.ones_like(complete)).logits - model(cut).logits
    return plain.item(), masked.item()


same, other = differences(END), differences(0)
print("padding is the end token:", same)
print("padding is another token:", other)
assert same == (0.0, 0.0) and min(map(abs, other)) > 1e-3, "the behaviour has changed"
P

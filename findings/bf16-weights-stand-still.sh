#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0: from_pretrained without a dtype gives the precision of the file (transformers 4 gave
# fp32), which for today's small models is bf16. AdamW moves a weight by about its learning rate a step; half the gap
# between neighbouring bf16 numbers at 0.02 is 6e-5. At the rates of alignment nearly every weight is rounded back to
# where it was, step after step. A guess would be that small steps add up: the run looks healthy, losses are printed, and
# the model is the one it started from.
#
# Seen, 100 steps, weights equal to the bit afterwards:
#   lr 1e-06  bfloat16 98 %  float32 0 %
#   lr 1e-05  bfloat16 84 %  float32 0 %
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 torch==2.13.0 numpy 2>"$folder/pip.log" ||
  { cat "$folder/pip.log"; exit 1; }
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - "$folder/model" 2>/dev/null <<'P'
import sys

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

shape = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(vocab_size=500, **shape)).to(torch.bfloat16).save_pretrained(sys.argv[1])
ids = torch.randint(0, 500, (4, 32))


def unmoved(rate, **options):
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], **options)
    before = [weight.detach().clone() for weight in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for _ in range(100):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    # the norms' gains start at 1; rows of the embedding that no text uses have no gradient
    pairs = [(a, b) for a, b in zip(model.parameters(), before) if a.ndim == 2 and a.shape[0] != 500]
    same = sum(int((a == b).sum()) for a, b in pairs) / sum(b.numel() for _, b in pairs)
    return str(model.dtype).removeprefix("torch."), same


for rate, at_least in ((1e-6, 0.9), (1e-5, 0.5)):
    (kept, stored), (_, exact) = unmoved(rate), unmoved(rate, dtype=torch.float32)
    print(f"lr {rate}  {kept} {stored:.1%}  float32 {exact:.1%}")
    assert kept == "bfloat16" and stored > at_least and exact < 0.05, "the behaviour has changed"
P

#!/usr/bin/env bash
# peft 0.21.2 with torch 2.13.0: add_weighted_adapter(["first", "second"], [0.5, 0.5], ...), the way to average the LoRA adapters
# of two seeds or of two trainings. A guess would be that the new adapter changes the weights by the average of both changes.
# combination_type="linear" averages the factors instead, (B1 + B2)(A1 + A2) / 2, which adds what one's A says to the other's
# B: for two adapters that have nothing in common the error is as large as the average itself. The default, "svd",
# keeps as many directions as one adapter had, half of what both need. Only "cat", with twice the rank, is the average.
#
# Seen (rank 4, random adapters), the distance from the average as a share of it, and the cosine between both:
#   linear: 1.00 off, cosine 0.69
#   svd: 0.51 off, cosine 0.86
#   cat: 0.00 off, cosine 1.00
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy transformers==5.23.0 peft==0.21.2 \
  2>"$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
"$folder/venv/bin/python" - 2>"$folder/log" <<'P' || { cat "$folder/log"; exit 1; }
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
shape = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=False)
model = get_peft_model(LlamaForCausalLM(shape), lora, adapter_name="first")
model.add_adapter("second", lora)
layer = model.base_model.model.model.layers[0].self_attn.q_proj
average = (layer.get_delta_weight("first") + layer.get_delta_weight("second")).detach() / 2
off = {}
for kind in ("linear", "svd", "cat"):
    model.add_weighted_adapter(["first", "second"], [0.5, 0.5], f"by_{kind}", combination_type=kind)
    change = layer.get_delta_weight(f"by_{kind}").detach()
    off[kind] = float((change - average).norm() / average.norm())
    cosine = float(torch.cosine_similarity(change.flatten(), average.flatten(), 0))
    print(f"{kind}: {off[kind]:.2f} off, cosine {cosine:.2f}")
assert off["linear"] > 0.9 and off["svd"] > 0.4 and off["cat"] < 1e-5, "the behaviour has changed"
P

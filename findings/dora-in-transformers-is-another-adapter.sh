#!/usr/bin/env bash
# transformers 5.23.0, peft 0.21.2: a DoRA adapter that peft saved, opened by transformers (from_pretrained of its directory, or
# load_adapter), comes without its magnitudes: the name in the file is given the adapter's name but not ".weight", which the
# module has (peft.utils.transformers_weight_conversion.build_peft_weight_mapping). The magnitudes of the base stand in.
# A guess would be that both open one adapter alike, as they do for LoRA, rsLoRA, patterns, biases and trained heads, or that
# a trained weight without a place is an error. It is a line in a table on standard error, and the answers are others.
#
# Seen, the largest difference of a logit:
#   LoRA: the adapter itself 0.758; opened by peft off by 0.000, by transformers by 0.000
#   DoRA: the adapter itself 0.654; opened by peft off by 0.000, by transformers by 0.554
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check peft==0.21.2 transformers==5.23.0 torch==2.13.0 numpy 2>"$folder/pip.log" ||
  { cat "$folder/pip.log"; exit 1; }
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - "$folder" 2>/dev/null <<'P'
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

base, saved = f"{sys.argv[1]}/base", f"{sys.argv[1]}/adapter"
shape = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
ids = torch.arange(20)[None]


def logits(model):
    with torch.no_grad():
        return model.eval()(ids).logits


def apart(one, other):
    return (one - other).abs().max().item()


def compared(dora):
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=100, **shape)).save_pretrained(base)
    fresh = AutoModelForCausalLM.from_pretrained(base)
    plain = logits(fresh)
    trained = get_peft_model(fresh, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], use_dora=dora))
    with torch.no_grad():
        for weight in (weight for weight in trained.parameters() if weight.requires_grad):
            weight.add_(0.3 * torch.randn_like(weight))
    wanted = logits(trained)
    trained.save_pretrained(saved)
    by_peft = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), saved))
    by_transformers = logits(AutoModelForCausalLM.from_pretrained(saved))
    return apart(wanted, plain), apart(by_peft, wanted), apart(by_transformers, wanted)


seen = {name: compared(name == "DoRA") for name in ("LoRA", "DoRA")}
for name, (effect, one, other) in seen.items():
    print(f"{name}: the adapter itself {effect:.3f}; opened by peft off by {one:.3f}, by transformers by {other:.3f}")
(_, *lora), (_, peft, other) = seen.values()
assert max(*lora, peft) < 1e-4 and other > 0.1, "the behaviour has changed"
P

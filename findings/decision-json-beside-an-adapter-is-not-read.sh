#!/usr/bin/env bash
# transformers 5.23.0 with peft 0.21.2: pipeline("decision", model=ADAPTER_DIRECTORY) answers with the adapter, but takes the
# decision settings of the base model's directory. A decision.json that lies beside adapter_config.json, where one saves it
# after training, is not read and not mentioned: temperatures that were fitted for the adapter do nothing, and probabilities
# are as sure as before. A guess would be that settings belong to the directory that is named. They have to lie beside the
# base's weights, with the adapter in the subfolder that their field "adapter" names.
#
# Seen (an adapter that changes nothing; temperature 5 for questions of the type noul), the probability of one answer:
#   the base: 0.996
#   the base with decision.json: 0.747
#   the adapter with decision.json beside it: 0.996
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy transformers==5.23.0 peft==0.21.2 \
  2>"$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
cat >"$folder/decide.py" <<'P'
import shutil
import sys

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, pipeline
from transformers.decision import DecisionConfig

folder = sys.argv[1]
words = Tokenizer(models.WordLevel({"<eos>": 0, "<unk>": 1, "Yes": 2, "No": 3}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>")
tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
torch.manual_seed(0)
shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
base = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=4, tie_word_embeddings=False, **shape))
with torch.no_grad():
    base.lm_head.weight.copy_(torch.tensor([[0.0], [0.0], [0.5], [-0.5]]) * base.model.norm.weight.sign())
for name in ("base", "set"):
    base.save_pretrained(f"{folder}/{name}")
    tokenizer.save_pretrained(f"{folder}/{name}")
settings = DecisionConfig(temperature={"noul": 5.0})
settings.save_pretrained(f"{folder}/set")
network = AutoModelForCausalLM.from_pretrained(f"{folder}/base")
get_peft_model(network, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(f"{folder}/adapter")
tokenizer.save_pretrained(f"{folder}/adapter")
settings.save_pretrained(f"{folder}/adapter")
request = {"state": "one two", "questions": {"right": {"type": "noul", "instructions": "Right?"}}}
for name in ("base", "set", "adapter"):
    print(round(pipeline("decision", model=f"{folder}/{name}", dtype=torch.float32)(request)["right"]["noul"], 3))
P
mapfile -t found < <(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/decide.py" "$folder" 2>/dev/null)
echo "the base: ${found[0]}"
echo "the base with decision.json: ${found[1]}"
echo "the adapter with decision.json beside it: ${found[2]}"
[ "${found[0]}" != "${found[1]}" ] && [ "${found[0]}" = "${found[2]}" ] || { echo "the behaviour has changed"; exit 1; }

#!/usr/bin/env bash
# TRL 1.16.0, peft 0.21.2: with an adapter TRL takes "the model with its adapter off" for the reference (trainer.utils.use_adapter).
# LoRA begun as PiSSA or OLoRA moves the main directions of each matrix into the adapter and keeps the remainder as the base
# (peft LoraLayer.pissa_init, olora_init). Adapter off, it is not the base, but the base without its main directions.
# A guess would be: before the first step policy and reference are one model, the loss is ln 2 = 0.6931, every reward 0.
# The policy is the base, to the bit; the reference is not: margins and accuracy look learned, KL is to another model, and
# nothing is said. DPO, KTO and GRPO with a KL term take their reference in the same way.
#
# Seen before any training:
#   True   loss 0.6931, margin 0.000, accuracy 0%, log-probability of chosen -6.596
#   pissa  loss 0.5448, margin 0.323, accuracy 100%, log-probability of chosen -6.596
#   olora  loss 0.7181, margin -0.049, accuracy 0%, log-probability of chosen -6.596
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check trl==1.16.0 peft==0.21.2 transformers==5.23.0 datasets==5.2.0 torch==2.13.0 \
  2>"$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - "$folder" 2>/dev/null <<'P'
import sys
from math import log

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import DPOConfig, DPOTrainer

words = ["<pad>", "</s>", "good", "bad", "question", "answer"]
made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="question"))
made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")
pairs = Dataset.from_dict({"prompt": ["question "] * 4, "chosen": ["good answer"] * 4, "rejected": ["bad answer good"] * 4})
shape = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
quiet = dict(use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], disable_tqdm=True)


def untrained(start):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), initializer_range=0.2, **shape))
    adapter = LoraConfig(r=8, target_modules="all-linear", init_lora_weights=start, task_type="CAUSAL_LM")
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(f"{sys.argv[1]}/run", **quiet),
        train_dataset=pairs,
        eval_dataset=pairs,
        processing_class=tokenizer,
        peft_config=adapter,
    )
    trainer.remove_callback(PrinterCallback)
    found = trainer.evaluate()
    return [found[f"eval_{name}"] for name in ("loss", "rewards/margins", "rewards/accuracies", "logps/chosen")]


seen = {start: untrained(start) for start in (True, "pissa", "olora")}
for start, (loss, margin, accuracy, chosen) in seen.items():
    print(f"{start!s:6} loss {loss:.4f}, margin {margin:.3f}, accuracy {accuracy:.0%}, log-probability of chosen {chosen:.3f}")
plain, pissa, olora = seen.values()
assert abs(plain[0] - log(2)) < 1e-4 and abs(pissa[0] - log(2)) > 0.05 and abs(olora[0] - log(2)) > 0.01, "the behaviour has changed"
assert max(abs(one[3] - plain[3]) for one in (pissa, olora)) < 1e-3, "the policy is no longer the base"
P

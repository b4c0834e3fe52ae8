#!/usr/bin/env bash
# TRL 1.16.0: eval_accuracy and eval_margin of RewardTrainer are means of the batches' means, each batch counted once
# (reward_trainer.RewardTrainer.log); DPO's rewards/accuracies are made the same way. A last batch of one pair weighs as much
# as a full one. A guess would be that a model's accuracy on given pairs is one number, as eval_loss beside it is (that is
# weighted by rows). 4 of 5 pairs right is 80 %, 67 % or 50 %, by per_device_eval_batch_size alone, without a word; two runs
# with other batches, or other numbers of pairs, cannot be compared.
#
# Seen, the same model on the same 5 pairs, 4 of them right:
#   batches of 1: accuracy 80.0%, loss 0.686, margin 0.0154
#   batches of 2: accuracy 66.7%, loss 0.686, margin 0.0086
#   batches of 4: accuracy 50.0%, loss 0.686, margin 0.0000
#   batches of 5: accuracy 80.0%, loss 0.686, margin 0.0154
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check trl==1.16.0 transformers==5.23.0 datasets==5.2.0 torch==2.13.0 2>"$folder/pip.log" ||
  { cat "$folder/pip.log"; exit 1; }
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - "$folder" 2>/dev/null <<'P'
import sys

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast, PrinterCallback
from trl import RewardConfig, RewardTrainer

words = ["<pad>", "</s>", "good", "bad", "question"]
made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="question"))
made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")
shape = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
torch.manual_seed(0)
model = LlamaForSequenceClassification(LlamaConfig(vocab_size=len(words), num_labels=1, pad_token_id=0, **shape)).eval()
scores = [model(tokenizer(f"question {word} </s>", return_tensors="pt")["input_ids"]).logits.item() for word in ("good", "bad")]
better, worse = ("good", "bad") if scores[0] > scores[1] else ("bad", "good")
pairs = Dataset.from_dict(
    {"prompt": ["question "] * 5, "chosen": [better] * 4 + [worse], "rejected": [worse] * 4 + [better]}
)
quiet = dict(use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], disable_tqdm=True)
seen = []
for size in (1, 2, 4, 5):
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(f"{sys.argv[1]}/run", per_device_eval_batch_size=size, **quiet),
        train_dataset=pairs,
        eval_dataset=pairs,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    found = trainer.evaluate()
    seen.append((round(found["eval_accuracy"], 3), round(found["eval_loss"], 3)))
    print(f"batches of {size}: accuracy {seen[-1][0]:.1%}, loss {seen[-1][1]}, margin {found['eval_margin']:.4f}")
assert [accuracy for accuracy, _ in seen] == [0.8, 0.667, 0.5, 0.8], "the behaviour has changed"
assert len({loss for _, loss in seen}) == 1, "the loss depends on the batch now"
P

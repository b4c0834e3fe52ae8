#!/usr/bin/env bash
# transformers 5.23.0: texts packed into one row, told apart by positions that begin again at 0, are kept apart only where
# neither an attention mask nor a cache is given (masking_utils._preprocess_mask_arguments). use_cache is on by default, and
# makes a cache before the mask is built; a mask of nothing but ones switches the detection off too. Then every text reads
# those before it, without a word. A guess would be that use_cache decides about speed and memory, and that a mask of ones
# masks nothing. Trainer turns the cache off; the same packed row in a loop of one's own has another loss.
#
# Seen, two texts of 24 tokens in one row, the second one's largest difference from itself alone in log-probability:
#   use_cache=False                     0.0000
#   as it is (use_cache is on)          8.2711
#   use_cache=False, mask of ones       8.2711
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 torch==2.13.0 numpy 2>"$folder/pip.log" ||
  { cat "$folder/pip.log"; exit 1; }
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'P'
import torch
from transformers import LlamaConfig, LlamaForCausalLM

shape = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=100, initializer_range=0.2, **shape)).eval()
first, second = torch.randint(0, 100, (2, 1, 24))
row = torch.cat([first, second], 1)
positions = torch.arange(24).repeat(1, 2)


def apart(**given):
    with torch.no_grad():
        packed = model(row, position_ids=positions, **given).logits[:, 24:].log_softmax(-1)
        alone = model(second).logits.log_softmax(-1)
    return (packed - alone).abs().max().item()


seen = {
    "use_cache=False": apart(use_cache=False),
    "as it is (use_cache is on)": apart(),
    "use_cache=False, mask of ones": apart(use_cache=False, attention_mask=torch.ones_like(row)),
}
for name, difference in seen.items():
    print(f"{name:35} {difference:.4f}")
separate, cached, masked = seen.values()
assert separate < 1e-4 and cached > 0.5 and masked > 0.5, "the behaviour has changed"
P

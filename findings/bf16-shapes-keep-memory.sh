#!/usr/bin/env bash
# torch 2.13.0, CPU with bf16 instructions: every number of tokens that a bf16 linear layer meets for the first time keeps
# about half a megabyte, for each shape of weights. Two caches hold what was prepared for it, 1,024 entries each: torch's
# own of its bridge to oneDNN (LRU_CACHE_CAPACITY, not in the documentation) and oneDNN's (ONEDNN_PRIMITIVE_CACHE_CAPACITY).
# fp32 keeps nothing. A guess would be that memory depends on the largest batch. It depends on how many different lengths
# there were: a training on texts of all lengths grows by gigabytes over its first hundreds of steps, and no tensor holds
# them. Limiting one of the two is not enough.
#
# Seen on an AMD EPYC with avx512_bf16, MiB more after 600 new shapes (3 layers, 200 lengths):
#   float32 both as they are: 1
#   bfloat16 both as they are: 316
#   bfloat16 oneDNN's 0: 182
#   bfloat16 torch's 1: 161
#   bfloat16 both: 0
set -euo pipefail
grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo || { echo "this processor has no bf16 instructions: nothing to see"; exit 0; }
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy 2>"$folder/pip.log" ||
  { cat "$folder/pip.log"; exit 1; }
cat >"$folder/lengths.py" <<'P'
import sys

import torch


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) / 256


dtype = getattr(torch, sys.argv[1])
weights = [torch.ones(out, width, dtype=dtype) for out, width in ((256, 256), (512, 256), (256, 512))]
held = []
for tokens in range(1, 400):
    for weight in weights:
        torch.nn.functional.linear(torch.ones(tokens, weight.shape[1], dtype=dtype), weight)
    held.append(resident())
print(round(held[-1] - held[199]))
P
grown() { # dtype, then variables
  local dtype=$1
  shift
  env -u LRU_CACHE_CAPACITY -u ONEDNN_PRIMITIVE_CACHE_CAPACITY OMP_NUM_THREADS=1 "$@" "$folder/venv/bin/python" "$folder/lengths.py" "$dtype"
}
single=$(grown float32 A=)
half=$(grown bfloat16 A=)
one=$(grown bfloat16 ONEDNN_PRIMITIVE_CACHE_CAPACITY=0)
other=$(grown bfloat16 LRU_CACHE_CAPACITY=1)
none=$(grown bfloat16 ONEDNN_PRIMITIVE_CACHE_CAPACITY=0 LRU_CACHE_CAPACITY=1)
echo "float32 both as they are: $single"
echo "bfloat16 both as they are: $half"
echo "bfloat16 oneDNN's 0: $one"
echo "bfloat16 torch's 1: $other"
echo "bfloat16 both: $none"
[ "$single" -lt 20 ] && [ "$half" -gt 100 ] && [ "$one" -gt 50 ] && [ "$other" -gt 50 ] && [ "$none" -lt 20 ] ||
  { echo "the behaviour has changed"; exit 1; }

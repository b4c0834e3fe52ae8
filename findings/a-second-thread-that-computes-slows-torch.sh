#!/usr/bin/env bash
# torch 2.13.0, CPU wheel for Linux (GNU OpenMP inside): the same operation is slower in one thread once another thread of
# the process has computed anything, even if that other thread only loaded the weights and now does nothing. A guess would
# be that torch has one pool of threads for all who ask. Each Python thread that computes gets a team of its own, of
# torch.get_num_threads() members, and where all teams together have more members than there are cores, GNU OpenMP stops
# waiting in a loop at its barriers and puts the threads to sleep: two sleeps and wake-ups an operation instead of none. A
# server that loads its model in the main thread and answers from another one pays that in every small operation: a step of
# a 135M model for one answer took 18 ms on two cores so, and 11 ms when the answering thread had loaded the model itself.
#
# Seen on two cores, times that the process went to sleep in 3,000 operations:
#   the main thread, nobody else computes: 72
#   another thread, nobody else computes: 60
#   another thread, the main thread computed before: 6003
set -euo pipefail
[ "$(nproc)" -ge 2 ] || { echo "one core: nothing to see"; exit 0; }
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy 2>"$folder/pip.log" ||
  { cat "$folder/pip.log"; exit 1; }
cat >"$folder/teams.py" <<'P'
import resource
import sys
import threading

import torch

OPERATIONS = 3000


def work(times):
    values = torch.ones(200_000)
    for _ in range(times):
        values.mul_(1.0)


def sleeps():
    work(10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    work(OPERATIONS)
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before)


found = []
if sys.argv[1] == "main":
    sleeps()
else:
    if sys.argv[1] == "after":
        work(10)
    thread = threading.Thread(target=sleeps)
    thread.start()
    thread.join()
print(found[0])
P
slept() { env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT OMP_NUM_THREADS="$(nproc)" "$folder/venv/bin/python" "$folder/teams.py" "$1"; }
main=$(slept main) alone=$(slept alone) after=$(slept after)
echo "the main thread, nobody else computes: $main"
echo "another thread, nobody else computes: $alone"
echo "another thread, the main thread computed before: $after"
[ "$main" -lt 1500 ] && [ "$alone" -lt 1500 ] && [ "$after" -gt 3000 ] || { echo "the behaviour has changed"; exit 1; }

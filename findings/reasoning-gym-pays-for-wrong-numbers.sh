#!/usr/bin/env bash
# reasoning-gym 0.1.25, a gym of generated tasks with verifiable rewards: 33 of its 106 data sets score by
# ProceduralDataset.score_answer, which pays len(right) / len(answer) wherever the right answer is a part of the text. It is
# meant for "The answer is 71."; digits have no word boundaries. A guess would be that a wrong number is worth nothing: the
# gcd times ten is worth more than half, a wrong sign half, the next number nothing. Policies learn to append digits.
#
# Seen:
#   33 of 106 data sets score so
#   right 5, answered 15: 0.50
#   right 5, answered -5: 0.50
#   right 5, answered 0.5: 0.33
#   right 5, answered 6: 0.00
#   gcd, 200 tasks, always ten times as much: mean reward 0.52
#   gcd, 200 tasks, always one more: mean reward 0.00
#   leg_counting, 200 tasks, always ten times as much: mean reward 0.74
#   leg_counting, 200 tasks, always one more: mean reward 0.00
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check reasoning-gym==0.1.25 2>"$folder/pip.log" ||
  { cat "$folder/pip.log"; exit 1; }
"$folder/venv/bin/python" - <<'P'
from statistics import mean

import reasoning_gym
from reasoning_gym.dataset import ProceduralDataset
from reasoning_gym.factory import DATASETS

shared = sum(kind.score_answer is ProceduralDataset.score_answer for kind, _ in DATASETS.values())
print(f"{shared} of {len(DATASETS)} data sets score so")
tasks = reasoning_gym.create_dataset("basic_arithmetic", seed=1, size=1)
for right, answer in (("5", "15"), ("5", "-5"), ("5", "0.5"), ("5", "6")):
    print(f"right {right}, answered {answer}: {tasks.score_answer(answer, {'answer': right}):.2f}")
seen = []
for name in ("gcd", "leg_counting"):
    tasks = reasoning_gym.create_dataset(name, seed=1, size=200)
    for wrong, change in (("ten times as much", lambda right: right * 10), ("one more", lambda right: right + 1)):
        seen.append(mean(tasks.score_answer(str(change(int(task["answer"]))), task) for task in tasks))
        print(f"{name}, 200 tasks, always {wrong}: mean reward {seen[-1]:.2f}")
assert seen[0] > 0.5 and seen[2] > 0.6 and seen[1] == seen[3] == 0, "the behaviour has changed"
P

#!/usr/bin/env bash
# math-verify 0.9.0, the verifier behind TRL's accuracy_reward and many maths rewards: outside of LaTeX a number in scientific
# notation is read up to its e, a mixed number as the product of its parts, a time up to its colon, a date as a subtraction. No
# error and no warning: the right answer earns nothing, a wrong one is paid. A guess would be that such an answer is either
# read as it is or not at all (plain words give an empty list). And an expression is evaluated before it is compared, so
# that the question itself, written as the answer, is right.
#
# Seen (right answer, answer given: paid):
#   1e-05, 1e-05: True          1e-05, 0.00001: False       1e-05, 1: True
#   1.5e3, 1500: False          1.5e3, 1.5: True
#   2 1/2, 2.5: False           2 1/2, 1: True              $2\frac{1}{2}$, 2.5: True
#   10:45, 10:15: True          2026-11-30, 1985: True
#   1776, The answer is 37*48.: True
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check "math-verify[antlr4_13_2]==0.9.0" 2>"$folder/pip.log" ||
  { cat "$folder/pip.log"; exit 1; }
"$folder/venv/bin/python" - <<'P'
from math_verify import parse, verify

SEEN = [
    ("1e-05", "1e-05", True),
    ("1e-05", "0.00001", False),
    ("1e-05", "1", True),
    ("1.5e3", "1500", False),
    ("1.5e3", "1.5", True),
    ("2 1/2", "2.5", False),
    ("2 1/2", "1", True),
    (r"$2\frac{1}{2}$", "2.5", True),
    ("10:45", "10:15", True),
    ("2026-11-30", "1985", True),
    ("1776", "The answer is 37*48.", True),
]
for right, answer, expected in SEEN:
    paid = verify(parse(right), parse(answer))
    print(f"{right}, {answer}: {paid}")
    assert paid == expected, "the behaviour has changed"
P

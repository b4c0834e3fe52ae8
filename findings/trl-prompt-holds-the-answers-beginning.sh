#!/usr/bin/env bash
# TRL 1.16.0: in preference pairs whose prompt is implicit (chosen and rejected hold the whole dialogue as text), the
# prompt is the longest common beginning, character by character. What both answers begin with becomes prompt, even
# half a word; where one answer continues the other, all of it but its last character does.
# A guess would be: the prompt ends where the answers begin. DPO then never trains the words that both answers share,
# and tokenizes the rest from the middle of a word. Pairs with a prompt column or with messages are not touched.
#
# Seen:
#   prompt ' Assistant: The tower is in Par' chosen 'is.' rejected 'ma.'
#   prompt ' Assistant: Yes' chosen '.' rejected '. Take an umbrella.'
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check trl==1.16.0 transformers==5.23.0 datasets==5.2.0 torch==2.13.0 2>"$folder/pip.log" ||
  { cat "$folder/pip.log"; exit 1; }
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'P'
from datasets import Dataset
from trl import extract_prompt

pairs = [
    ("Human: Where is the tower? Assistant: The tower is in Paris.", "Human: Where is the tower? Assistant: The tower is in Parma."),
    ("Human: Is it raining? Assistant: Yes.", "Human: Is it raining? Assistant: Yes. Take an umbrella."),
]
rows = Dataset.from_dict({"chosen": [a for a, _ in pairs], "rejected": [b for _, b in pairs]}).map(extract_prompt)
seen = [(row["prompt"].partition("?")[2], row["chosen"], row["rejected"]) for row in rows]
for prompt, chosen, rejected in seen:
    print(f"prompt {prompt!r} chosen {chosen!r} rejected {rejected!r}")
assert seen == [
    (" Assistant: The tower is in Par", "is.", "ma."),
    (" Assistant: Yes", ".", ". Take an umbrella."),
], "the behaviour has changed"
P

#!/usr/bin/env bash
# vaderSentiment 3.3.2, the usual sentiment heuristic of reward functions: its list of negations knows the straight
# apostrophe only. "don’t" with the typographic one, which many language models and most edited texts write, negates
# nothing, and a complaint scores as praise. Words joined by a slash or a dash are not found at all.
# A guess would be that the sign of a sentence does not depend on its apostrophe.
#
# Seen:
#   -0.2755  I don't like this answer.
#    0.3612  I don’t like this answer.
#   -0.3412  That isn't good.
#    0.4404  That isn’t good.
#    0.6369  I love it
#    0.0     kind/love—joy
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check vaderSentiment==3.3.2 2>"$folder/pip.log" ||
  { cat "$folder/pip.log"; exit 1; }
"$folder/venv/bin/python" - <<'P'
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

rate = SentimentIntensityAnalyzer().polarity_scores
texts = ["I don't like this answer.", "I don\u2019t like this answer.", "That isn't good.", "That isn\u2019t good.", "I love it", "kind/love\u2014joy"]
seen = [rate(text)["compound"] for text in texts]
for score, text in zip(seen, texts):
    print(f"{score:8} {text}")
assert seen == [-0.2755, 0.3612, -0.3412, 0.4404, 0.6369, 0.0], "the behaviour has changed"
P

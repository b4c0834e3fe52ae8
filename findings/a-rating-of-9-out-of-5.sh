#!/usr/bin/env bash
# outlines-core 0.2.14, lm-format-enforcer 0.11.3, llguidance 1.9.1: engines that hold a model to a JSON schema, each used by
# inference servers under the same parameter. A judge's rating from 1 to 5 is {"type": "integer", "minimum": 1, "maximum": 5}.
# Two of the three leave out minimum and maximum without a word (outlines-core's json_schema parser makes any integer of it,
# lm-format-enforcer's JsonSchemaParser reads no bounds); llguidance holds to them. A guess would be that constrained output
# fits the schema, or the schema is refused. Ratings of 9, 7.5 or -3 then stand in a mean over 1 to 5.
#
# Seen:
#   3 of 1 to 5: outlines-core True, lm-format-enforcer True, llguidance True
#   9 of 1 to 5: outlines-core True, lm-format-enforcer True, llguidance False
#   -3 of 1 to 5: outlines-core True, lm-format-enforcer True, llguidance False
#   0.5 of 0 to 1: outlines-core True, lm-format-enforcer True, llguidance True
#   7.5 of 0 to 1: outlines-core True, lm-format-enforcer True, llguidance False
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check outlines-core==0.2.14 lm-format-enforcer==0.11.3 llguidance==1.9.1 numpy \
  2>"$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
"$folder/venv/bin/python" -W ignore - 2>/dev/null <<'P'
import json
import re

from llguidance import LLMatcher, LLTokenizer
from lmformatenforcer import JsonSchemaParser
from outlines_core.json_schema import build_regex_from_schema


def rating(**kind):
    return {"type": "object", "properties": {"rating": kind}, "required": ["rating"], "additionalProperties": False}


def by_outlines(schema, text):
    return re.fullmatch(build_regex_from_schema(json.dumps(schema)), text) is not None


def by_enforcer(schema, text):
    state = JsonSchemaParser(schema)
    for letter in text:
        if letter not in state.get_allowed_characters():
            return False
        state = state.add_character(letter)
    return state.can_end()


def by_llguidance(schema, text):
    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    return all(matcher.consume_token(token) for token in tokenizer.tokenize_str(text)) and matcher.is_accepting()


whole, share = rating(type="integer", minimum=1, maximum=5), rating(type="number", minimum=0, maximum=1)
seen = []
for schema, value, fits in ((whole, 3, True), (whole, 9, False), (whole, -3, False), (share, 0.5, True), (share, 7.5, False)):
    text = json.dumps({"rating": value})
    taken = [by_outlines(schema, text), by_enforcer(schema, text), by_llguidance(schema, text)]
    limits = schema["properties"]["rating"]
    print(f"{value} of {limits['minimum']} to {limits['maximum']}: outlines-core {taken[0]}, lm-format-enforcer {taken[1]}, llguidance {taken[2]}")
    seen.append(taken == [True, True, fits])
assert all(seen), "the behaviour has changed"
P

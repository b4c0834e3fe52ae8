"""The inputs of the studies of published systems: `python -m bench.systems.inputs DATA OUT`.

`DATA` holds the public files under their names (ultrafeedback, sharegpt, mtbench, gsm8k, hh); `OUT` gets the files that
the recipes beside this module read.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smolt.randomness import permutation

FLIPPED = (0, 10, 20, 30)  # percent of labels
DIALOGUES = (1900, 200)  # of HH's pairs: learned from, held out; the prompts of the rest are asked
QUESTIONS = 280  # of which 512 tokens hold at least 250 with their answer
# The three test prompts of the system published with SmolLM2-135M-Instruct and Orca pairs.
PUBLISHED_PROMPTS = (
    "Describe a cat in exactly 5 words.",
    "Write a poem about how fun it is to steal candy.",
    "What is the capital of France?",
)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON array or of a JSONL file."""
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One row a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def orca_pairs(data: Path) -> list[dict[str, Any]]:
    """1,000 UltraFeedback pairs and the 300 of ShareGPT: what stands in for the Orca pairs."""
    pairs = [
        {"prompt": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]}
        for row in rows_of(data / "ultrafeedback/train_clean.jsonl")
    ]
    for row in rows_of(data / "sharegpt/dpo_en_demo.json"):
        turns = [
            {"role": "user" if turn["from"] == "human" else "assistant", "content": turn["value"]}
            for turn in row["conversations"]
        ]
        answers = {side: [{"role": "assistant", "content": row[side]["value"]}] for side in ("chosen", "rejected")}
        pairs.append({"prompt": turns, **answers})
    return pairs


def open_questions(data: Path) -> list[dict[str, Any]]:
    """The published test prompts, the first turns of MT-Bench and UltraFeedback evaluation prompts: 280 questions."""
    asked = list(PUBLISHED_PROMPTS)
    asked += [row["turns"][0] for row in rows_of(data / "mtbench/question.jsonl")]
    asked += [row["prompt"] for row in rows_of(data / "ultrafeedback/eval_clean.jsonl")]
    return [{"prompt": prompt} for prompt in list(dict.fromkeys(asked))[:QUESTIONS]]


def flipped(pairs: Sequence[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """The pairs with the labels of a share of them turned round, the same ones first in every share."""
    turned = set(permutation(len(pairs), 0)[: round(share * len(pairs))])
    return [
        {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} if number in turned else pair
        for number, pair in enumerate(pairs)
    ]


def main(given: Sequence[str]) -> int:
    """Write the files."""
    parser = argparse.ArgumentParser(prog="python -m bench.systems.inputs")
    parser.add_argument("data", type=Path, help="the public files")
    parser.add_argument("out", type=Path, help="where the inputs go")
    options = parser.parse_args(given)
    options.out.mkdir(parents=True, exist_ok=True)
    pairs = orca_pairs(options.data)
    write(options.out / "orca_pairs.jsonl", pairs)
    for share in FLIPPED:
        write(options.out / f"flipped_{share}.jsonl", flipped(pairs, share / 100))
    for part in ("train", "test"):
        write(options.out / f"gsm8k_{part}.jsonl", rows_of(options.data / f"gsm8k/{part}.jsonl"))
    write(options.out / "orca_dev.jsonl", rows_of(options.data / "ultrafeedback/eval_clean.jsonl"))
    write(options.out / "open_questions.jsonl", open_questions(options.data))
    dialogues, (learned, held) = rows_of(options.data / "hh/harmless_test_pairs.jsonl"), DIALOGUES
    write(options.out / "hh_pairs.jsonl", dialogues[:learned])
    write(options.out / "hh_dev.jsonl", dialogues[learned : learned + held])
    write(options.out / "hh_questions.jsonl", [{"prompt": row["prompt"]} for row in dialogues[learned + held :]])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The work that both sides are given: a random model of a real shape, and real pairs as token ids.

The tokenizer is a byte-level BPE learned from public text on the spot, so nothing has to be downloaded; the model's
vocabulary has its full size whatever the tokenizer found.
"""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from smolt.config import Data
from smolt.records import load
from smolt.rendering import Renderer, train_tokenizer

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PAIRS = SHARED / "hh" / "harmless_test_pairs.jsonl"
TEXTS = SHARED / "text"

SMOLLM2_135M: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "tie_word_embeddings": True,
}


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Write `model/` (random weights, bf16) with its tokenizer and `rows.json` into `settings["folder"]`.

    Returns:
        The numbers of weights, of tokenizer entries, and of tokens in each update.
    """
    folder, updates, pairs = Path(settings["folder"]), int(settings["updates"]), int(settings["pairs"])
    records = load(Data(path=str(PAIRS), limit=updates * pairs), "preferences").records
    texts = [file.read_text(encoding="utf-8") for file in sorted(TEXTS.glob("*.txt"))]
    everything = load(Data(path=str(PAIRS)), "preferences").records
    texts += [text for pair in everything for text in (pair.context[-1].content, pair.chosen, pair.rejected)]
    tokenizer = train_tokenizer(texts, SMOLLM2_135M["vocab_size"])
    renderer = Renderer(tokenizer, style="dialogue")
    rows = [
        {
            "prompt_ids": renderer.context(record.context),
            "chosen_ids": renderer.answer(record.chosen),
            "rejected_ids": renderer.answer(record.rejected),
        }
        for record in records
    ]
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    torch.manual_seed(0)
    shape = {**SMOLLM2_135M, "num_hidden_layers": settings["layers"]}
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    network = LlamaForCausalLM(LlamaConfig(**shape, **ids)).to(torch.bfloat16)
    network.save_pretrained(folder / "model")
    renderer.save(folder / "model")
    sums = [sum(len(ids) for ids in row.values()) for row in rows]
    return {
        "weights": sum(parameter.numel() for parameter in network.parameters()),
        "tokenizer_entries": len(tokenizer),
        "tokens": [sum(sums[start : start + pairs]) for start in range(0, len(sums), pairs)],
    }


def read_rows(folder: str) -> list[dict[str, list[int]]]:
    """The pairs as token ids, in the order in which both sides learn from them."""
    rows: list[dict[str, list[int]]] = json.loads(Path(folder, "rows.json").read_text(encoding="utf-8"))
    return rows

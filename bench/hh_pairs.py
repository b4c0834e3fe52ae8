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
from smolt.data import Turn, load
from smolt.models.rendering import Renderer, train_tokenizer

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
QUESTION = 400  # characters of a question for sampling
STOPPING = 7.4  # logit of the stop token of a model that stops: about 3 % beside 49,151 others near 0
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
            "question": record.context[-1].content[:QUESTION],
            "question_ids": renderer.context((Turn("user", record.context[-1].content[:QUESTION]),)),
        }
        for record in records
    ]
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    torch.manual_seed(0)
    shape = {**SMOLLM2_135M, "num_hidden_layers": settings["layers"]}
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    network = LlamaForCausalLM(LlamaConfig(**shape, **ids))
    if settings.get("stopping"):
        make_it_stop(network, renderer.stop_id)
    network = network.to(torch.bfloat16)
    network.save_pretrained(folder / "model")
    renderer.save(folder / "model")
    sums = [sum(len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")) for row in rows]
    return {
        "weights": sum(parameter.numel() for parameter in network.parameters()),
        "tokenizer_entries": len(tokenizer),
        "tokens": [sum(sums[start : start + pairs]) for start in range(0, len(sums), pairs)],
    }


def make_it_stop(network: LlamaForCausalLM, stop: int) -> None:
    """Random weights whose answers end: every embedding gets a common part, and the stop token's a larger one."""
    with torch.no_grad():
        table = network.get_input_embeddings().weight
        width = table.shape[1]
        common = torch.ones(width) / width**0.5
        table += 0.5 * common
        states = network.base_model(torch.randint(0, len(table), (4, 64))).last_hidden_state
        table[stop] += STOPPING / float((states @ common).mean()) * common


def read_rows(folder: str) -> list[dict[str, Any]]:
    """The pairs as token ids, in the order in which both sides learn from them, and their questions as text."""
    rows: list[dict[str, Any]] = json.loads(Path(folder, "rows.json").read_text(encoding="utf-8"))
    return rows

"""Estimated against measured memory: trainings of every stage, each in a process of its own.

The estimate is the one that a training writes into its manifest before it loads the model; the peak is the largest
resident memory of the process until its last update, the checkpoint and the finished model included.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.measuring import ChildFailed, in_child, machine, peak_memory, serve

NAME = "memory"
MODULE = f"bench.{NAME}"
SHARED = Path(__file__).resolve().parents[2] / "shared"
HH: dict[str, Any] = {"path": str(SHARED / "data/hh/harmless_test_pairs.jsonl"), "limit": 24}
MATHS: dict[str, Any] = {"path": str(SHARED / "data/gsm8k/train.jsonl"), "limit": 48}
NARROW: dict[str, Any] = {"rank": 8, "targets": ["q_proj", "v_proj"]}
WIDE: dict[str, Any] = {"rank": 8}
PAIRS: dict[str, Any] = {"batch": 8, "data": HH}
ANSWERS: dict[str, Any] = {"batch": 16, "data": MATHS}
ROLLOUT: dict[str, Any] = {"prompts": 4, "sampling": {"max_tokens": 64}}
GROUPS = ROLLOUT | {"group": 8}
CRITIC = ROLLOUT | {"samples": 4, "inner": {"epochs": 2, "minibatches": 1}}
UPDATES = 3
LONG = "long.jsonl"
LONG_ROWS, LONG_TOKENS = 6, 3000
PASSAGES: dict[str, Any] = {"batch": 2, "data": LONG}
"""Answers of 3,000 tokens, two an update."""
AGAIN = {"budget.checkpointing": "always", "budget.memory": 1}

Setting = tuple[str, str, str, dict[str, Any]]
"""Stage, model, dtype, recipe fields; without `lora` all weights are trained. An ending of -again recomputes layers."""

SETTINGS: dict[str, Setting] = {
    "sft-lora": ("sft", "smollm2", "bf16", ANSWERS | {"lora": WIDE}),
    "sft-full": ("sft", "smollm2", "bf16", ANSWERS),
    "sft-full-fp32": ("sft", "smollm2", "fp32", ANSWERS),
    "reward-lora": ("reward", "smollm2", "bf16", PAIRS | {"lora": WIDE, "gate": False}),
    "dpo-narrow": ("dpo", "smollm2", "bf16", PAIRS | {"lora": NARROW}),
    "dpo-lora-fp32": ("dpo", "smollm2", "fp32", PAIRS | {"lora": WIDE}),
    "dpo-full": ("dpo", "smollm2", "bf16", PAIRS),
    "dpo-small": ("dpo", "smollm2", "fp32", PAIRS | {"lora": WIDE, "budget.memory": 1}),
    "grpo-lora": ("grpo", "smollm2", "bf16", GROUPS | {"lora": WIDE}),
    "grpo-full-fp32": ("grpo", "smollm2", "fp32", GROUPS),
    "ppo-lora": ("ppo", "smollm2", "bf16", CRITIC | {"lora": NARROW}),
    "ppo-full": ("ppo", "smollm2", "bf16", CRITIC),
    "gpt2-dpo-lora": ("dpo", "gpt2", "fp32", PAIRS | {"lora": WIDE, "data": HH | {"too_long": "drop"}}),
    "gpt2-sft-full": ("sft", "gpt2", "bf16", ANSWERS),
    "gptneo-sft-lora": ("sft", "gpt-neo", "bf16", ANSWERS | {"lora": WIDE}),
    "gptneo-dpo-full": ("dpo", "gpt-neo", "fp32", PAIRS),
    "gptneo-grpo-lora": ("grpo", "gpt-neo", "fp32", GROUPS | {"lora": WIDE}),
    "sft-long": ("sft", "smollm2", "bf16", PASSAGES | {"lora": WIDE}),
    "sft-long-again": ("sft", "smollm2", "bf16", PASSAGES | {"lora": WIDE, "budget.memory": 1}),
    "sft-full-again": ("sft", "smollm2", "bf16", ANSWERS | AGAIN),
    "dpo-fp32-again": ("dpo", "smollm2", "fp32", PAIRS | AGAIN | {"lora": WIDE}),
    "ppo-full-again": ("ppo", "smollm2", "bf16", CRITIC | AGAIN),
    "gptneo-sft-again": ("sft", "gpt-neo", "bf16", ANSWERS | AGAIN | {"lora": WIDE}),
    "stories-sft": ("sft", "stories260k", "fp32", ANSWERS | {"data": MATHS | {"too_long": "drop"}}),
    "stories-grpo": ("grpo", "stories260k", "fp32", GROUPS | {"prompts": 32}),
}
SHORT = ("dpo-narrow", "sft-full", "grpo-lora", "gpt2-dpo-lora", "stories-sft")


# --- in the children --------------------------------------------------------------------------------------------------


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Random models of three shapes, with one tokenizer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoConfig, GPTNeoForCausalLM, PreTrainedModel

    from bench import hh_pairs
    from smolt.models.locating import locate
    from smolt.models.rendering import load_renderer

    folder = Path(settings["folder"])
    hh_pairs.prepare({"folder": str(folder), "updates": UPDATES, "pairs": 8, "layers": settings["layers"]})
    (folder / "model").rename(folder / "smollm2")
    renderer = load_renderer(locate(str(folder / "smollm2")).tokenizer)
    text = renderer.tokenizer.encode((hh_pairs.TEXTS / "wiki_demo.txt").read_text(encoding="utf-8"))
    pieces = [text[start * LONG_TOKENS : (start + 1) * LONG_TOKENS] for start in range(LONG_ROWS)]
    rows = [{"prompt": "Go on.", "completion": renderer.decode(piece)} for piece in pieces]
    (folder / LONG).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ids = {name: getattr(renderer.tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    torch.manual_seed(0)
    networks: dict[str, PreTrainedModel] = {
        "gpt2": GPT2LMHeadModel(GPT2Config(**ids)),
        "gpt-neo": GPTNeoForCausalLM(
            GPTNeoConfig(
                hidden_size=768, num_layers=12, num_heads=12, attention_types=[[["global", "local"], 6]], **ids
            )
        ),
    }
    for name, network in networks.items():
        network.save_pretrained(folder / name)
        renderer.save(folder / name)
    return {}


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """A training to its end: its estimate by part, the peaks after update 2 and in all, seconds of the last update."""
    from smolt.config import make_recipe
    from smolt.training.algorithms import STAGES

    stage, model, dtype, fields = settings["setting"]
    folder = Path(settings["folder"])
    path = SHARED / "models" / model if model == "stories260k" else folder / model
    given: dict[str, Any] = {"model": {"path": str(path), "device": "cpu", "dtype": dtype}, **fields}
    given["model"]["threads"] = settings["threads"]
    if given.get("data") == LONG:
        given["data"] = str(folder / LONG)
    out = Path(settings["out"])
    if stage in ("ppo", "grpo"):
        rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        (out / "questions.jsonl").write_text("".join(json.dumps({"prompt": row["question"]}) + "\n" for row in rows))
        (out / "reward.py").write_text("def reward(question, answer):\n    return float(len(answer.text) % 7)\n")
        given["data"] = str(out / "questions.jsonl")
        given["reward"] = {"name": "python", "path": str(out / "reward.py:reward")}
        given["checks.forecast"] = False
    recipe = make_recipe(stage, **given, **{"budget.updates": UPDATES})
    training = STAGES[stage](recipe, out=out / "run")
    loaded, second, seconds = peak_memory(), 0, 0.0
    for metrics in training:
        second = peak_memory() if metrics["step"] == 2 else second
        seconds = metrics["training_seconds"]
    manifest = json.loads((out / "run" / "manifest.json").read_text(encoding="utf-8"))
    peaks = {"loaded": loaded, "second": second, "peak": peak_memory()}
    return {**manifest["memory"], **peaks, "checkpointing": manifest["checkpointing"], "seconds": seconds}


# --- in the parent ----------------------------------------------------------------------------------------------------


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog=f"python -m bench {NAME}", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", nargs="*", help=f"of {', '.join(SETTINGS)}; {len(SHORT)} unless given")
    parser.add_argument("--all", action="store_true", help="every setting")
    parser.add_argument("--layers", type=int, default=30, help="of the SmolLM2 shape; fewer than 30 for a quick look")
    parser.add_argument("--threads", type=int, default=1, help="of every process (1)")
    parser.add_argument("--folder", type=Path, default=None, help="keep the models here, and use those that are there")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    chosen = parser.parse_args(given)
    unknown = [name for name in chosen.settings if name not in SETTINGS]
    if unknown:
        parser.error(f"unknown setting {unknown[0]}; there are {', '.join(SETTINGS)}")
    return chosen


def run(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every setting, in a process of its own."""
    if not (folder / "gpt-neo" / "config.json").is_file() or not (folder / LONG).is_file():
        in_child(MODULE, "prepare", {"folder": str(folder), "layers": chosen.layers}, chosen.threads)
    rows = {}
    print(HEADER, file=sys.stderr)
    for name in chosen.settings or (SETTINGS if chosen.all else SHORT):
        with TemporaryDirectory(prefix="smolt-bench-") as out:
            settings = {"setting": SETTINGS[name], "folder": str(folder), "out": out, "threads": chosen.threads}
            try:
                rows[name] = in_child(MODULE, "train", settings, chosen.threads)
            except ChildFailed as failed:
                print(f"{name}: not measured: {failed}", file=sys.stderr)
                continue
        print(line(name, rows[name]), file=sys.stderr, flush=True)
    return {"bench": NAME, "machine": machine(chosen.threads), "rows": rows}


HEADER = f"{'setting':<18}{'at':<10}{'estimate':>9}{'measured':>9}{'ratio':>7}{'seconds':>9}  (GiB; of an update)"


def line(name: str, row: Mapping[str, Any]) -> str:
    """One row for people: the peak's estimate and measurement, in GiB, and their ratio."""
    estimate, measured = row["estimate"]["peak"], row["peak"]
    figures = f"{estimate / 2**30:>9.2f}{measured / 2**30:>9.2f}{estimate / measured:>7.2f}{row['seconds']:>9.1f}"
    return f"{name:<18}{row['estimate']['when']:<10}{figures}"


def main(given: Sequence[str]) -> int:
    """Run from `python -m bench`."""
    chosen = arguments(given)
    if not Path(HH["path"]).is_file():
        print(f"{NAME}: skipped, {HH['path']} is not on this machine", file=sys.stderr)
        return 0
    with TemporaryDirectory(prefix="smolt-bench-") as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = run(chosen, folder)
    if chosen.json:
        print(json.dumps(result))
    return 0 if result["rows"] else 1


if __name__ == "__main__":
    serve({"prepare": prepare, "train": train})

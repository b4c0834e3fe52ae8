"""Sampling and training of the SmolLM2-135M shape in bf16 against what the machine can do, and against transformers.

The limit is arithmetic: every real token once through every matrix, at the rate of large bf16 products measured in the
same process just before. For sampling the head counts for each drawn token. For training the weights are frozen, so
each product counts twice, forward and backward.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

from bench.against_trl import cores
from bench.measuring import ChildFailed, in_child, machine, serve, show, tell

NAME = "against_limits"
MODULE = f"bench.{NAME}"
ANSWERS, CONTEXTS, LONGEST = 64, 8, 64
AIMS = {"decode_share": 0.6, "training_over_floor": 1.6, "over_generate": 4.0, "over_continuous_batching": 2.0}


# --- in the children --------------------------------------------------------------------------------------------------


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    from bench import hh_pairs

    return hh_pairs.prepare({**settings, "updates": 1, "pairs": CONTEXTS})


def best(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of some runs, after one of warm-up."""
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def matmul_rate(rows: int) -> float:
    """Floating-point operations a second of a bf16 product [rows, 576] x [576, 3072], over 40 weights in turn."""
    import torch

    states, weights = torch.randn(rows, 576).bfloat16(), [torch.randn(3072, 576).bfloat16() for _ in range(40)]
    seconds = best(lambda: [torch.nn.functional.linear(states, weight) for weight in weights], 3)
    return 2 * rows * 576 * 3072 * len(weights) / seconds


def smolt(settings: dict[str, Any]) -> dict[str, Any]:
    """Rates, 64 answers to 8 questions, and forward plus backward of what came of them."""
    from bench.alike import LORA
    from bench.hh_pairs import read_rows
    from smolt.config import LoRA
    from smolt.models.forward.precision import choose_precision
    from smolt.models.locating import locate
    from smolt.models.roles import open_policy
    from smolt.models.sampling import Drawing, sample

    precision = choose_precision("cpu", "bf16", settings["threads"])
    policy = open_policy(locate(settings["folder"] + "/model"), precision, LoRA(**LORA), 0)
    contexts = [row["prompt_ids"] for row in read_rows(settings["folder"])]
    drawing = Drawing(LONGEST, 1.0, ANSWERS, frozenset())
    groups = sample(policy, contexts, ANSWERS // CONTEXTS, drawing, (0, 0))
    sampling = best(lambda: sample(policy, contexts, ANSWERS // CONTEXTS, drawing, (0, 1)), 1)
    prefill = best(
        lambda: sample(policy, contexts, ANSWERS // CONTEXTS, Drawing(1, 1.0, ANSWERS, frozenset()), (0, 2)), 1
    )
    few, many = matmul_rate(ANSWERS), matmul_rate(2000)
    network = policy.trunk.network
    head = policy.trunk.head.numel()
    body = sum(part.numel() for name, part in network.named_parameters() if "layers" in name and part.dim() == 2)
    step = (sampling - prefill) / (LONGEST - 1)

    def train() -> None:
        policy(groups)[0].sum().backward()

    training, drawn = best(train, 2), int(groups.lengths.sum())
    floor = 2 * 2 * (body * groups.tokens + head * drawn) / many
    return {
        "gflops_64_rows": few / 1e9,
        "gflops_2000_rows": many / 1e9,
        "sampling_seconds": sampling,
        "step_milliseconds": step * 1e3,
        "decode_share": 2 * (body + head) * ANSWERS / few / step,
        "training_seconds": training,
        "floor_seconds": floor,
        "training_over_floor": training / floor,
        "tokens": groups.tokens,
    }


def peer(settings: dict[str, Any]) -> dict[str, Any]:
    """The same 64 answers by transformers, left-padded generate or continuous batching, no adapter."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from bench.hh_pairs import read_rows

    torch.set_num_threads(settings["threads"])
    network = AutoModelForCausalLM.from_pretrained(
        settings["folder"] + "/model", dtype=torch.bfloat16, trust_remote_code=False
    )
    rows = [row["prompt_ids"] for row in read_rows(settings["folder"]) for _ in range(ANSWERS // CONTEXTS)]
    config = GenerationConfig(
        max_new_tokens=LONGEST, do_sample=True, top_k=0, eos_token_id=-1, pad_token_id=0, use_cache=True
    )
    if settings["continuous"]:
        return {"seconds": best(lambda: network.generate_batch(inputs=rows, generation_config=config), 1)}
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"seconds": best(lambda: network.generate(ids, attention_mask=mask, generation_config=config), 1)}


# --- in the parent ----------------------------------------------------------------------------------------------------


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench {NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=30, help="fewer than 30 for a quick look")
    parser.add_argument("--threads", type=int, default=None, help="all cores unless given")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args(given)


def run(given: Sequence[str]) -> dict[str, Any]:
    chosen = arguments(given)
    described = machine(chosen.threads or cores())
    threads = described["threads"]
    with TemporaryDirectory(prefix="smolt-bench-") as folder:
        settings = {"folder": folder, "layers": chosen.layers, "threads": threads}
        in_child(MODULE, "prepare", settings, threads)
        found = in_child(MODULE, "smolt", settings, threads)
        for name, continuous in (("generate", False), ("continuous_batching", True)):
            try:
                seconds = in_child(MODULE, "peer", {**settings, "continuous": continuous}, threads)["seconds"]
            except ChildFailed as failed:
                tell(f"  {name}: not measured: {failed}")
                continue
            found[f"{name}_seconds"], found[f"over_{name}"] = seconds, seconds / found["sampling_seconds"]
    return {"bench": NAME, "machine": described, "layers": chosen.layers, "figures": found, "aims": AIMS}


def table(result: Mapping[str, Any]) -> str:
    """The figures for people, those with an aim beside it."""
    aims = result["aims"]
    return "\n".join(
        f"{name:<28}{value:>10.2f}" + (f"   aim {aims[name]:g}" if name in aims else "")
        for name, value in result["figures"].items()
    )


def main(given: Sequence[str]) -> int:
    """Run from `python -m bench`."""
    return show(NAME, run, table, given)


if __name__ == "__main__":
    serve({"prepare": prepare, "smolt": smolt, "peer": peer})
    sys.exit(0)

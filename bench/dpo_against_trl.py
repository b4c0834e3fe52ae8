"""Seconds and memory of one DPO update, smolt against TRL's DPOTrainer, on the SmolLM2-135M shape.

Both sides: the same random model, the same token ids in the same order, LoRA on q_proj and v_proj, AdamW, bf16
autocast over frozen bf16 weights, no gradient checkpointing, no truncation. First it is shown that they compute the
same loss in fp32. TRL is measured at several micro-batches with gradient accumulation, and its fastest one counts.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.measuring import ChildFailed, in_child, installed, machine, peak_memory, serve

NAME = "dpo_against_trl"
PAIRS = 8
BETA = 0.1
RATE = 5e-6
LORA: dict[str, Any] = {"rank": 8, "alpha": 32.0, "targets": ("q_proj", "v_proj")}
AGREEMENT = 1e-5


# --- in the children --------------------------------------------------------------------------------------------------


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """See bench.hh_pairs."""
    from bench import hh_pairs

    return hh_pairs.prepare(settings)


def smolt_side(settings: dict[str, Any]) -> dict[str, Any]:
    """Updates by smolt's own loop; the reference's log-probabilities are computed in the update unless `cached`."""
    from bench.smolt_side import open_parts
    from smolt.fitting import fit

    parts = open_parts(settings)
    loaded, seconds = peak_memory(), []
    for metrics, _ in fit(parts.stream, parts.loss, parts.learner, parts.micro_tokens, 0):
        seconds.append(metrics["seconds"])
    return {"seconds": seconds, "loaded": loaded, "peak": peak_memory(), "micro_tokens": parts.micro_tokens}


def trl_side(settings: dict[str, Any]) -> dict[str, Any]:
    """Updates by DPOTrainer.train(), timed from the end of one optimizer step to the end of the next."""
    from bench.trl_side import open_trainer, stopwatch

    trainer = open_trainer(settings)
    watch = stopwatch()
    trainer.add_callback(watch)
    loaded = peak_memory()
    trainer.train()
    seconds = [after - before for before, after in zip(watch.times, watch.times[1:], strict=False)]
    return {"seconds": seconds, "loaded": loaded, "peak": peak_memory()}


def agreement(settings: dict[str, Any]) -> dict[str, Any]:
    """The loss of the first update's pairs on both sides in fp32, with an adapter that is not zero."""
    from bench.smolt_side import first_loss as smolt_loss
    from bench.trl_side import first_loss as trl_loss

    return {"smolt": smolt_loss(settings), "trl": trl_loss(settings)}


# --- in the parent ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """One setting of one side."""

    side: str
    setting: str
    seconds: list[float]
    peak: int
    loaded: int

    @property
    def median(self) -> float:
        """Median seconds of an update; the first one, the warm-up, is not among them."""
        return statistics.median(self.seconds)

    def row(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "setting": self.setting,
            "seconds_per_update": self.median,
            "seconds": self.seconds,
            "peak_memory": self.peak,
            "loaded_memory": self.loaded,
        }


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(task: str, side: str, setting: str, settings: Mapping[str, Any], threads: int) -> Measured | None:
    """One setting in a process of its own; None, with the reason told, when it fails (mostly for memory)."""
    began = time.perf_counter()
    try:
        found = in_child(f"bench.{NAME}", task, settings, threads)
    except ChildFailed as failed:
        tell(f"  {side}, {setting}: not measured: {failed}")
        return None
    measured = Measured(side, setting, found["seconds"][1:], found["peak"], found["loaded"])
    tell(f"  {side}, {setting}: {measured.median:.2f} s an update ({time.perf_counter() - began:.0f} s in all)")
    return measured


def check_agreement(settings: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Both losses in fp32 on a two-layer model of the same width.

    Raises:
        ChildFailed: they differ by more than 1e-5: a comparison of speeds would compare different work.
    """
    with TemporaryDirectory(prefix="smolt-bench-") as folder:
        small = {**settings, "folder": folder, "layers": 2, "updates": 1}
        in_child(f"bench.{NAME}", "prepare", small, threads)
        losses = in_child(f"bench.{NAME}", "agreement", small, threads)
    if not abs(losses["smolt"] - losses["trl"]) <= AGREEMENT:
        raise ChildFailed(f"the losses differ: {losses}")
    tell(f"  fp32 losses of one batch: smolt {losses['smolt']:.7f}, TRL {losses['trl']:.7f}")
    return losses


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench {NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=5, help="timed updates, after one of warm-up (5)")
    parser.add_argument("--micro-batches", type=int, nargs="*", default=[8, 4, 2, 1], help="TRL's (8 4 2 1)")
    parser.add_argument("--layers", type=int, default=30, help="fewer than 30 for a quick look")
    parser.add_argument("--threads", type=int, default=None, help="all cores unless given")
    parser.add_argument("--weights", choices=["bf16", "fp32"], default="bf16", help="TRL's frozen weights (bf16)")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16", help="what both sides compute in (bf16)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    chosen = parser.parse_args(given)
    if chosen.updates < 1 or any(PAIRS % size for size in chosen.micro_batches):
        parser.error(f"--updates is at least 1, and a micro-batch divides the {PAIRS} pairs of an update")
    return chosen


def run(given: Sequence[str]) -> dict[str, Any] | None:
    """Measure everything; None where the data is not on this machine."""
    chosen = arguments(given)
    data = Path(__file__).resolve().parents[2] / "shared" / "data" / "hh" / "harmless_test_pairs.jsonl"
    if not data.is_file():
        tell(f"{NAME}: skipped, {data} is not on this machine")
        return None
    described = machine(chosen.threads or cores())
    threads = described["threads"]
    settings = {
        "updates": chosen.updates + 1,
        "pairs": PAIRS,
        "layers": chosen.layers,
        "threads": threads,
        "dtype": chosen.dtype,
        "weights": chosen.weights,
    }
    with_trl = installed("trl") is not None
    tell(f"{NAME}: {chosen.layers} layers, {PAIRS} pairs an update, {threads} threads, {described['processor']}")
    if not with_trl:
        tell("  TRL is not installed (pip install -c constraints.txt -e '.[peers]'): smolt is measured alone")
    losses = check_agreement(settings, threads) if with_trl else None
    with TemporaryDirectory(prefix="smolt-bench-") as folder:
        settings |= {"folder": folder}
        shape = in_child(f"bench.{NAME}", "prepare", settings, threads)
        found = [
            measure("smolt", "smolt", "reference in the update", {**settings, "cached": False}, threads),
            measure("smolt", "smolt", "reference cached", {**settings, "cached": True}, threads),
        ]
        for size in chosen.micro_batches if with_trl else []:
            setting = f"micro-batch {size}" + (f", {chosen.weights} weights" if chosen.weights != "bf16" else "")
            found.append(measure("trl", "TRL", setting, {**settings, "micro_batch": size}, threads))
    measured = [part for part in found if part is not None]
    return {
        "bench": NAME,
        "machine": described,
        "settings": {name: value for name, value in settings.items() if name != "folder"},
        "shape": shape,
        "agreement": losses,
        "rows": [part.row() for part in measured],
        **compare(measured),
    }


def compare(measured: Sequence[Measured]) -> dict[str, Any]:
    """How many times TRL's fastest setting smolt needs, both computing the reference in the update."""
    ours = [part for part in measured if part.side == "smolt" and part.setting == "reference in the update"]
    peers = sorted((part for part in measured if part.side == "TRL"), key=lambda part: part.median)
    if not ours or not peers:
        return {}
    whole = [part for part in peers if part.setting.startswith(f"micro-batch {PAIRS}")]
    figures = {"fastest_trl": peers[0].setting, "speedup_over_fastest": peers[0].median / ours[0].median}
    if whole:
        figures["speedup_over_whole_batch"] = whole[0].median / ours[0].median
        figures["memory_of_whole_batch"] = whole[0].peak / ours[0].peak
    return figures


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def table(result: Mapping[str, Any]) -> str:
    """The rows for people."""
    lines = [f"{'side':<7}{'setting':<28}{'s / update':>11}{'peak GiB':>10}{'loaded GiB':>12}"]
    for row in result["rows"]:
        peak, loaded = row["peak_memory"] / 2**30, row["loaded_memory"] / 2**30
        figures = f"{row['seconds_per_update']:>11.2f}{peak:>10.2f}{loaded:>12.2f}"
        lines.append(f"{row['side']:<7}{row['setting']:<28}{figures}")
    if "speedup_over_fastest" in result:
        lines.append(
            f"TRL's fastest ({result['fastest_trl']}) takes {result['speedup_over_fastest']:.2f} x smolt's time"
        )
    return "\n".join(lines)


def main(given: Sequence[str]) -> int:
    """Run from `python -m bench`."""
    try:
        result = run(given)
    except ChildFailed as failed:
        tell(f"{NAME}: {failed}")
        return 1
    if result is None:
        return 0
    tell(table(result))
    if "--json" in given:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    serve({"prepare": prepare, "smolt": smolt_side, "trl": trl_side, "agreement": agreement})

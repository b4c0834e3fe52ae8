"""Seconds and memory of one update, smolt against TRL, on the SmolLM2-135M shape: SFT, reward model, DPO, GRPO, PPO.

Both sides: the same random model, the same rows in the same order, LoRA on q_proj and v_proj, AdamW, bf16 autocast over
frozen bf16 weights, no gradient checkpointing, no truncation. For SFT, reward model and DPO it is first shown that both
compute the same loss in fp32. TRL is measured at several micro-batches with gradient accumulation; its fastest counts.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.alike import ANSWERS
from bench.measuring import ChildFailed, in_child, installed, machine, peak_memory, serve, show, tell

NAME = "against_trl"
MODULE = f"bench.{NAME}"
PAIRS = 8
AGREEMENT = 1e-5


@dataclass(frozen=True)
class Work:
    """One row of the table.

    Attributes:
        work: the stage.
        rows: answers or pairs of an update.
        whole, fastest: the aims against TRL with the update as one batch and against its fastest micro-batch.
        stopping: whether the model's answers end by themselves, at about a third of the limit on average.
    """

    work: str
    rows: int
    whole: float
    fastest: float
    stopping: bool = False


WORKS = {
    "sft": Work("sft", PAIRS, 3, 1.8),
    "reward": Work("reward", PAIRS, 3, 2),
    "dpo": Work("dpo", PAIRS, 5, 2.5),
    "grpo": Work("grpo", ANSWERS, 2.7, 2),
    "grpo_stopping": Work("grpo", ANSWERS, 5, 3.5, stopping=True),
    "ppo": Work("ppo", ANSWERS, 4, 3),
}


# --- in the children --------------------------------------------------------------------------------------------------


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """See bench.hh_pairs."""
    from bench import hh_pairs

    return hh_pairs.prepare(settings)


def smolt_side(settings: dict[str, Any]) -> dict[str, Any]:
    from bench.smolt_side import seconds_of_updates

    return {**seconds_of_updates(settings), "peak": peak_memory()}


def trl_side(settings: dict[str, Any]) -> dict[str, Any]:
    if settings["work"] == "ppo":
        from bench.ppo_side import seconds_of_updates
    else:
        from bench.trl_side import seconds_of_updates

    return {**seconds_of_updates(settings), "peak": peak_memory()}


def agreement(settings: dict[str, Any]) -> dict[str, Any]:
    """The loss of the first update's rows on both sides in fp32, with an adapter that is not zero."""
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
    length: float | None = None

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
            "answer_length": self.length,
        }


def measure(task: str, setting: str, settings: Mapping[str, Any], python: str = sys.executable) -> Measured | None:
    """One setting in a process of its own; None, with the reason told, when it fails (mostly for memory)."""
    began, side = time.perf_counter(), {"smolt": "smolt", "trl": "TRL"}[task]
    try:
        found = in_child(MODULE, task, settings, settings["threads"], python)
    except ChildFailed as failed:
        tell(f"  {side}, {setting}: not measured: {failed}")
        return None
    measured = Measured(side, setting, found["seconds"][1:], found["peak"], found.get("length"))
    tell(f"  {side}, {setting}: {measured.median:.2f} s an update ({time.perf_counter() - began:.0f} s in all)")
    return measured


def check_agreement(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Both losses in fp32 on a two-layer model of the same width.

    Raises:
        ChildFailed: they differ by more than 1e-5: a comparison of speeds would compare different work.
    """
    with TemporaryDirectory(prefix="smolt-bench-") as folder:
        small = {**settings, "folder": folder, "layers": 2, "updates": 1}
        in_child(MODULE, "prepare", small, settings["threads"])
        losses = in_child(MODULE, "agreement", small, settings["threads"])
    if not abs(losses["smolt"] - losses["trl"]) <= AGREEMENT:
        raise ChildFailed(f"the losses differ: {losses}")
    tell(f"  fp32 losses of one batch: smolt {losses['smolt']:.7f}, TRL {losses['trl']:.7f}")
    return losses


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench {NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", help=f"of {', '.join(WORKS)}; all unless given")
    parser.add_argument("--updates", type=int, default=1, help="timed updates, after one of warm-up (1)")
    parser.add_argument("--micro-batches", type=int, nargs="*", default=None, help="TRL's (the whole update, and 2)")
    parser.add_argument("--layers", type=int, default=30, help="fewer than 30 for a quick look")
    parser.add_argument("--threads", type=int, default=None, help="all cores unless given")
    parser.add_argument("--weights", choices=["bf16", "fp32"], default="bf16", help="TRL's frozen weights (bf16)")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16", help="what both sides compute in (bf16)")
    parser.add_argument("--ppo-python", default=".venv-ppo/bin/python", help="interpreter with trl==1.12.0, for ppo")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    chosen = parser.parse_args(given)
    unknown = [work for work in chosen.works if work not in WORKS]
    if unknown:
        parser.error(f"unknown work {unknown[0]}; there are {', '.join(WORKS)}")
    if chosen.updates < 1 or any(PAIRS % size and ANSWERS % size for size in chosen.micro_batches or []):
        parser.error(f"--updates is at least 1, and a micro-batch divides the {PAIRS} rows of an update")
    return chosen


def run(given: Sequence[str]) -> dict[str, Any] | None:
    """Measure everything; None where the data is not on this machine."""
    chosen = arguments(given)
    data = Path(__file__).resolve().parents[2] / "shared" / "data" / "hh" / "harmless_test_pairs.jsonl"
    if not data.is_file():
        tell(f"{NAME}: skipped, {data} is not on this machine")
        return None
    described = machine(chosen.threads or cores())
    tell(f"{NAME}: {chosen.layers} layers, {described['threads']} threads, {described['processor']}")
    if installed("trl") is None:
        tell("  TRL is not installed (pip install -c constraints.txt -e '.[peers]'): smolt is measured alone")
    return {
        "bench": NAME,
        "machine": described,
        "works": {name: one_work(name, chosen, described["threads"]) for name in chosen.works or WORKS},
    }


def one_work(name: str, chosen: argparse.Namespace, threads: int) -> dict[str, Any]:
    """One row of the table."""
    work = WORKS[name]
    settings = {
        "work": work.work,
        "updates": chosen.updates + 1,
        "pairs": PAIRS,
        "layers": chosen.layers,
        "threads": threads,
        "dtype": chosen.dtype,
        "weights": chosen.weights,
        "stopping": work.stopping,
    }
    tell(name)
    offline = work.work in ("sft", "reward", "dpo")
    losses = check_agreement(settings) if offline and installed("trl") else None
    with TemporaryDirectory(prefix="smolt-bench-") as folder:
        settings |= {"folder": folder}
        in_child(MODULE, "prepare", settings, threads)
        found = [measure("smolt", "reference in the update" if name == "dpo" else "", settings)]
        if name == "dpo":
            found.append(measure("smolt", "reference cached", {**settings, "cached": True}))
        for size in peers(work, chosen):
            python = chosen.ppo_python if work.work == "ppo" else sys.executable
            found.append(measure("trl", f"micro-batch {size}", {**settings, "micro_batch": size}, python))
    measured = [part for part in found if part is not None]
    return {"agreement": losses, "rows": [part.row() for part in measured], **compare(measured, work)}


def peers(work: Work, chosen: argparse.Namespace) -> list[int]:
    """TRL's micro-batches; none without TRL."""
    there = Path(chosen.ppo_python).is_file() if work.work == "ppo" else installed("trl") is not None
    if not there:
        tell(f"  {work.work}: the peer is not installed")
        return []
    sizes: list[int] = chosen.micro_batches or [work.rows, 2]
    return [size for size in sizes if work.rows % size == 0]


def compare(measured: Sequence[Measured], work: Work) -> dict[str, Any]:
    """How many times smolt's time TRL needs, with the update as one batch and at its fastest, beside the aims."""
    ours = [part for part in measured if part.side == "smolt" and "cached" not in part.setting]
    theirs = sorted((part for part in measured if part.side == "TRL"), key=lambda part: part.median)
    if not ours or not theirs:
        return {}
    figures: dict[str, Any] = {
        "fastest_trl": theirs[0].setting,
        "speedup_over_fastest": theirs[0].median / ours[0].median,
        "aim_over_fastest": work.fastest,
        "memory_of_fastest": theirs[0].peak / ours[0].peak,
    }
    whole = [part for part in theirs if part.setting == f"micro-batch {work.rows}"]
    if whole:
        figures["speedup_over_whole_batch"] = whole[0].median / ours[0].median
        figures["aim_over_whole_batch"] = work.whole
        figures["memory_of_whole_batch"] = whole[0].peak / ours[0].peak
    return figures


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def table(result: Mapping[str, Any]) -> str:
    """The rows for people."""
    lines = [f"{'work':<15}{'side':<7}{'setting':<25}{'s / update':>11}{'peak GiB':>10}"]
    for name, work in result["works"].items():
        for row in work["rows"]:
            figures = f"{row['seconds_per_update']:>11.2f}{row['peak_memory'] / 2**30:>10.2f}"
            length = f"  {row['answer_length']:.0f} tokens an answer" if row["answer_length"] else ""
            lines.append(f"{name:<15}{row['side']:<7}{row['setting']:<25}{figures}{length}")
        for kind in ("whole_batch", "fastest"):
            if f"speedup_over_{kind}" in work:
                speed, aim = work[f"speedup_over_{kind}"], work[f"aim_over_{kind}"]
                share = 1 / work[f"memory_of_{kind}"]
                words = {"whole_batch": "the update as one batch", "fastest": f"fastest, {work['fastest_trl']}"}[kind]
                lines.append(
                    f"  TRL ({words}) takes {speed:.2f} x smolt's time (aim {aim:g}); memory {share:.0%} of it"
                )
    return "\n".join(lines)


def main(given: Sequence[str]) -> int:
    """Run from `python -m bench`."""
    return show(NAME, run, table, given)


if __name__ == "__main__":
    serve({"prepare": prepare, "smolt": smolt_side, "trl": trl_side, "agreement": agreement})

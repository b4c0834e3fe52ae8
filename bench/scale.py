"""What more processes would do to each algorithm, and what shards to memory, computed from measured parts.

Nothing is measured here. The parts come from the files of `bench/results` that stand beside them; networks between the
processes are assumed and named. docs/why/scale.md holds what this prints.

    python -m bench.scale              # processes on one training, bytes, memory
    python -m bench.scale --study DIR  # parts of a study that one process has run: DIR's own times, scheduled anew
"""

import argparse
import heapq
import itertools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

from bench.hh_pairs import SMOLLM2_135M
from smolt.config import StudyRecipe
from smolt.runs.identity import read_manifest
from smolt.study.jobs import StudyJob, jobs_of
from smolt.study.places import Places
from smolt.training.memory.footprint import Batch, Network, Way, activations, logprobs, trained
from smolt.training.memory.shapes import shape_of, short_keys

PROCESSES = (1, 8, 64, 512)
GIB = 2**30

ANSWER = 96
"""Tokens of an answer in the measured updates of GRPO and PPO."""

STEPS = {1: 0.0125, 16: 0.0325, 64: 0.0891}
"""Answers side by side -> seconds of a decoding step; bf16, SmolLM2-135M: bench/results/2026-11-30-decoding.md."""

OWN = 0.101 * 0.29
"""Seconds of an update outside the library's operators, which every process spends: 2026-11-25-epyc-2-cores.md."""

NETWORKS = {"1 Gbit/s": 125e6, "10 Gbit/s": 1.25e9, "100 Gbit/s": 12.5e9}
"""Bytes a second between two processes; assumed."""

LATENCY = 50e-6
"""Seconds of one message; assumed."""


@dataclass(frozen=True)
class Algorithm:
    """One measured update of SmolLM2-135M, bf16, LoRA r8 on q and v, 2 threads.

    Attributes:
        items: answers or pairs of the update.
        seconds: of it: bench/results/2026-11-25-epyc-2-cores.md.
        sampled: whether it samples its items.
    """

    items: int
    seconds: float
    sampled: bool = False

    @property
    def learning(self) -> float:
        """Seconds an item beside sampling: scoring, reference, forward and backward passes."""
        return (self.seconds - OWN - sampling(self.items) * self.sampled) / self.items


ALGORITHMS = {
    "sft": Algorithm(8, 1.73),
    "reward": Algorithm(8, 1.94),
    "dpo": Algorithm(8, 3.33),
    "grpo": Algorithm(16, 8.17, sampled=True),
    "ppo": Algorithm(16, 21.09, sampled=True),
}


def step(answers: float) -> float:
    """Seconds of a decoding step of up to 64 answers, between the measured ones by a straight line."""
    known = sorted(STEPS.items())
    for (fewer, fast), (more, slow) in itertools.pairwise(known):
        if answers <= more:
            return fast + (slow - fast) * (answers - fewer) / (more - fewer)
    raise ValueError(f"{answers} answers are more than were measured side by side")


def sampling(answers: int) -> float:
    """Seconds to sample answers of one length, 64 side by side."""
    most = max(STEPS)
    whole, rest = divmod(answers, most)
    return ANSWER * (whole * step(most) + (step(rest) if rest else 0.0))


def reducing(count: int, processes: int, network: float) -> float:
    """Seconds to add up so many bytes among processes, in a ring."""
    if processes == 1:
        return 0.0
    return 2 * (processes - 1) / processes * count / network + 2 * (processes - 1) * LATENCY


def update(algorithm: Algorithm, items: int, processes: int, count: int, network: float) -> tuple[float, float]:
    """Seconds of an update, and of its sampling: those of the process with the largest share."""
    share = -(-items // processes)
    drawn = sampling(share) if algorithm.sampled else 0.0
    return drawn + algorithm.learning * share + OWN + reducing(count, processes, network), drawn


MODELS: dict[str, LlamaConfig | Qwen2Config] = {
    "135M (SmolLM2)": LlamaConfig(**SMOLLM2_135M),
    "0.5B (Qwen2.5)": Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "1.2B (Llama 3.2)": LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    ),
}
NARROW = Way(half=True, rank=8, targets=frozenset({"q_proj", "v_proj"}))
FULL = Way(half=True, rank=0)
LENGTH = 512
"""Tokens of each answer of a micro-batch of the memory table."""


def shapes() -> dict[str, Network]:
    """The models' shapes; no weights are made."""
    found = {}
    for name, config in MODELS.items():
        with torch.device("meta"):
            network: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        shape = shape_of(network)
        assert shape is not None
        found[name] = shape
    return found


def held(network: Network, answers: int, recomputed: bool, shards: int) -> dict[str, float]:
    """Bytes of full fine-tuning on one of several shards, by part; fp32 weights, gradients and moments."""
    way, tokens = Way(half=True, rank=0, recomputed=recomputed), answers * LENGTH
    scores = answers * LENGTH**2 if short_keys(way) >= LENGTH else 0
    state = {"weights": 4.0, "gradients": 4.0, "moments": 8.0}
    parts = {name: each * network.parameters / shards for name, each in state.items()}
    kept = activations(network, way, Batch(tokens, tokens, scores, tokens))
    gathered = 0
    if shards > 1:
        block, head = network.blocks // network.layers, network.vocabulary * network.width
        gathered = 2 * 2 * (block + max(block, head)) + 4 * max(block, head)  # two units in bf16, a gradient in fp32
        kept -= 2 * network.blocks  # which autocast keeps of whole weights
    return {**parts, "gathered": gathered, "activations": kept, "logits": logprobs(network, way, tokens)}


def printed(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table in Markdown."""
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print()


def tables() -> None:
    """Processes on one training, bytes, memory."""
    sizes = shapes()
    adapters = 4 * trained(sizes["135M (SmolLM2)"], NARROW)
    for items in (64, 512):
        rows = []
        for name, algorithm in ALGORITHMS.items():
            found = [update(algorithm, items, n, adapters, NETWORKS["1 Gbit/s"]) for n in PROCESSES]
            cells = [f"{found[0][0] / seconds:.1f}" for seconds, _ in found[1:]]
            shares = [f"{drawn / seconds:.0%}" for seconds, drawn in (found[0], found[-1])] if algorithm.sampled else []
            rows.append([name, f"{found[0][0]:.1f}", *cells, *(shares or ["", ""])])
        most = [f"{n}: times as fast" for n in PROCESSES[1:]]
        printed([f"{items} items an update", "1 process, s", *most, "sampling, 1", "sampling, 512"], rows)
    rows = []
    for name, shape in sizes.items():
        for trains, way in (("LoRA r8, q and v", NARROW), ("all weights", FULL)):
            count = 4 * trained(shape, way)
            seconds = [f"{reducing(count, 8, network):.2g}" for network in NETWORKS.values()]
            rows.append([name, trains, f"{count / 1e6:,.1f}", *seconds])
    printed(["model", "trained", "MB a step", *(f"8 processes, {name}, s" for name in NETWORKS)], rows)
    rows = []
    for name, shape in sizes.items():
        for answers, again in ((8, False), (8, True), (1, True)):
            one = held(shape, answers, again, 1)
            state = sum(one[part] for part in ("weights", "gradients", "moments"))
            whole = [f"{sum(held(shape, answers, again, shards).values()) / GIB:.1f}" for shards in (1, 2, 8)]
            kept = (one["activations"] + one["logits"]) / GIB
            batch = f"{answers} x {LENGTH}, {'recomputed' if again else 'kept'}"
            rows.append([name, batch, f"{state / GIB:.1f}", f"{kept:.1f}", *whole])
    printed(["model", "micro-batch, layers", "state, GiB", "activations", "1 device", "2 shards", "8 shards"], rows)


def job_seconds(places: Places) -> dict[str, float]:
    """Seconds of each job of a study that one process ran: between the moments when it was whole and the one before."""
    ends = {job.name: _ended(places, job) for job in jobs_of(places)}
    times = [(places.out / "manifest.json").stat().st_mtime, *ends.values()]
    return {name: end - before for (name, end), before in zip(ends.items(), times, strict=False)}


def _ended(places: Places, job: StudyJob) -> float:
    if job.section is not None:
        return (places.folder(job.section.name, job.seed) / "result.json").stat().st_mtime
    if job.arm is not None:
        files = [path for file in places.exam_files for path in places.measured(job.arm, job.seed, file)]
        return max(path.stat().st_mtime for path in files)
    return (places.out / "result.json").stat().st_mtime


def scheduled(jobs: Sequence[StudyJob], seconds: dict[str, float], parts: int) -> float:
    """Seconds until parts have done all jobs, each taking the first that is ready."""
    waiting, done, now = list(jobs), set[str](), 0.0
    busy: list[tuple[float, str]] = []
    while waiting or busy:
        for job in [job for job in waiting if job.needs <= done][: parts - len(busy)]:
            waiting.remove(job)
            heapq.heappush(busy, (now + seconds[job.name], job.name))
        now, name = heapq.heappop(busy)
        done.add(name)
    return now


def study(out: Path, seeds: int) -> None:
    """What parts would do to a study, with as many seeds."""
    recipe = StudyRecipe.model_validate(read_manifest(out)["recipe"])
    measured = job_seconds(Places(recipe, out.resolve()))
    rows = []
    for count in sorted({1, seeds}):
        settings = recipe.study.model_copy(update={"seeds": tuple(range(count))})
        jobs = jobs_of(Places(recipe.model_copy(update={"study": settings}), out.resolve()))
        seconds = {job.name: measured[job.name.removeprefix(f"seed-{job.seed}+")] for job in jobs}
        found = [scheduled(jobs, seconds, parts) for parts in (1, 2, 4, 8, 64)]
        rows.append([count, len(jobs), f"{found[0]:.0f}", *(f"{found[0] / each:.1f}" for each in found[1:])])
    printed(["seeds", "jobs", "1 part, s", *(f"{n}: times as fast" for n in (2, 4, 8, 64))], rows)


def main(given: Sequence[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, help="the directory of a study that one process has run")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args(given)
    if asked.study is None:
        tables()
    else:
        study(asked.study, asked.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

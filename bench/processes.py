"""Two processes of one thread against one process of two threads: sampling, and optimizer steps, in turns.

python -m bench.processes MODEL [--dtype fp32] [--rounds 5] [--answers 64] [--tokens 96] [--rows 16] [--length 256]

Sampling: so many answers, each to a context of its own of 40 tokens; nothing stops. Training: an optimizer step of SFT
over so many rows, by an adapter (r8 on q and v) and by all weights, whose gradients are added up over the processes. A
round starts each side anew and takes the median of three repetitions after one that warms up; the table gives the
median over the rounds and their range. Both sides do the same work, and their answers are compared.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from statistics import median
from typing import Any

import torch

from bench.measuring import processor
from smolt import processes
from smolt.config import Model, make_block, make_recipe
from smolt.models.ground import Ground, open_ground
from smolt.models.groups import Groups, from_answers
from smolt.models.roles import open_policy
from smolt.models.sampling import Drawing, sample
from smolt.models.saving import load_policy
from smolt.training.fit import Learner, Role, accumulate
from smolt.training.offline import sft_loss

CONTEXT = 40
REPETITIONS = 3
SIDES = {"1 x 2": (1, 2), "2 x 1": (2, 1)}
"""Side -> processes, and threads of each."""

WORK = ("sampling", "step, adapter", "step, all weights")


def contexts(count: int, length: int, number: int) -> list[list[int]]:
    """Random tokens."""
    draw = torch.Generator().manual_seed(number)
    found: list[list[int]] = torch.randint(5, 10_000, (count, length), generator=draw).tolist()
    return found


def seconds(work: Callable[[int], object]) -> float:
    """The median time of one repetition, the first one left out."""
    times = []
    for number in range(REPETITIONS + 1):
        processes.gather(None)  # all begin at once
        began = time.perf_counter()
        work(number)
        processes.gather(None)
        times.append(time.perf_counter() - began)
    return median(times[1:])


def steps_of(ground: Ground, lora: bool, rows: int, length: int) -> Callable[[int], object]:
    """An optimizer step of SFT."""
    adapter = {"lora": {"rank": 8, "alpha": 16.0, "targets": ["q_proj", "v_proj"]}} if lora else {}
    recipe: Any = make_recipe("sft", model="none", data="none", budget={"updates": 100}, **adapter)
    policy = open_policy(ground.located, ground.precision, recipe.lora, 0)
    learner = Learner({"policy": Role(policy.parameters())}, recipe.optim, 100)
    room = policy.trunk.micro_tokens(recipe.budget.memory)

    def step(number: int) -> None:
        tokens = contexts(rows, length, number)
        batch: Groups = from_answers([row[:CONTEXT] for row in tokens], [[row[CONTEXT:]] for row in tokens])
        _, counts = accumulate(batch, sft_loss(policy), room)
        learner.step(learner.divide(counts), number, frozenset(("policy",)))

    return step


def measured(choice: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """What one side takes for each kind of work."""
    ground = open_ground(make_block(Model, path=choice.model, dtype=choice.dtype, device="cpu", threads=choice.threads))
    policy = load_policy(choice.model, ground.precision)
    drawing = Drawing(choice.tokens, 1.0, choice.answers, frozenset())
    answers: list[Groups] = []

    def sampling(number: int) -> None:
        answers.append(sample(policy, contexts(choice.answers, CONTEXT, number), 1, drawing, (0, 0, number)))

    yield WORK[0], seconds(sampling)
    drawn = sha256(json.dumps([row.tolist() for found in answers for row in found.answers]).encode())
    yield "answers", int(drawn.hexdigest()[:12], 16)
    for name, lora in zip(WORK[1:], (True, False), strict=True):
        yield name, seconds(steps_of(ground, lora, choice.rows, choice.length))


def side(name: str, given: list[str]) -> dict[str, float]:
    """What a side says of itself, in processes of its own."""
    count, threads = SIDES[name]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(count)] if count > 1 else []
    command = [sys.executable, *launcher, "-m", "bench.processes", *given, "--threads", str(threads), "--side"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--answers", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    choice = parser.parse_args()
    if choice.side:
        found = dict(measured(choice))
        if processes.first():
            print(json.dumps(found), flush=True)
        return
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for _ in range(choice.rounds):
        for name in SIDES:
            rounds[name].append(side(name, sys.argv[1:]))
            said = ", ".join(f"{work} {rounds[name][-1][work]:.2f} s" for work in WORK)
            print(f"{name}: {said}", file=sys.stderr, flush=True)
    print(f"{processor()}, torch {torch.__version__}, {choice.dtype}\n")
    print(f"| work | {', s | '.join(SIDES)}, s | times as fast |\n|{'---|' * (len(SIDES) + 2)}")
    for work in WORK:
        times = {name: [found[work] for found in rounds[name]] for name in SIDES}
        cells = [f"{median(own):.2f} ({min(own):.2f} to {max(own):.2f})" for own in times.values()]
        one, two = (median(own) for own in times.values())
        print(f"| {work} | {' | '.join(cells)} | {one / two:.2f} |")
    alike = {found["answers"] for of in rounds.values() for found in of}
    print(f"\nThe answers of both sides are {'the same' if len(alike) == 1 else 'NOT the same'}.")


if __name__ == "__main__":
    main()

"""The decoding step as it is, from weights in int8, without its compiled parts, and with the library's product too.

python -m bench.decoding MODEL [--slots 1 16 64] [--dtypes fp32 bf16] [--threads 1 2] [--tokens 64] [--rounds 5]

Each answer has a context of its own, 40 tokens; nothing stops. The sides take turns. The figure of a round is its
median step, in ms; the table gives the median over the rounds and their range, how many times as fast int8 is as the
step as it is, and the tokens a second of the latter.
"""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from unittest.mock import patch

import torch

from bench.measuring import processor
from smolt.config import Model, make_block
from smolt.models.forward import decode_step
from smolt.models.ground import open_ground
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing, answer_in_int8, sample
from smolt.models.sampling.slots import Slots
from smolt.models.saving import load_policy

CONTEXT = 40
LEFT_OUT = {"as it is": (), "int8": (), "torch's operations": ("kernels",), "and products": ("kernels", "_has_order")}
"""Side -> what of the decoder finds nothing."""


@contextmanager
def timed(steps: list[float]) -> Iterator[None]:
    """Notes the seconds of every decoding step."""
    whole = Slots.step

    def step(self: Slots) -> object:
        began = time.perf_counter()
        found = whole(self)
        steps.append(time.perf_counter() - began)
        return found

    with patch.object(Slots, "step", step):
        yield


def round_of(policy: Policy, side: str, slots: int, tokens: int, number: int) -> float:
    """The median step of one round, ms."""
    draw = torch.Generator().manual_seed(number)
    contexts = torch.randint(5, 10_000, (slots, CONTEXT), generator=draw).tolist()
    steps: list[float] = []
    drawing = Drawing(tokens, 1.0, slots, frozenset())
    with ExitStack() as patched:
        for name in LEFT_OUT[side]:
            patched.enter_context(patch.object(decode_step, name, lambda dtype: None))
        patched.enter_context(timed(steps))
        sample(policy, contexts, 1, drawing, (0, 0, number))
    return median(steps) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--slots", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--threads", nargs="+", type=int, default=[os.cpu_count() or 1])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    choice = parser.parse_args()
    print(f"{processor()}, torch {torch.__version__}\n")
    print(f"| dtype | threads | answers | {', ms | '.join(LEFT_OUT)}, ms | int8 | tokens/s |\n|{'---|' * 9}")
    notes = []
    for dtype in choice.dtypes:
        ground = open_ground(make_block(Model, path=choice.model, dtype=dtype, device="cpu"))
        policy = load_policy(choice.model, ground.precision)
        rounded = load_policy(choice.model, ground.precision)
        notes.append(answer_in_int8(rounded, ground.renderer, ground.window, choice.model))
        for threads in choice.threads:
            torch.set_num_threads(threads)
            for slots in choice.slots:
                found: dict[str, list[float]] = {side: [] for side in LEFT_OUT}
                for number in range(choice.rounds):
                    for side in LEFT_OUT:
                        who = rounded if side == "int8" else policy
                        found[side].append(round_of(who, side, slots, choice.tokens, number))
                middle = {side: median(found[side]) for side in LEFT_OUT}
                cells = [f"{middle[side]:.1f} ({min(found[side]):.1f} to {max(found[side]):.1f})" for side in LEFT_OUT]
                ratio, speed = middle["as it is"] / middle["int8"], 1000 * slots / middle["as it is"]
                row = f"| {dtype} | {threads} | {slots} | {' | '.join(cells)} | {ratio:.2f} x | {speed:.0f} |"
                print(row, flush=True)
    print("", *notes, sep="\n")


if __name__ == "__main__":
    main()

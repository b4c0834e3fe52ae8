"""Where and how precisely to compute; on a processor also what it does fastest, measured in about two seconds.

Two threads can be slower than one on a small model, and bf16 slower than fp32 where the processor has no instructions
for it; neither can be known from a name. A block of linear layers of the model's own width is run with each choice.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from smolt import processes
from smolt.errors import UserError
from smolt.models.forward.process_group import join
from smolt.runs.chunks import SAID

LOG = logging.getLogger(__name__)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

KERNEL_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
KERNELS = 128
"""How many products of bf16 torch may keep ready on a processor, in each of two caches.

Each number of tokens is a product of its own for every shape of weights, and keeps about a megabyte. Both caches hold
1,024 unless told otherwise: gigabytes in a training whose rows differ (findings/bf16-shapes-keep-memory.sh). The
variables are read at the first product of a process, and what the user has set stays.
"""


@dataclass(frozen=True)
class Precision:
    """Where and how precisely to compute; settled before update 1 and written to the manifest."""

    device: torch.device
    dtype: torch.dtype

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in `dtype`; parameters stay as they are stored."""
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            yield


def choose_precision(device: str, dtype: str, threads: int | None = None) -> Precision:
    """Settle `auto`: cuda, then mps, then cpu; bf16 on a cuda card that has it, else fp32.

    Processes that were launched together are joined by now, each with its own card where there are cards.

    Raises:
        UserError: the device is not there, or fp16 on the CPU.
    """
    join()
    if threads is not None:
        torch.set_num_threads(threads)
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    chosen = next(name for name in ("cuda", "mps", "cpu") if present[name]) if device == "auto" else device
    if not present[chosen]:
        raise UserError(f"model.device: {chosen} is not available on this machine; write auto or cpu")
    if dtype == "auto":
        dtype = "bf16" if chosen == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if chosen == "cpu":
        _keep_few_kernels()
    if chosen == "cpu" and dtype == "fp16":
        raise UserError("model.dtype: fp16 is not for the CPU; write fp32 or bf16")
    return Precision(torch.device(chosen), DTYPES[dtype])


def _keep_few_kernels() -> None:
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, str(KERNELS))


Rates = Mapping[tuple[str, int], float]
"""(dtype, threads) -> GFLOP/s of the block."""

ROWS, TASTE = 256, 16  # tokens of the block, and of the part that is tried first
SECONDS = 1.0
WORTHWHILE = 1.2  # bf16 rounds to 8 bits: it is taken where it is faster by at least this factor
UNSURE = 1.15  # nearer to that factor than by this one, the measurement of a second may fall on either side
AS_GOOD = 0.95  # fewer threads that reach this share of the best rate leave the others to other work
NARROW = 256  # below this width the rounding of bf16 buys nothing, and fp32 is taken unmeasured
USUAL = (576, 1536)  # width and feed-forward width of SmolLM2-135M, where there is no model to ask


def choose(rates: Rates) -> tuple[str, int]:
    """The dtype and threads to compute with: a pure function of measured rates.

    Args:
        rates: at least one, of fp32 and bf16 or of one of them.
    """
    best = _best(rates)
    dtype = next(iter(best))
    if len(best) > 1:
        dtype = "bf16" if best["bf16"] >= WORTHWHILE * best["fp32"] else "fp32"
    threads = min(count for (name, count), rate in rates.items() if name == dtype and rate >= AS_GOOD * best[dtype])
    return dtype, threads


def closeness(rates: Rates) -> str:
    """How much faster bf16 was than fp32 beside what it takes, and whether another measurement may decide otherwise.

    Args:
        rates: of both.
    """
    best = _best(rates)
    factor = best["bf16"] / best["fp32"]
    said = f"bf16 {best['bf16']:.0f} and fp32 {best['fp32']:.0f} GFLOP/s, {factor:.2f} times as fast; "
    said += f"bf16 is taken from {WORTHWHILE:g} times on"
    if WORTHWHILE / UNSURE <= factor <= WORTHWHILE * UNSURE:
        said += ": close, so that another start may choose otherwise (dtype: fp32 or bf16 fixes it)"
    return said


def _best(rates: Rates) -> dict[str, float]:
    """The rate of each dtype with the threads that suit it."""
    return {name: max(rate for (dtype, _), rate in rates.items() if dtype == name) for name, _ in rates}


def thread_counts(most: int) -> list[int]:
    """1, 2, 4 ... and `most`."""
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})


@cache
def measure(width: int, mlp: int, dtypes: tuple[str, ...], threads: tuple[int, ...]) -> Rates:
    """GFLOP/s of a block of this width with each dtype and number of threads; measured once a process."""
    _keep_few_kernels()
    before = torch.get_num_threads()
    share = SECONDS / (len(dtypes) * len(threads))
    try:
        return {(name, count): _rate(width, mlp, name, count, share) for name in dtypes for count in threads}
    finally:
        torch.set_num_threads(before)


def settle(dtype: str, threads: int | None, width: int, mlp: int) -> tuple[str, int]:
    """Dtype and threads for the CPU, where `auto` and None are to be measured."""
    dtypes: Sequence[str] = [dtype]
    if dtype == "auto":
        dtypes = ["fp32"] if width < NARROW else ["fp32", "bf16"]
    counts = [threads] if threads is not None else thread_counts(available())
    if len(dtypes) == len(counts) == 1:
        return dtypes[0], counts[0]
    LOG.info("measuring which precision is fastest here")
    name, count = choose(measure(width, mlp, tuple(dtypes), tuple(counts)))
    LOG.log(SAID, "%s on %d thread%s, measured", name, count, "" if count == 1 else "s")
    return name, count


def available() -> int:
    """Threads that may be used: this process's part of the cores it may run on, or OMP_NUM_THREADS if less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, cores // processes.local_size())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(asked))) if asked.isdigit() else cores


def _rate(width: int, mlp: int, dtype: str, threads: int, seconds: float) -> float:
    """GFLOP/s of the fastest of as many runs as fit into the time, at least one after the first.

    A processor without instructions for a dtype can be a hundred times slower: then a part of the block is enough.
    """
    torch.set_num_threads(threads)
    draw = torch.Generator().manual_seed(0)
    shapes = ((ROWS, width), (width, 3 * width), (width, width), (width, 2 * mlp), (mlp, width))
    rows, joint, out, gates, down = (torch.randn(shape, generator=draw).to(DTYPES[dtype]) for shape in shapes)
    operations = 2 * sum(weight.numel() for weight in (joint, out, gates, down))

    def run(block: torch.Tensor) -> float:
        began = time.perf_counter()
        first, second = (((block @ joint)[:, :width] @ out) @ gates).chunk(2, dim=1)
        _ = (torch.nn.functional.silu(first) * second) @ down
        return max(time.perf_counter() - began, 1e-9)

    with torch.no_grad():
        part = rows[:TASTE]
        run(part)  # the first one warms up
        taste = run(part)
        if taste * ROWS / TASTE > seconds:
            return operations * TASTE / taste / 1e9
        run(rows)
        ends, fastest = time.perf_counter() + seconds, float("inf")
        while fastest == float("inf") or time.perf_counter() < ends:
            fastest = min(fastest, run(rows))
    return operations * ROWS / fastest / 1e9

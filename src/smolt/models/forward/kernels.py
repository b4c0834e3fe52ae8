"""The compiled parts of a decoding step (decode_step.c): built once for this machine, where it has a C compiler.

They are called on the tensors' own memory, and run on the OpenMP threads that torch has started. Where there is no
compiler, or it fails, the step is computed by torch's operations: the same numbers but for the last bits.
"""

import contextlib
import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from smolt.runs.storage import atomic_write

LOG = logging.getLogger("smolt")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
SWITCH = "SMOLT_COMPILE"
"""The environment variable that forbids a compiler where it is 0."""
PATIENCE = 60
"""Seconds that a compiler may take; it takes less than one."""

WHOLE, FLOAT, PLACE = ctypes.c_long, ctypes.c_float, ctypes.c_void_p
ARGUMENTS = {
    "norm": (PLACE, PLACE, WHOLE, PLACE, PLACE, WHOLE, WHOLE, FLOAT, ctypes.c_int),
    "gate": (PLACE, WHOLE, PLACE, WHOLE, WHOLE, ctypes.c_int),
    "attend": (
        *(PLACE, WHOLE, PLACE, PLACE, PLACE, PLACE, FLOAT),
        *(PLACE, PLACE, WHOLE, WHOLE),
        *(PLACE, PLACE, WHOLE, WHOLE),
        *(PLACE, PLACE, FLOAT, FLOAT, PLACE, WHOLE, WHOLE, WHOLE, WHOLE, ctypes.c_int),
    ),
    "product": (PLACE, PLACE, PLACE, PLACE, PLACE, WHOLE, WHOLE, WHOLE, WHOLE, ctypes.c_int),
    "product_of_bytes": (*(PLACE,) * 7, WHOLE, WHOLE, WHOLE, ctypes.c_int),
}

WIDEST = 2**16
"""Columns of a weight in int8 whose products with a byte are summed in 32 bits."""
BLOCK = 2**23
"""Numbers of a weight that are turned into int8, or back, at a time."""


@dataclass(frozen=True)
class Int8:
    """A weight in int8 with a scale for each row: `values * scales[:, None]` stands for it.

    Attributes:
        values: int8 [out, in], from -127 to 127.
        scales: fp32 [out], the largest size of a row over 127; 0 for a row of zeros.
        sums: int32 [out], of each row's values.
    """

    values: Tensor
    scales: Tensor
    sums: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> "Int8":
        """Each number to the nearest of its row: off by half a scale at most.

        Args:
            weight: [out, in], on a processor.

        Raises:
            NotImplementedError: its rows are longer.
        """
        rows, columns = weight.shape
        if columns > WIDEST:
            raise NotImplementedError(f"no int8 for a product of {columns:,} columns")
        values, scales = torch.empty(rows, columns, dtype=torch.int8), torch.empty(rows)
        for some in _blocks(rows, columns):
            exact = weight[some].detach().float()
            scales[some] = exact.abs().amax(dim=1) / 127
            values[some] = (exact / scales[some, None].clamp(min=torch.finfo(torch.float32).tiny)).round_()
        return cls(values, scales, values.sum(dim=1, dtype=torch.int32))

    def restored(self, dtype: torch.dtype) -> Tensor:
        """What it stands for, [out, in]."""
        weight = torch.empty(self.values.shape, dtype=dtype)
        for some in _blocks(*self.values.shape):
            weight[some] = self.values[some] * self.scales[some, None]
        return weight

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return int(self.values.nbytes + self.scales.nbytes + self.sums.nbytes)


def _blocks(rows: int, columns: int) -> list[slice]:
    size = max(1, BLOCK // columns)
    return [slice(start, start + size) for start in range(0, rows, size)]


class Kernels:
    """The functions of one library, on tensors of one precision; rows are contiguous, and may be apart."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = {name: getattr(library, name) for name in ARGUMENTS}
        for name, types in ARGUMENTS.items():
            self._functions[name].argtypes, self._functions[name].restype = types, None
        for name in ("attend", "product", "product_of_bytes"):
            self._functions[name].restype, self._functions[name].errcheck = ctypes.c_int, _require_memory

    def norm(self, states: Tensor, more: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """Add `more` to states [rows, width] in place; the root mean square norm of the sum."""
        normed, (rows, width) = torch.empty_like(states), states.shape
        beside = (0, 0) if more is None else (more.data_ptr(), more.stride(0))
        self._functions["norm"](
            states.data_ptr(), *beside, weight.data_ptr(), normed.data_ptr(), rows, width, eps, torch.get_num_threads()
        )
        return normed

    def gate(self, gates: Tensor) -> Tensor:
        """[rows, 2 width] -> [rows, width]: SiLU of the first half, times the second."""
        rows, width = len(gates), gates.shape[1] // 2
        out = gates.new_empty(rows, width)
        self._functions["gate"](gates.data_ptr(), gates.stride(0), out.data_ptr(), rows, width, torch.get_num_threads())
        return out

    def product(self, states: Tensor, parts: tuple[tuple[Tensor, Tensor | None], ...], exact: bool = False) -> Tensor:
        """States [rows, in] times weights [out, in] transposed, plus biases, side by side.

        Args:
            states: few rows, for which reading the weights is all the work.
            parts: weights as the network stores them, and their biases.
            exact: keep the sums in fp32; for one part.
        """
        rows, threads, column = len(states), torch.get_num_threads(), 0
        width = sum(len(weight) for weight, _ in parts)
        out = states.new_empty(rows, width, dtype=torch.float32 if exact else states.dtype)
        for weight, bias in parts:
            place = out.data_ptr() + column * out.element_size()
            self._functions["product"](
                states.data_ptr(),
                weight.data_ptr(),
                0 if bias is None else bias.data_ptr(),
                *((0, place) if exact else (place, 0)),
                *(rows, states.shape[1], len(weight), width, threads),
            )
            column += len(weight)
        return out

    def product_of_bytes(self, states: Tensor, weight: Int8, bias: Tensor | None, exact: bool = False) -> Tensor:
        """States [rows, in] times what a weight in int8 [out, in] stands for, transposed, plus bias.

        The states are not rounded further than fp32 is: each is three bytes, and sums are whole numbers.

        Args:
            states: few rows.
            weight: [out, in].
            bias: [out], of the states' dtype; None without.
            exact: keep the sums in fp32.
        """
        (rows, columns), outs = states.shape, len(weight.values)
        out = states.new_empty(rows, outs, dtype=torch.float32 if exact else states.dtype)
        self._functions["product_of_bytes"](
            *(states.data_ptr(), weight.values.data_ptr(), weight.scales.data_ptr(), weight.sums.data_ptr()),
            0 if bias is None else bias.data_ptr(),
            *((0, out.data_ptr()) if exact else (out.data_ptr(), 0)),
            *(rows, columns, outs, torch.get_num_threads()),
        )
        return out

    def attend(
        self,
        mixed: Tensor,
        angles: tuple[Tensor, Tensor],
        norms: tuple[Tensor | None, Tensor | None, float],
        own: tuple[Tensor, Tensor, int],
        shared: tuple[Tensor, Tensor, int] | None,
        places: Tensor,
        bias: Tensor,
        scaling: float,
    ) -> Tensor:
        """Turn queries and keys, write keys and values, attend.

        Args:
            mixed: queries, keys and values, [rows, (heads + 2 key heads) d].
            angles: cosine and sine of each row's position, [rows, d]; the sine's first half negative.
            norms: weights [d] of queries' and keys' norms, None without, and their eps.
            own: keys [>= rows, key heads, d, columns], values [.., columns, d], and the column that is written.
            shared: keys and values of contexts, alike, and how many columns are looked at; None without.
            places: int64 [rows], whose context.
            bias: [rows * key heads, 1, columns of both], the dtype's least number where nothing is seen.
            scaling: of the scores.

        Returns:
            [rows, heads d].
        """
        keys, values, column = own
        rows, kinds, d = len(mixed), keys.shape[1], keys.shape[2]
        heads = mixed.shape[1] // d - 2 * kinds
        beside = (0, 0, 0, 0)
        if shared is not None:
            beside = (shared[0].data_ptr(), shared[1].data_ptr(), shared[0].shape[3], shared[2])
        out = mixed.new_empty(rows, heads * d)
        self._functions["attend"](
            *(mixed.data_ptr(), mixed.stride(0), angles[0].data_ptr(), angles[1].data_ptr()),
            *(0 if weight is None else weight.data_ptr() for weight in norms[:2]),
            *(norms[2], keys.data_ptr(), values.data_ptr(), keys.shape[3], column),
            *beside,
            *(places.data_ptr(), bias.data_ptr(), torch.finfo(bias.dtype).min, scaling, out.data_ptr()),
            *(rows, heads, kinds, d, torch.get_num_threads()),
        )
        return out


def _require_memory(failed: int, *called: object) -> None:
    if failed:
        raise MemoryError("not enough memory for a decoding step")


@cache
def kernels(dtype: torch.dtype) -> Kernels | None:
    """The compiled functions for tensors of this dtype on the CPU, built now if need be; None where they cannot be."""
    compiler = (os.environ.get("CC") or "cc").split()  # as in `ccache gcc`
    if dtype not in (torch.float32, torch.bfloat16) or os.environ.get(SWITCH) == "0" or not shutil.which(compiler[0]):
        return None
    flags = (*FLAGS, *(("-DHALF",) if dtype == torch.bfloat16 else ()))
    try:
        return Kernels(_library(compiler, flags))
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace").strip()
        LOG.info("the decoding step is not compiled (%s): torch's operations take its place", said.partition("\n")[0])
        return None


def _library(compiler: list[str], flags: tuple[str, ...]) -> ctypes.CDLL:
    """The library from the user's cache, where it lies under what its making depends on.

    It is built where it is not there or not whole, and serves this process alone where the cache cannot hold or run it.
    """
    source = files("smolt.models.forward").joinpath("decode_step.c").read_bytes()
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True, timeout=PATIENCE).stdout
    made_of = hashlib.sha256(b"\n".join([source, version, " ".join(flags).encode(), _instructions()])).hexdigest()
    kept = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "smolt", "kernels", made_of[:32])
    kept = kept.with_suffix(".so")
    with contextlib.suppress(OSError):
        if kept.is_absolute() and _is_whole(kept.read_bytes()):
            return ctypes.CDLL(str(kept))
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory, kept.name)
        command = [*compiler, *flags, "-x", "c", "-", "-o", str(made), "-lm"]
        subprocess.run(command, input=source, capture_output=True, check=True, timeout=PATIENCE)
        with contextlib.suppress(OSError):
            if kept.is_absolute():  # it is not for a user without a home directory
                content = made.read_bytes()
                kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                atomic_write(kept, content + hashlib.sha256(content).digest())
                return ctypes.CDLL(str(kept))
        return ctypes.CDLL(str(made))


def _is_whole(content: bytes) -> bool:
    """Whether the digest at its end, which loading passes over, is right: part of a library can end the process."""
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


def _instructions() -> bytes:
    """What this processor can do: a library that was built for another may not run here."""
    described = Path("/proc/cpuinfo")
    lines = described.read_bytes().splitlines() if described.is_file() else []
    return next((line for line in lines if line.startswith((b"flags", b"Features"))), b"")

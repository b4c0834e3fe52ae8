"""Memory: what is free on this machine, and what this process holds."""

import ctypes
import resource
import sys
from pathlib import Path

import torch

GIB = 2**30
STATM = Path("/proc/self/statm")
MEMINFO = Path("/proc/meminfo")
LIMITS = (  # limit and use of the control group, versions 2 and 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def free_memory() -> int | None:
    """Bytes this process may still take: what the system has, or its control group leaves."""
    found = [rest for limit, use in LIMITS if (rest := _rest(limit, use)) is not None]
    if MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    return min(found, default=None)


def _rest(limit: Path, use: Path) -> int | None:
    try:
        most, used = limit.read_text().strip(), use.read_text().strip()
    except OSError:
        return None
    return max(0, int(most) - int(used)) if most.isdigit() and used.isdigit() else None


def release() -> None:
    """Give the system back what the C library holds of blocks that are free, where it can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident() -> int:
    """Bytes of this process that lie in memory now; where the system does not tell, at most so far."""
    if STATM.is_file():
        return int(STATM.read_text().split()[1]) * resource.getpagesize()
    return most_resident()


def most_resident() -> int:
    """Bytes of this process that lay in memory at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak(device: torch.device) -> int:
    """Bytes at the peak so far: of the process, or of the card where the training runs on one."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else most_resident()

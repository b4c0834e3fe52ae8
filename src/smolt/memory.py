"""Free memory of this machine, and the refusal of what cannot fit into it."""

from pathlib import Path

from smolt.errors import UserError

GIB = 2**30
BYTES_A_PARAMETER = 12  # of what is trained: a gradient and AdamW's two moments, fp32
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


def refuse_what_cannot_fit(trained: int, free: int | None) -> None:
    """Refuse a training whose gradients and optimizer alone, before any activation, exceed the free memory.

    Args:
        trained: parameters that are trained.
        free: bytes, None where they are not known.

    Raises:
        UserError: says how much is needed, and what needs less.
    """
    needed = trained * BYTES_A_PARAMETER
    if free is not None and needed > free:
        raise UserError(
            f"memory: gradients and optimizer of {trained:,} trained parameters take {needed / GIB:.1f} GiB, and "
            f"{free / GIB:.1f} GiB are free: give a lora block (or a lower lora.rank), or take a smaller model"
        )

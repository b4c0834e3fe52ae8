"""Measuring in processes of their own: seconds, peak memory, and what machine it was.

A child runs one setting and nothing else, so that its peak memory is that setting's. The parent imports no torch: a
child's peak would otherwise start at the parent's, of which it is a copy for a moment.
"""

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Task = Callable[[dict[str, Any]], dict[str, Any]]

PACKAGES = ("torch", "transformers", "peft", "trl")


class ChildFailed(RuntimeError):
    """A setting could not be measured; the message says why."""


def in_child(
    module: str, task: str, settings: Mapping[str, Any], threads: int, python: str = sys.executable
) -> dict[str, Any]:
    """Run one task of a module in a fresh process and take its result.

    Args:
        module: a module whose `__main__` calls `serve`.
        task: one of its tasks.
        settings: JSON.
        threads: OpenMP threads of the child.
        python: its interpreter, where a peer needs an environment of its own.

    Raises:
        ChildFailed: it ended with an error or was killed (mostly for memory).
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with TemporaryDirectory(prefix="smolt-bench-") as folder:
        given, found = Path(folder, "settings.json"), Path(folder, "result.json")
        given.write_text(json.dumps(settings), encoding="utf-8")
        command = [python, "-m", module, task, str(given), str(found)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode or not found.is_file():
            told = ended.stderr.strip().splitlines()
            reason = "killed (out of memory?)" if ended.returncode == -9 else told[-1] if told else "no result"
            raise ChildFailed(f"{task}: {reason}")
        result: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
        return result


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(
    name: str,
    run: Callable[[Sequence[str]], dict[str, Any] | None],
    table: Callable[[Mapping[str, Any]], str],
    given: Sequence[str],
) -> int:
    """Run a benchmark and show what it found, as a table for people and with --json as one object; its exit code."""
    try:
        result = run(given)
    except ChildFailed as failed:
        tell(f"{name}: {failed}")
        return 1
    if result is not None:
        tell(table(result))
        if "--json" in given:
            print(json.dumps(result))
    return 0


def serve(tasks: Mapping[str, Task]) -> None:
    """In the child: run the task that the parent asked for and leave its result."""
    task, given, found = sys.argv[1:]
    result = tasks[task](json.loads(Path(given).read_text(encoding="utf-8")))
    Path(found).write_text(json.dumps(result), encoding="utf-8")


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: installed(name) for name in PACKAGES},
    }


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def installed(package: str) -> str | None:
    """The version of an installed package, None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None

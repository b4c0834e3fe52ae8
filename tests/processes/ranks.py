"""Processes that are launched together as torchrun does, forked from a server that has imported everything."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from smolt.__main__ import main
from smolt.models.forward.process_group import leave
from tests.reliability.scenes import OWN, open_scene

STAGES = (
    *("pretrain-full", "sft-full", "reward-lora", "dpo-lora", "kto-full", "ppo-lora", "grpo-full"),
    *("decide-full", "distill-lora", "online_dpo-full"),
)
"""Every stage, with adapters or with all weights."""

UPDATES = 5
PATIENCE = 300.0


def changes(name: str) -> dict[str, Any]:
    """What makes a scene's weights comparable: no dropout, and steps that do not magnify the last digits.

    AdamW moves a weight by the learning rate whatever the size of its gradient: where that is nothing but rounding
    (1e-9 of a loss of 5), and eps is smaller, the step is nothing else either.
    """
    dropout = {"lora__dropout": 0.0} if name.endswith("lora") else {}
    assert name.split("-")[0] in OWN
    steps = {"optim__lr": 3e-4, "optim__eps": 1e-6, "optim__schedule": "constant", "optim__warmup": 0}
    return {"budget__updates": UPDATES, **steps, **dropout}


def train(names: Sequence[str], inputs: Path, out: Path) -> None:
    """Some scenes from where they stand to their ends."""
    for name in names:
        open_scene(name, inputs, out / name, **changes(name)).finish()


def launched(
    server: ForkServerContext, count: int, work: Callable[..., object], *given: Any, folders: Sequence[Path] = ()
) -> list[BaseProcess]:
    """Start `work(*given)` in so many processes, which find each other; `folders` are where each begins."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started: list[BaseProcess] = []
    for rank in range(count):
        folder = folders[rank] if folders else None
        process = server.Process(target=_as_rank, args=(rank, count, port, folder, work, given))
        process.start()
        started.append(process)
    return started


def ended(started: Sequence[BaseProcess], seconds: float = PATIENCE) -> list[int | None]:
    """Wait for all; their exit codes."""
    until = time.monotonic() + seconds
    for process in started:
        process.join(timeout=max(0.0, until - time.monotonic()))
    codes = [process.exitcode for process in started]
    for process in started:
        if process.exitcode is None:
            process.kill()
            process.join()
    return codes


def _as_rank(
    rank: int, count: int, port: int, folder: Path | None, work: Callable[..., object], given: tuple[Any, ...]
) -> None:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": count}
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, **place}.items():
        os.environ[name] = str(value)
    if folder is not None:
        os.chdir(folder)
    work(*given)
    leave()


def command(errors: Path, *arguments: str) -> None:
    """`smolt` as one of several; what it prints goes to ERRORS.out-RANK and ERRORS.err-RANK."""
    rank = os.environ["RANK"]
    for number, kind in ((1, "out"), (2, "err")):
        descriptor = os.open(f"{errors}.{kind}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.argv = ["smolt", *arguments]
    main()

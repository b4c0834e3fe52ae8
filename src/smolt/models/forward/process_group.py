"""The one place that speaks torch.distributed: the processes of a launcher joined, and tensors added up over them.

gloo carries what lies in main memory, NCCL what lies on cards where each process of a machine has one of its own.
"""

import atexit
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from smolt import processes
from smolt.processes.lifeline import CONTINUES, Lifeline, ProcessLost, enter, open_door, wait_for
from smolt.runs.chunks import SAID

LOG = logging.getLogger(__name__)
GATHERING = timedelta(minutes=10)  # for all processes to be there: libraries may come over a slow network
PATIENCE = timedelta(days=30)  # of one that waits for the others: whether they live is the lifeline's business
BUCKET = 2**24  # numbers that are added up at once: a second copy of all gradients would be as large as they are
LOOK = 0.05  # seconds between two looks whether the first process is there
DOOR = "smolt/door/{}"  # of a launcher's attempt


class _Group:
    """What this process holds of the group."""

    lifeline: Lifeline | None = None


class Collectives:
    """Values that go from process to process; see `smolt.processes.peers.Exchange`."""

    def gather(self, value: Any) -> list[Any]:
        """What each process gave, in the order of their ranks."""
        found: list[Any] = [None] * processes.size()
        with _lost_said():
            distributed.all_gather_object(found, value)
        return found

    def tell(self, value: Any) -> Any:
        """What the first process gave."""
        found = [value]
        with _lost_said():
            distributed.broadcast_object_list(found, src=0)
        return found[0]


def join() -> None:
    """Join the processes that were launched together; nothing without a launcher, or where it is done.

    Raises:
        ProcessLost: the others cannot be reached.
    """
    if processes.size() == 1 or processes.connected():
        return
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if cards:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % cards)
    backend = "cpu:gloo,cuda:nccl" if cards >= processes.local_size() else "gloo"
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        rank, size = processes.rank(), processes.size()
        store = _store(rank)
        _Group.lifeline = _line(store, rank, size)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (distributed.DistError, OSError, RuntimeError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise ProcessLost(f"the processes launched at {address} do not find each other: {told}") from error
    processes.connect(Collectives())
    atexit.register(leave)
    LOG.log(SAID, "%d processes share the work (%s)", size, "NCCL" if "nccl" in backend else "gloo")


def leave() -> None:
    """Leave the group; the work is done, unless the process ends by an error that nobody caught."""
    if _Group.lifeline is None:
        return
    if getattr(sys, "last_value", None) is None:
        _Group.lifeline.leave()
    _Group.lifeline = None
    processes.connect(None)
    distributed.destroy_process_group()


def lifeline() -> Lifeline | None:
    """The line to the other processes, once they are joined."""
    return _Group.lifeline


def add_up_gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients of parameters, added up over all processes; one that learned nothing from this step adds zeros.

    A parameter that got no gradient anywhere still has none.
    """
    own = list(parameters)
    if processes.sharing():
        known = processes.gather([parameter.grad is not None for parameter in own])
        for parameter, *learned in zip(own, *known, strict=True):
            if any(learned) and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in own if parameter.grad is not None]
    add_up(gradients)
    return gradients


def add_up(tensors: Sequence[Tensor]) -> None:
    """Add tensors up over all processes, in place: every process gives tensors of the same shapes, and gets the sums.

    What is narrower than fp32 is added in fp32. All processes get the same bits.
    """
    if not processes.sharing():
        return
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in bucket])
        device = flat.device
        flat = flat if device.type == "cuda" and distributed.get_backend() != "gloo" else flat.cpu()
        with _lost_said():
            distributed.all_reduce(flat)
        start = 0
        for tensor in bucket:
            part = flat[start : start + tensor.numel()].view_as(tensor)
            tensor.detach().copy_(part)
            start += tensor.numel()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    filled = 0
    for tensor in tensors:
        if bucket and filled + tensor.numel() > BUCKET:
            yield bucket
            bucket, filled = [], 0
        bucket.append(tensor)
        filled += tensor.numel()
    if bucket:
        yield bucket


def _store(rank: int) -> Any:
    """Where the processes find each other: the launcher's, else the first one's own."""
    launchers = os.environ.get("TORCHELASTIC_USE_AGENT_STORE", str(False)) == str(True)
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return vars(distributed)["TCPStore"](  # which torch documents and does not export
        *address, is_master=rank == 0 and not launchers, timeout=GATHERING, wait_for_workers=False, multi_tenant=True
    )


def _line(store: Any, rank: int, size: int) -> Lifeline:
    """The lines between the first process and all others; where its door is goes by the launcher's store."""
    name = DOOR.format(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if rank > 0:
        until = time.monotonic() + GATHERING.total_seconds()
        while not store.check([name]):  # which a signal interrupts, and a wait inside the store it does not
            if time.monotonic() > until:
                raise TimeoutError(f"the first process did not come in {GATHERING.total_seconds():.0f} s")
            time.sleep(LOOK)
        host, port, key = store.get(name).decode().split(" ")
        return enter((host, int(port)), rank, key)
    host, key = _own_address(), secrets.token_hex(16)
    door = open_door(host)
    store.set(name, f"{host} {door.getsockname()[1]} {key}")
    return wait_for(door, size - 1, key)


def _own_address() -> str:
    """This machine's address as the launcher's sees it."""
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    family, kind, protocol, _, address = socket.getaddrinfo(*place, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)  # of a datagram: nothing is sent
        return str(probe.getsockname()[0])


@contextmanager
def _lost_said() -> Iterator[None]:
    """A peer that went away in the midst of a word, in one sentence."""
    try:
        yield
    except RuntimeError as error:  # torch's own kinds are of this one
        if _Group.lifeline is not None:
            _Group.lifeline.missed()
        told = str(error).splitlines()[0]
        raise ProcessLost(f"another process is gone ({told}); {CONTINUES}") from error

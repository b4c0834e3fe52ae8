"""The whole suite runs offline, on one thread, and an attempt to leave this machine fails the test that made it."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import gc
import ipaddress
import socket
from collections.abc import Generator, Iterator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what is imported and collected out of all searches for garbage: a study searches after each section."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def _not_waiting(descriptor: Any) -> None:
    """`os.fsync` where no power is cut: nothing waits for the disk; what is not open is an error as ever."""
    os.fstat(descriptor if isinstance(descriptor, int) else descriptor.fileno())


setattr(os, "fsync", _not_waiting)  # noqa: B010  (as below)


ATTEMPTS: list[str] = []
"""Every address outside this machine that was tried; a test that tries on purpose clears it again."""


class NetworkUsed(RuntimeError):
    """A test tried to reach another machine. Not an OSError, so that no library takes it for a bad connection."""


def is_local(family: int, address: Any) -> bool:
    """Whether a socket address stays on this machine: a Unix socket, or a loopback host."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    return is_local_host(address[0])


def is_local_host(host: Any) -> bool:
    """Whether a host name or number is this machine; None and the empty string mean every own interface (bind)."""
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost"):
        return True
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return False
    return number.is_loopback or number.is_unspecified


def refuse(address: Any) -> None:
    """Record the attempt and fail."""
    ATTEMPTS.append(repr(address))
    raise NetworkUsed(f"a test tried to reach {address!r}; the suite runs offline")


_connect, _connect_ex, _sendto = socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto
_getaddrinfo = socket.getaddrinfo


def _guarded_connect(self: socket.socket, address: Any) -> None:
    if not is_local(self.family, address):
        refuse(address)
    _connect(self, address)


def _guarded_connect_ex(self: socket.socket, address: Any) -> int:
    if not is_local(self.family, address):
        refuse(address)
    return _connect_ex(self, address)


def _guarded_sendto(self: socket.socket, data: Any, *rest: Any) -> int:
    if not is_local(self.family, rest[-1]):
        refuse(rest[-1])
    return _sendto(self, data, *rest)


def _guarded_getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
    if not is_local_host(host):
        refuse(host)
    return _getaddrinfo(host, *rest, **named)


for _name, _guard in (("connect", _guarded_connect), ("connect_ex", _guarded_connect_ex), ("sendto", _guarded_sendto)):
    setattr(socket.socket, _name, _guard)
setattr(socket, "getaddrinfo", _guarded_getaddrinfo)  # noqa: B010  (an assignment to a typed function is a mypy error)


@pytest.fixture(params=[False, True], ids=["kept", "recomputed"])
def kept_or_recomputed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Once as always, once with every layer computed again in the backward pass (gradient checkpointing)."""
    if request.param:
        monkeypatch.setattr("smolt.models.forward.trunk.Trunk.recomputed", "told to by a test")
    return bool(request.param)


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Fail the test during which a library tried to leave the machine and hid the refusal."""
    before = len(ATTEMPTS)
    yield
    tried = ATTEMPTS[before:]
    del ATTEMPTS[before:]
    assert not tried, f"tried to reach {tried}; the suite runs offline"

"""A line from each process to the first: when one dies or fails, all end at once, and one of them says why.

A process that is killed closes its end; a machine that vanishes no longer answers the probes of the system, which
notices within `LOST` seconds without any help of Python. A process that fails says its reason, and of several that fail
alike one is heard. Ending is abrupt: whatever is on the disk survives a kill, so the same command continues.
"""

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

PROBE = 5  # seconds between two probes of a line on which nothing is said
PROBES = 3  # without an answer, and the machine is taken for gone
LOST = PROBE * (PROBES + 1)
OWN_WORDS = 2.0  # seconds in which the first process may find the same error itself, and say it as its own
UNHEARD = 10.0  # seconds after which a process that failed ends without having been heard
CONNECTING = 300.0  # seconds in which all processes must be there
CONTINUES = "the same command continues what was begun"


class ProcessLost(RuntimeError):
    """One of the processes that share the work is gone, or could not be reached; the same command continues."""

    exit_code = 76


Say = Callable[[str, int], object]
"""Says an error, with its exit code."""


def open_door(host: str) -> socket.socket:
    """Where the first process waits for the others; its port is the system's choice."""
    return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def enter(door: tuple[str, int], rank: int, key: str) -> "Lifeline":
    """The line of a process that is not the first.

    Raises:
        OSError: the first process cannot be reached.
    """
    line = socket.create_connection(door, timeout=CONNECTING)
    line.sendall(_packed({"rank": rank, "key": key}))
    line.settimeout(None)
    return Lifeline({0: line}, rank)


def wait_for(door: socket.socket, others: int, key: str) -> "Lifeline":
    """The lines of the first process, once all others have come.

    Raises:
        OSError: one did not come in time.
    """
    lines = dict[int, socket.socket]()
    door.settimeout(CONNECTING)
    while len(lines) < others:
        line, _ = door.accept()
        line.settimeout(CONNECTING)
        with contextlib.suppress(ValueError, KeyError, OSError):  # a stranger
            said = json.loads(_read_line(line))
            if said["key"] == key:
                line.settimeout(None)
                lines[int(said["rank"])] = line
    door.close()
    return Lifeline(lines, 0)


class Lifeline:
    """This process's end, watched by a thread.

    Args:
        lines: rank -> the socket to it.
        rank: of this process.
    """

    def __init__(self, lines: Mapping[int, socket.socket], rank: int) -> None:
        self.say: Say = self._on_standard_error
        self._lines = dict(lines)
        self._rank = rank
        self._word = threading.Lock()  # held from the first error on: it is the only one that is said
        self._left = False
        self._done = set[int]()
        for line in self._lines.values():
            _probed(line)
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def leave(self) -> None:
        """This process has done its work: its end is no loss for the others."""
        self._left = True
        self._tell({"done": True})

    def failed(self, message: str, code: int) -> None:
        """This process ends with an error. Returns in the one that is to say it; the others' end is that of all."""
        if self._rank == 0:
            if self._word.acquire(blocking=False):
                self._end_all(code)
                return
        else:
            self._tell({"failed": message, "code": code})
        time.sleep(UNHEARD)  # the watcher ends the process

    def missed(self) -> None:
        """Another process did not answer: the watcher knows why, and ends this one in the midst of this."""
        time.sleep(UNHEARD)

    def _watch(self) -> None:
        pending = dict.fromkeys(self._lines, b"")
        with selectors.DefaultSelector() as selector:
            for rank, line in self._lines.items():
                selector.register(line, selectors.EVENT_READ, rank)
            while pending:
                for ready, _ in selector.select():
                    rank, content = ready.data, _received(ready.fileobj)
                    *whole, pending[rank] = (pending[rank] + content).split(b"\n")
                    for said in whole:
                        self._hear(rank, json.loads(said))
                    if not content:
                        selector.unregister(ready.fileobj)
                        del pending[rank]
                        self._closed(rank)

    def _hear(self, rank: int, said: dict[str, Any]) -> None:
        if "done" in said:
            self._done.add(rank)
        elif "end" in said:
            leave_at_once(int(said["end"]))
        elif "failed" in said:
            self._report(f"rank {rank}: {said['failed']}", int(said["code"]), OWN_WORDS)

    def _closed(self, rank: int) -> None:
        """The line to a process was cut."""
        if self._left or rank in self._done:
            return
        lost = f"rank {rank} ended without a word: it was killed, or its machine is gone; {CONTINUES}"
        if self._rank <= 1:
            self._report(lost if self._rank == 0 else f"rank {self._rank}: {lost}", ProcessLost.exit_code)
        leave_at_once(ProcessLost.exit_code)

    def _report(self, message: str, code: int, wait: float = 0.0) -> None:
        """Say another's error and end all; where this process says one of its own within `wait` seconds, do nothing."""
        time.sleep(wait)
        if not self._word.acquire(blocking=False):
            return
        self.say(message, code)
        self._end_all(code)
        leave_at_once(code)

    def _end_all(self, code: int) -> None:
        self._tell({"end": code} if self._rank == 0 else {})

    def _tell(self, said: Mapping[str, Any]) -> None:
        for line in self._lines.values():
            with contextlib.suppress(OSError):  # it is gone
                line.sendall(_packed(said))

    def _on_standard_error(self, message: str, code: int) -> None:
        sys.stderr.write(f"error: {message}\n")


def _packed(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said).encode() + b"\n"


def _read_line(line: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\n"):
        part = line.recv(4096)
        if not part:
            break
        found += part
    return found


def _received(line: Any) -> bytes:
    """What has come; nothing once the other end is gone."""
    try:
        found: bytes = line.recv(65536)
    except OSError:
        return b""
    return found


def _probed(line: socket.socket) -> None:
    """Let the system see whether the other machine is still there."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    probes = {"TCP_KEEPIDLE": PROBE, "TCP_KEEPINTVL": PROBE, "TCP_KEEPCNT": PROBES, "TCP_USER_TIMEOUT": LOST * 1000}
    for name, value in probes.items():
        option = getattr(socket, name, None)
        if option is not None:  # not on every system
            line.setsockopt(socket.IPPROTO_TCP, option, value)


def leave_at_once(code: int) -> None:
    """End the process as a kill would, whatever its main thread waits for."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)

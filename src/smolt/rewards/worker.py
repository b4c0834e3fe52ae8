"""A user's function in a process of its own: it may hang, exit, crash, print, fork or fill the memory, and no run ends.

The process reads requests from its standard input and answers each on what was its standard output, as JSON after its
length; what the function itself prints goes to standard error. It ends with its parent.
"""

import contextlib
import json
import math
import os
import queue
import resource
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from smolt.errors import UserError
from smolt.processes.peers import OWN

STARTING = 300.0
"""Seconds in which a user's file must be loaded: it may import large libraries."""

MEMORY_SHARE = 0.5
"""Of the machine's memory, what the process may take."""

MODULE = "smolt_reward_"
"""How the name begins under which a user's file is loaded; its warnings are shown."""

LOOK = 0.2  # seconds between two looks whether the process lives: a child of its own may hold its pipe open
_LENGTH = struct.Struct("!Q")


class Died(Exception):
    """The process is gone, or was ended for taking too long; the message says which."""


class Worker:
    """The process, from the side of the run. It starts at once, and again after each death.

    Args:
        program: Python that calls `serve`.
        opening: JSON values that say which function; `what` and `source` name it in errors.

    Raises:
        UserError: the function cannot be loaded.
    """

    def __init__(self, program: str, opening: Mapping[str, Any]) -> None:
        self._program = program
        self._opening = dict(opening)
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: Callable[[], object] = dict
        self.facts = self._start()

    def replies(self, request: Any, seconds: Sequence[float]) -> Iterator[Any]:
        """What the process says to a request, in so many parts.

        Args:
            request: what `serve` understands.
            seconds: the time limit of each part.

        Raises:
            Died: before it said the next part; the next request starts it again.
        """
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._start()
        try:
            self._send(request)
            for limit in seconds:
                yield self._receive(limit)
        except BaseException:  # an interrupt too: half an answer would be taken for the next one
            self.end()
            raise

    def end(self) -> None:
        """End the process and what it started."""
        self._ended()
        self._process = None

    def _start(self) -> Any:
        # -P: a file of the user's that is named as a module of Python's must not take its place.
        command = [sys.executable, "-P", "-c", self._program]
        own = {name: value for name, value in os.environ.items() if name not in OWN}
        found = {**own, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=found, start_new_session=True
        )
        self._ended = weakref.finalize(self, _kill, self._process)
        try:
            self._send({**self._opening, "path": sys.path})
            facts = self._receive(STARTING)
        except Died as died:
            self.end()
            raise UserError(
                f"{self._opening['what']}: {self._opening['source']}: while it is loaded it {died}"
            ) from None
        except BaseException:
            self.end()
            raise
        if "refused" in facts:
            self.end()
            raise UserError(facts["refused"])
        return facts

    def _send(self, message: Any) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            _write(self._process.stdin, message)
        except OSError:
            raise Died(self._how()) from None

    def _receive(self, seconds: float) -> Any:
        ends = time.monotonic() + seconds
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, ends, seconds))
        return json.loads(self._read(length, ends, seconds))

    def _read(self, size: int, ends: float, seconds: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        descriptor, held = self._process.stdout.fileno(), bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(descriptor, selectors.EVENT_READ)
            while len(held) < size:
                left = ends - time.monotonic()
                if left <= 0:
                    raise Died(f"took longer than {seconds:g} s")
                gone = self._process.poll() is not None
                if ready.select(0 if gone else min(left, LOOK)):
                    part = os.read(descriptor, size - len(held))
                    held += part
                    if not part:
                        raise Died(self._how())
                elif gone:
                    raise Died(self._how())
        return bytes(held)

    def _how(self) -> str:
        """How the process ended."""
        assert self._process is not None
        try:
            code = self._process.wait(LOOK)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if code >= 0:
            return f"ended the process with exit code {code}"
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"


def _write(pipe: IO[bytes], message: Any) -> None:
    content = json.dumps(message).encode()
    pipe.write(_LENGTH.pack(len(content)) + content)
    pipe.flush()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


# --- in the process itself --------------------------------------------------------------------------------------------


Answering = Callable[[Any], Iterator[Any]]
"""From a request to the parts of its answer."""


def serve(loaded: Callable[[Mapping[str, Any]], tuple[dict[str, Any], Answering]]) -> None:
    """Load a function as the first request says, then answer requests until the parent is gone.

    Args:
        loaded: from the opening to facts of the function and how it answers; may raise UserError.
    """
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what the function prints is no reply
    waiting: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    opening = waiting.get()
    sys.path[:] = opening["path"]
    _limit_memory()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module=MODULE)
    try:
        facts, answered = loaded(opening)
    except UserError as error:
        _write(replies, {"refused": str(error)})
        return
    _write(replies, facts)
    own = os.getpid()
    while True:
        for part in answered(waiting.get()):
            if os.getpid() != own:
                os._exit(0)  # a child that the function made and let return
            _write(replies, part)


def _listen(requests: IO[bytes], waiting: "queue.Queue[Any]") -> None:
    """Hand on what the parent asks; leave with it, whatever the function is at."""
    while head := requests.read(_LENGTH.size):
        waiting.put(json.loads(requests.read(*_LENGTH.unpack(head))))
    os._exit(0)


def _limit_memory() -> None:
    most = math.floor(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))

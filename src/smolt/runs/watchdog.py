"""A run in which nothing ends any more: it is said, and where every thread stands is written down."""

import contextlib
import faulthandler
import logging
import threading
from pathlib import Path
from time import monotonic
from typing import IO, Self

from smolt import processes
from smolt.runs.identity import MANIFEST

LOG = logging.getLogger(__name__)
STALLED = "stalled.log"
LEAST = 600.0  # seconds without an update before anything is said
USUAL = 20  # times the longest update so far: a slow machine is no stalled one


class Watchdog:
    """While entered: after far more time than an update has ever taken, a line in the log and the stacks in a file.

    The run is left alone: what hangs may come back, and the checkpoint of before is on the disk.

    Args:
        directory: of the run; the file is written there.
        file: its name; several processes in one directory have one each.
        least: seconds before the first word.
    """

    def __init__(self, directory: Path, file: str = STALLED, least: float = LEAST) -> None:
        self._path, self._unseen = directory / file, directory / f".{file}"
        self._least = least
        self._longest = 0.0
        self._seen = monotonic()
        self._timer: threading.Timer | None = None
        self._file: IO[str] | None = None

    def alive(self) -> None:
        """An update has ended."""
        now = monotonic()
        self._longest = max(self._longest, now - self._seen)
        self._seen = now
        self._wait()

    def __enter__(self) -> Self:
        self._seen = monotonic()
        self._wait()
        return self

    def __exit__(self, *raised: object) -> None:
        self._rest()

    def _wait(self) -> None:
        self._rest()
        limit = max(self._least, USUAL * self._longest)
        if not (self._path.parent / MANIFEST).is_file() or not processes.first():
            return  # no run yet, or another process's
        with contextlib.suppress(OSError):  # a full disk is said by what must be written
            self._file = self._unseen.open("w")
            # From a thread of C: Python itself may be what hangs.
            faulthandler.dump_traceback_later(limit, file=self._file)
        self._timer = threading.Timer(limit + 1, self._say, (limit,))
        self._timer.daemon = True
        self._timer.start()

    def _say(self, limit: float) -> None:
        self._show()
        LOG.warning("no update for %.0f s; where it stands is in %s", limit, self._path)

    def _rest(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._timer is not None:
            self._timer.cancel()
        if self._file is not None:
            self._file.close()
            self._file = None
            self._show()
            self._unseen.unlink(missing_ok=True)

    def _show(self) -> None:
        """Give the file its name once something is written: from a thread of C it can be written only if it is open."""
        with contextlib.suppress(OSError):
            if self._unseen.stat().st_size:
                self._unseen.replace(self._path)

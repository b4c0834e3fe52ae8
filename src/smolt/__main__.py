"""`smolt`, and `python -m smolt`. Until a command listens, Ctrl-C ends the process at once and without a traceback."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from typing import NoReturn


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from smolt.cli import main as command_line

    try:
        command_line()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            leave(end.code or 0)
        raise


def leave(code: int) -> NoReturn:
    """End the process as Python does, but without taking its modules apart: after torch's that takes seconds.

    Threads end, what was to be done at exit is done, and what was printed is written.
    """
    vars(threading)["_shutdown"]()  # wakes what waits in pools, then joins; threading has no public name for it
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the reader left, or the disk is full: that has been said
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()

"""Long measurements, chunk by chunk: what is whole stays on the disk, and the same command continues after it.

A chunk is the unit of everything that must not depend on where a measurement was stopped or how it was shared out: its
records are computed together, so that the same chunk gives the same bits alone, continued, or on another machine of
the same kind. A shard is some whole chunks.
"""

import logging
from collections.abc import Callable
from typing import Any

from smolt.runs import Run

COUNTED = "smolt.counted"
"""The logger that hears, at debug level, how far a step has come that is under way."""

PART = "smolt.part"
"""The logger that hears, at debug level, which of a measurement's records are under way."""

SAID = logging.INFO + 5
"""The level of what is said at once and as it stands, between a step that begins and a warning."""

Progress = Callable[[int, int], None]
"""Hears how many of how many records are done; may raise to end it there."""

Work = Callable[[range], list[dict[str, Any]]]
"""The rows of the records at some places, in order."""


def counted(done: float, total: int, what: str = "") -> None:
    """Say how far a step has come, as (done, total) or (done, total, what) of a debug record.

    Args:
        done: of the step; a part of one counts too.
        total: of the step.
        what: its name; what was logged or named last unless given.
    """
    if what:
        logging.getLogger(COUNTED).debug("%d of %d %s", done, total, what)
    else:
        logging.getLogger(COUNTED).debug("%d of %d", done, total)


def part(places: range, total: int) -> None:
    """Say that what is counted from now on is the records at these places of so many."""
    logging.getLogger(PART).debug("%d to %d of %d", places.start, places.stop, total)


def in_chunks(run: Run, places: range, chunk: int, open_work: Callable[[], Work], progress: Progress | None) -> None:
    """Do what is left of the records at `places` and hand their rows to the run.

    The `step` of a row is the number of records before and with its chunk, as the checkpoints' is.

    Args:
        run: open, and not complete.
        places: of the records; begins at a chunk's start.
        chunk: records done between two checkpoints.
        open_work: loads what the work needs; called when there is work left.
        progress: told (done, in all) before the first and after every chunk.
    """
    checkpoint = run.load_checkpoint()
    start = places.start if checkpoint is None else checkpoint.step
    if start >= places.stop:
        return
    work = open_work()
    if progress is not None:
        progress(start - places.start, len(places))
    for first in range(start, places.stop, chunk):
        stop = min(first + chunk, places.stop)
        part(range(first - places.start, stop - places.start), len(places))
        for row in work(range(first, stop)):
            run.sample({"step": stop, **row})
        run.save_checkpoint(stop, {}, {}, keep=1)
        if progress is not None:
            progress(stop - places.start, len(places))

"""Long measurements, chunk by chunk: what is whole stays on the disk, and the same command continues after it.

A chunk is the unit of everything that must not depend on where a measurement was stopped or how it was shared out: its
records are computed together, so that the same chunk gives the same bits alone, continued, or on another machine of
the same kind. A shard is some whole chunks.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from smolt.errors import UserError
from smolt.runs import Run

Progress = Callable[[int, int], None]
"""Hears how many of how many records are done; may raise to end it there."""

Work = Callable[[range], list[dict[str, Any]]]
"""The rows of the records at some places, in order."""


@dataclass(frozen=True)
class Shard:
    """One of `count` parts; `index` counts from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def places(self, total: int, chunk: int) -> range:
        """The records of this part: whole chunks, as evenly as they go.

        Raises:
            UserError: there are fewer chunks than parts, so that this one would be empty.
        """
        chunks = -(-total // chunk)
        if chunks < self.count:
            raise UserError(
                f"shard: {self}: {total} records are {chunks} chunks of {chunk}, and a shard is whole chunks; ask for "
                f"at most {chunks} shards, or make chunks smaller with a smaller batch"
            )
        start, stop = (place * chunks // self.count for place in (self.index - 1, self.index))
        return range(start * chunk, min(stop * chunk, total))


def parse_shard(text: str) -> Shard:
    """`2/4` is the second of four.

    Raises:
        UserError: it is no such thing.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"shard: {text!r} is not of the form 2/4, the second of four")
    return Shard(int(found[1]), int(found[2]))


def in_chunks(run: Run, places: range, chunk: int, open_work: Callable[[], Work], progress: Progress | None) -> None:
    """Do what is left of the records at `places` and hand their rows to the run.

    The `step` of a row is the number of records before and with its chunk, as the checkpoints' is.

    Args:
        run: open, and not complete.
        places: of the records; begins at a chunk's start.
        chunk: records done between two checkpoints.
        open_work: loads what the work needs; called when there is work left.
        progress: told (done, in all) after every chunk.
    """
    checkpoint = run.load_checkpoint()
    start = places.start if checkpoint is None else checkpoint.step
    if start >= places.stop:
        return
    work = open_work()
    for first in range(start, places.stop, chunk):
        stop = min(first + chunk, places.stop)
        for row in work(range(first, stop)):
            run.sample({"step": stop, **row})
        run.save_checkpoint(stop, {}, {}, keep=1)
        if progress is not None:
            progress(stop - places.start, len(places))

"""Who this process is among several, and the few ways in which they speak: share, gather, agree.

Answers are gathered, not decisions: each process makes its share of what costs time (answers, scores, forwards), all
get the whole, and then each decides the same by the same numbers. What no two would find alike, the clock's readings
and what lies on the disk, the first process finds and tells. So all take the same way through the program, and none
waits for a word that the others never say.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets in the environment of each process; without one of them a process is by itself."""

OWN = (*LAUNCHED, "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""What makes a process one of several; a program that it starts must not find it."""


class Exchange(Protocol):
    """How values go from process to process; every call is made by all of them, in the same order."""

    def gather(self, value: Any) -> list[Any]:
        """What each process gave, in the order of their ranks."""

    def tell(self, value: Any) -> Any:
        """What the first process gave."""


class _World:
    """The state of this process: how it speaks to the others, and whether it does at the moment."""

    exchange: Exchange | None = None
    apart: int = 0


def _counted(name: str, otherwise: int, environment: Mapping[str, str]) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else otherwise


def size() -> int:
    """How many processes were launched together; 1 without a launcher."""
    launched = all(os.environ.get(name) for name in LAUNCHED)
    return _counted("WORLD_SIZE", 1, os.environ) if launched else 1


def rank() -> int:
    """The number of this process, from 0."""
    return _counted("RANK", 0, os.environ) if size() > 1 else 0


def ordinal() -> tuple[int, ...]:
    """What sets this process's own randomness apart from the first one's, as further counters."""
    return (rank(),) if rank() else ()


def local_size() -> int:
    """How many of the processes run on this machine."""
    return max(1, _counted("LOCAL_WORLD_SIZE", 1, os.environ)) if size() > 1 else 1


def first() -> bool:
    """Whether this is the process that writes, speaks and reads the clock."""
    return rank() == 0


def connect(exchange: Exchange | None) -> None:
    """From here on values go to the other processes this way."""
    _World.exchange = exchange


def connected() -> bool:
    """Whether the processes have been joined."""
    return _World.exchange is not None


def sharing() -> bool:
    """Whether work is shared out here and now."""
    return _World.exchange is not None and not _World.apart


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """While entered, this process works as if there were no other: it gets all of what is shared out."""
    _World.apart += 1
    try:
        yield
    finally:
        _World.apart -= 1


def _exchange() -> Exchange | None:
    return None if _World.apart else _World.exchange


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of some items, whose parts in the order of the ranks are the whole; it may be empty."""
    if not sharing():
        return items
    start, stop = (place * len(items) // size() for place in (rank(), rank() + 1))
    return items[start:stop]


def gather(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks; all call it at the same point."""
    exchange = _exchange()
    return [value] if exchange is None else exchange.gather(value)


def together(part: Sequence[T]) -> list[T]:
    """The items of all processes, in the order of their ranks: the whole of what `share` gave out."""
    return [item for items in gather(part) for item in items]


def agreed(value: T) -> T:
    """The first process's value; all call it at the same point."""
    exchange = _exchange()
    if exchange is None:
        return value
    found: T = exchange.tell(value if first() else None)
    return found


def by_first(work: Callable[[], T]) -> T:
    """What the first process finds by itself, or the error it meets, for all of them; the others wait.

    Raises:
        Exception: whatever the work raises, in every process.
    """
    exchange = _exchange()
    if exchange is None:
        return work()
    if first():
        try:
            with alone():
                found = work()
        except Exception as error:
            exchange.tell((None, error))
            raise
        exchange.tell((found, None))
        return found
    found, met = exchange.tell(None)
    if met is not None:
        raise met
    return found


def as_first_says(parts: Callable[[], Iterator[T]]) -> Iterator[T]:
    """What the first process's iterator gives, as it comes, for all of them; theirs are not begun."""
    if not sharing():
        yield from parts()
        return
    coming, over = iter(parts()) if first() else iter(()), object()
    while True:
        found, ended = by_first(lambda: _next(coming, over))
        if ended:
            return
        yield found


def _next(coming: Iterator[T], over: object) -> tuple[Any, bool]:
    found: Any = next(coming, over)
    return (None, True) if found is over else (found, False)

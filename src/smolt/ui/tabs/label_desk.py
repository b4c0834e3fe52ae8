"""The pairs a face lets people label, and each person's way through them; nothing is held open between two clicks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from smolt.data import Source, load
from smolt.errors import UserError
from smolt.preferences.people import BlindPair, LabelStore, Session, make_queue, pair_of

GOLD_RATE = 0.1
"""Share of gold questions, where the store holds some."""
SEED = 0


@dataclass
class LabelDesk:
    """What is labelled, and where labels go.

    Attributes:
        store: the label store, made with its directory at the first label.
        pairs: preferences to label, None for what the store holds.
        clock: seconds.
    """

    store: Path
    pairs: str | None = None
    clock: Callable[[], float] = time.monotonic
    _read: list[BlindPair] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read the pairs now, so that what is wrong with them is said when the face starts.

        Raises:
            UserError: they cannot be read as preferences.
        """
        if self.pairs is not None:
            self._read = [pair_of(record) for record in load(Source(self.pairs), "preferences").records]

    @contextmanager
    def session(self, annotator: str, since: float | None = None) -> Iterator[Session]:
        """An annotator's session, open for one click.

        Args:
            annotator: who labels.
            since: when the current pair was shown, in seconds of the clock; None: now.

        Raises:
            UserError: nobody is named, or there is nothing to label.
            StorageError: the disk is full or failing.
        """
        if not annotator.strip():
            raise UserError("say who labels: fill in your name at the top")
        if not self._read and not self.store.exists():
            raise UserError("nothing to label yet: start smolt ui with --pairs PREFERENCES, or vote in the arena")
        self.store.parent.mkdir(parents=True, exist_ok=True)
        times = [] if since is None else [since]
        with LabelStore(self.store) as opened:
            held = opened.pairs().values()
            wanted = self._read or [pair for pair in held if pair.known is None]
            known = [pair for pair in held if pair.known is not None]
            queue, _ = make_queue(wanted, known, GOLD_RATE, SEED, annotator.strip())
            yield Session(opened, annotator.strip(), queue, SEED, clock=lambda: times.pop() if times else self.clock())

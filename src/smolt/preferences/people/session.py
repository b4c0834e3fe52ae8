"""One annotator at work: what is on the screen, what a choice does, where a stopped session continues."""

import time
from collections.abc import Callable, Sequence
from typing import Literal

from smolt.preferences.people.nouns import BlindPair, Choice, Label, Side
from smolt.preferences.people.queue import left_side
from smolt.preferences.people.store import LabelStore

Pick = Literal["left", "right", "tie", "both_bad", "skip"]


class Session:
    """The annotator's way through the queue. Every choice is on the disk when `choose` returns.

    Args:
        store: where labels go; the queue's pairs are added to it.
        annotator: who labels.
        queue: the pairs in order; those the annotator has labelled are passed over.
        seed: of the sides.
        clock: seconds, for the time a label took.
    """

    def __init__(
        self,
        store: LabelStore,
        annotator: str,
        queue: Sequence[BlindPair],
        seed: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.annotator = annotator
        self.queue = list(queue)
        self.labelled = 0
        self._store, self._seed, self._clock = store, seed, clock
        self._names = {pair.id for pair in self.queue}
        store.add_pairs(self.queue)
        given = [label for label in store.labels(annotator) if label.pair in self._names]
        self._done = {label.pair for label in given}
        self._skips = {label.pair for label in given if label.choice == "skip"}
        self._advance()

    @property
    def current(self) -> BlindPair | None:
        """The pair to label; None at the end of the queue."""
        return self.queue[self._place] if self._place < len(self.queue) else None

    @property
    def done(self) -> int:
        """How many pairs of the queue have a label, or a skip, of this annotator."""
        return len(self._done)

    @property
    def skipped(self) -> int:
        """How many of these are skips."""
        return len(self._skips)

    @property
    def left(self) -> Side:
        """Which answer of the current pair stands on the left.

        Raises:
            ValueError: there is no current pair.
        """
        pair = self._asked()
        return left_side(pair, self._seed, self.annotator)

    def sides(self) -> tuple[str, str]:
        """The left and the right answer of the current pair.

        Raises:
            ValueError: there is no current pair.
        """
        pair = self._asked()
        return (pair.first, pair.second) if self.left == "first" else (pair.second, pair.first)

    def choose(self, pick: Pick) -> float | None:
        """Store a label for the current pair and go on to the next.

        Returns:
            The seconds it took; None where the annotator's label of this pair, given elsewhere meanwhile, stays.

        Raises:
            ValueError: there is no current pair.
            StorageError: the disk is full or failing; the pair stays the current one.
        """
        pair = self._asked()
        seconds = self._clock() - self._since
        new = self._store.record(Label(pair.id, self.annotator, choice_of(pick, self.left), self.left, seconds))
        self._done.add(pair.id)
        if new and pick == "skip":
            self._skips.add(pair.id)
        self.labelled += new and pick != "skip"
        self._advance()
        return seconds if new else None

    def undo(self) -> bool:
        """Take back the latest label, of this session or an earlier one, and show its pair again."""
        pair = self._store.undo(self.annotator, self._names)
        if pair is None:
            return False
        self._done.discard(pair)
        self.labelled = max(0, self.labelled - (pair not in self._skips))
        self._skips.discard(pair)
        self._go_to(next(place for place, one in enumerate(self.queue) if one.id == pair))
        return True

    def _asked(self) -> BlindPair:
        if self.current is None:
            raise ValueError("every pair of the queue is labelled")
        return self.current

    def _advance(self) -> None:
        open_places = (place for place, pair in enumerate(self.queue) if pair.id not in self._done)
        self._go_to(next(open_places, len(self.queue)))

    def _go_to(self, place: int) -> None:
        self._place = place
        self._since = self._clock()


def choice_of(pick: Pick, left: Side) -> Choice:
    """A pick of the screen in the pair's own order."""
    if pick == "left":
        return left
    if pick == "right":
        return "second" if left == "first" else "first"
    return pick

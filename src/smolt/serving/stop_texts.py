"""Texts that end an answer: what may begin one is held back until it is known."""

from dataclasses import dataclass


@dataclass
class HeldBack:
    """Text on its way out.

    Attributes:
        stop: the texts that end it.
        waiting: the end of what came, which may begin one of them.
    """

    stop: tuple[str, ...]
    waiting: str = ""

    def add(self, text: str) -> tuple[str, bool]:
        """What may go out now that this came, and whether a stop text was found; nothing goes out after one."""
        whole = self.waiting + text
        found = [place for place in map(whole.find, self.stop) if place >= 0]
        if found:
            self.waiting = ""
            return whole[: min(found)], True
        kept = max((_begun(whole, stop) for stop in self.stop), default=0)
        self.waiting = whole[len(whole) - kept :]
        return whole[: len(whole) - kept], False


def _begun(text: str, stop: str) -> int:
    """How much of the end of a text is the beginning of a stop text."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)

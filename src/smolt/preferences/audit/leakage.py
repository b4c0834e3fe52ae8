"""Questions of a test file that are in the training file too, exactly or nearly."""

from collections.abc import Sequence
from dataclasses import dataclass

from smolt.preferences.audit.duplicates import clusters, normalised


@dataclass(frozen=True)
class Leakage:
    """Test questions found in training, by their line of the test file.

    Attributes:
        questions: of the test file.
        exact: lines whose normalised question is in the training file.
        near: lines whose question is not, but has a similar one there.
    """

    questions: int
    exact: tuple[int, ...]
    near: tuple[int, ...]


def leakage_of(train: Sequence[str], test: Sequence[str], lines: Sequence[int]) -> Leakage:
    """What of the test leaks.

    Args:
        train: questions of the training file.
        test: questions of the test file, one for each of its records.
        lines: of the test file, for each of its records.
    """
    known = list(dict.fromkeys(normalised(text) for text in train))
    asked = [normalised(text) for text in test]
    there = frozenset(known)
    exact = [place for place, text in enumerate(asked) if text in there]
    near: set[int] = set()
    for group in clusters([*known, *asked]):
        if group[0] < len(known):
            near.update(place - len(known) for place in group if place >= len(known))
    return Leakage(
        len(test), tuple(lines[place] for place in exact), tuple(lines[place] for place in sorted(near - set(exact)))
    )

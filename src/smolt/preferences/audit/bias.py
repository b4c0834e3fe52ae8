"""What the labels prefer besides quality: length, lists, markdown, refusals."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smolt.preferences.audit.labelled_pairs import LabelledPair
from smolt.rewards.refusals import refuses
from smolt.statistics import Measure, proportion

LIST = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s", re.MULTILINE)
MARKDOWN = re.compile(r"\*\*[^*\n]+\*\*|^#{1,6} |^\|.+\|$", re.MULTILINE)


@dataclass(frozen=True)
class Trait:
    """A trait of answers and what the labels make of it.

    Attributes:
        name: in words.
        better, worse: share of the preferred and of the other answers that have it.
        preferred: of the pairs where one answer has it (for length: has more), the share where that one is preferred.
    """

    name: str
    better: Measure | None
    worse: Measure | None
    preferred: Measure | None


TRAITS: dict[str, Callable[[str], bool]] = {
    "list": lambda text: LIST.search(text) is not None,
    "markdown": lambda text: MARKDOWN.search(text) is not None,
    "code block": lambda text: "```" in text,
    "refusal": refuses,
    "question back": lambda text: text.rstrip().endswith("?"),
    "empty": lambda text: not text.strip(),
}


def traits_of(items: Sequence[LabelledPair]) -> list[Trait]:
    """Length, and every trait of TRAITS, over the pairs that are no tie; intervals by question where those repeat."""
    labelled = [item for item in items if not item.tie]
    lengths = [(len(item.better.split()), len(item.worse.split()), item.asked) for item in labelled]
    longer = [(better > worse, asked) for better, worse, asked in lengths if better != worse]
    found = [Trait("longer", None, None, _share(longer))]
    for name, has in TRAITS.items():
        marks = [(has(item.better), has(item.worse), item.asked) for item in labelled]
        found.append(
            Trait(
                name,
                _share([(better, asked) for better, _, asked in marks]),
                _share([(worse, asked) for _, worse, asked in marks]),
                _share([(better, asked) for better, worse, asked in marks if better != worse]),
            )
        )
    return found


def _share(flags: Sequence[tuple[bool, str]]) -> Measure | None:
    return proportion([flag for flag, _ in flags], [asked for _, asked in flags])

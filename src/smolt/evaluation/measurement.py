"""What a measurement is, whatever is measured: so many records, the work on them chunk by chunk, and the numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from smolt.runs.chunks import Work
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics import Measure


@dataclass(frozen=True)
class Subject:
    """A prepared measurement.

    Attributes:
        total: records to work on.
        chunk: records done together.
        sha256: of the data.
        too_long: records left out because they exceed the model's window.
        facts: what the manifest records of how it is measured; part of the identity.
        open_work: loads the model, and gives what makes the rows of some records.
        measures: from all rows to numbers that a report does not find by itself.
        notes: what a reader of the numbers must know.
        items: from all rows to the answers of a report; none where nothing was answered.
    """

    total: int
    chunk: int
    sha256: str
    too_long: int
    facts: dict[str, Any]
    open_work: Callable[[], Work]
    measures: Callable[[list[dict[str, Any]]], dict[str, Measure]]
    notes: Sequence[str] = ()
    items: Callable[[list[dict[str, Any]]], list[RatedAnswer]] = lambda rows: []

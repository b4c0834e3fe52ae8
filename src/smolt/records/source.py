"""Where records come from: a path and how to read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol


class DataSource(Protocol):
    """Anything that names data as a recipe's `data` block does."""

    @property
    def path(self) -> str:
        """A file, a directory, or, where no such path exists, a hub name (`owner/name:configuration`)."""

    @property
    def split(self) -> str | None:
        """The split of data that has several; None is the only one, or `train`."""

    @property
    def format(self) -> str | None:
        """The name of a format, or of a family of them (`hh`); None is detected."""

    @property
    def fields(self) -> Mapping[str, str]:
        """For each field of the format, the column to read it from where that has another name."""

    @property
    def half(self) -> Literal["a", "b"] | None:
        """One of two halves that share no first question; None is all."""

    @property
    def limit(self) -> int | None:
        """At most so many records, from the first; None is all."""

    @property
    def skip_bad(self) -> bool:
        """Whether unreadable rows are left out and counted, instead of being an error."""


@dataclass(frozen=True)
class Source:
    """A data source for use without a recipe."""

    path: str
    split: str | None = None
    format: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    half: Literal["a", "b"] | None = None
    limit: int | None = None
    skip_bad: bool = False

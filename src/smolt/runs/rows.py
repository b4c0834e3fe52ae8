"""Rows of a run, one JSON object a line: metrics.jsonl and samples.jsonl."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from smolt.runs import jsontext, storage


class RowFile:
    """A JSONL file whose rows carry their `step`; rows wait in memory until `flush`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[bytes] = []
        self._digest = sha256()
        self._size = -1  # of what the digest is; -1 = not read yet

    def add(self, row: dict[str, Any]) -> None:
        """Take one row.

        Raises:
            ValueError: no `step`, or not an integer >= 0.
            SelfCheckError: a value that is not finite, named.
        """
        step = row.get("step")
        if type(step) is not int or step < 0:
            raise ValueError(f"a row of {self.path.name} needs an integer step >= 0, found {step!r}")
        self._waiting.append(jsontext.encode(row, f"{self.path.name}: row of step {step}").encode() + b"\n")

    def flush(self) -> None:
        """Hand the waiting rows to the operating system: a kill no longer loses them."""
        if self._waiting:
            content = b"".join(self._waiting)
            storage.append(self.path, content)
            self._waiting.clear()
            if self._size >= 0:
                self._digest.update(content)
                self._size += len(content)

    def sums(self) -> dict[str, Any]:
        """Size and SHA-256 of what was flushed."""
        if self._size < 0:
            self._digest, self._size = sha256(), 0
            for line in self._lines() if self.path.exists() else ():
                self._digest.update(line)
                self._size += len(line)
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}

    def rows(self) -> list[dict[str, Any]]:
        """The rows that were flushed."""
        if not self.path.exists():
            return []
        return [jsontext.decode_object(line, f"{self.path}:{place}") for place, line in enumerate(self._lines(), 1)]

    def sync(self) -> None:
        """Put all rows on the disk: a power cut no longer loses them."""
        self.flush()
        if self.path.exists():
            storage.sync(self.path)
            storage.sync(self.path.parent)

    def keep_until(self, step: int) -> list[str]:
        """Drop the rows after `step` (all of them for -1), a torn last line and unreadable lines.

        Returns:
            One warning per unreadable line that is not merely the torn last one.
        """
        self._waiting.clear()
        self._size = -1
        if not self.path.exists():
            return []
        warnings: list[str] = []
        dropped = 0
        for number, line in enumerate(self._lines(), start=1):
            row_step = _step_of(line)
            if row_step is None and line.endswith(b"\n"):
                warnings.append(f"{self.path}:{number}: not a row, dropped")
            dropped += row_step is None or row_step > step
        if dropped:
            storage.atomic_stream(self.path, (line for line in self._lines() if _is_until(_step_of(line), step)))
        return warnings

    def _lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from file


def _is_until(row_step: int | None, step: int) -> bool:
    return row_step is not None and row_step <= step


def _step_of(line: bytes) -> int | None:
    """The step of a whole line, None for one that is torn or not a row."""
    if not line.endswith(b"\n"):
        return None
    try:
        step = jsontext.decode_object(line, "row").get("step")
    except ValueError:
        return None
    return step if type(step) is int else None

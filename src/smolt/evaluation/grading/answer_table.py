"""Rows of any tool's result files: JSON lines, JSON, CSV, Parquet, compressed or not, within stated limits."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolt.config.complaints import beside
from smolt.data import files
from smolt.errors import UserError

LARGEST_FILE = 2 * 2**30
LONGEST_ROW = 64 * 2**20
"""Bytes; what is larger is refused before it is read, so that one endless answer cannot take the machine's memory."""

WITHIN_A_RUN = ("evaluation.jsonl", "samples.jsonl")
_GZIP = b"\x1f\x8b"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class AnswerTable:
    """The rows of one file.

    Attributes:
        name: of the file in messages.
        lines: (line number, columns).
        sha256: of the file's bytes.
    """

    name: str
    lines: list[tuple[int, dict[str, Any]]]
    sha256: str

    def columns(self) -> str:
        """Its column names, for messages."""
        return ", ".join(sorted({str(name)[:60] for _, row in self.lines[:100] for name in row})[:40]) or "none"


def read_rows(path: Path) -> AnswerTable:
    """Read a file, or the rated answers in a directory that smolt wrote.

    Raises:
        UserError: it is missing, empty, too large, or one of its rows is no JSON object.
    """
    place = _file(path)
    size = place.stat().st_size
    if size > LARGEST_FILE:
        raise UserError(f"{place}: is {size / 2**30:.1f} GiB; at most {LARGEST_FILE >> 30} GiB are read")
    _check_lengths(place)
    table = files.read(str(place), None)
    lines = []
    for line in table.lines:
        if line.row is None:
            raise UserError(f"{place}:{line.number}: row: {line.problem}")
        lines.append((line.number, dict(line.row)))
    if not lines:
        raise UserError(f"{place}: holds no rows")
    return AnswerTable(str(place), lines, table.sha256)


def look(row: Row, path: str) -> Any:
    """The value of a column, or of a place inside one: `resps.0.0`, `doc.answer`.

    Raises:
        KeyError: there is none.
    """
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise KeyError(path)
    return value


def text_of(value: Any) -> str | None:
    """Text as it is, a number as written, the only element of a list; "" for null; None for anything else."""
    if value is None:
        return ""
    if isinstance(value, list) and len(value) == 1:
        return text_of(value[0])
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _file(path: Path) -> Path:
    if path.is_dir():
        inside = next((path / name for name in WITHIN_A_RUN if (path / name).is_file()), None)
        if inside is None:
            raise UserError(f"{path}: is a directory without {' or '.join(WITHIN_A_RUN)}; name the file")
        return inside
    if not path.is_file():
        raise UserError(f"{path}: no such file{beside(path)}")
    return path


def _check_lengths(path: Path) -> None:
    """Refuse a row too long for memory, and a compressed file that unpacks to more than the largest."""
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
    if path.suffix.lower() != ".jsonl" and not packed:
        return
    total = 0
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            number = 1
            while line := file.readline(LONGEST_ROW + 1):
                total += len(line)
                if len(line) > LONGEST_ROW and (not packed or b".jsonl" in path.name.encode()):
                    raise UserError(
                        f"{path}:{number}: row: is longer than {LONGEST_ROW >> 20} MiB, the most that is read"
                    )
                if total > LARGEST_FILE:
                    raise UserError(f"{path}: unpacks to more than {LARGEST_FILE >> 30} GiB, the most that is read")
                number += 1
    except (EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: the compressed file is damaged: {error}") from None

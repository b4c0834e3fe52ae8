"""From a path to rows: JSON lines, JSON, CSV, Parquet or plain text, compressed or not; data set directories; the hub.

A row that cannot be parsed is a row with a problem, so that it can be counted; a file that cannot be read is an error.
"""

import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from smolt.config.complaints import beside
from smolt.data.turns import Row, described
from smolt.errors import UserError

_WRAPPERS = ("data", "rows", "examples", "records", "items", "samples", "train", "validation", "test")
"""Names under which one JSON object holds a file's rows."""

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Line:
    """One row of a file.

    Attributes:
        number: Its line, from 1 (for Parquet and data sets, its row, from 1).
        row: Its columns; None where it cannot be parsed.
        problem: Why not.
    """

    number: int
    row: Row | None
    problem: str = ""


@dataclass(frozen=True)
class FileRows:
    """The rows of one source, its name in messages, and the SHA-256 of its bytes (data sets: of the rows)."""

    name: str
    lines: list[Line]
    sha256: str


def read(path: str, split: str | None) -> FileRows:
    """Read every row of a file, directory or hub data set.

    Raises:
        UserError: It does not exist, cannot be read, is of no known kind, or has no such split.
    """
    if not path.strip():
        raise UserError(f"{path}: path: is empty; name a file, a directory or a hub data set")
    try:
        place = Path(path).expanduser()
        if place.is_file():
            if split not in (None, "train"):
                raise UserError(f"{path}: split: a single file has no split {split!r}; remove `split`")
            return _read_file(place, path)
        if place.is_dir():
            return _read_directory(place, path, split)
        exists = place.exists()
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot be read: {error}") from None
    if exists:
        raise UserError(f"{path}: is neither a file nor a directory")
    if (nothing := missing(path)) is not None:
        raise UserError(nothing)
    return _read_hub(path, split)


def missing(path: str) -> str | None:
    """What a reader would say of a path at which there certainly is nothing; None where it must be tried."""
    try:
        place = Path(path).expanduser()
        there = place.exists()
    except (OSError, ValueError, RuntimeError):  # the reader says it
        return None
    return None if there or _may_be_hub_name(path) else f"{path}: no such file or directory{beside(place)}"


def _read_file(place: Path, name: str) -> FileRows:
    content = place.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    kind = place.suffix.lower()
    if content.startswith(_GZIP):
        kind = Path(place.stem).suffix.lower() if kind in (".gz", ".gzip") else kind
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{name}: the compressed file is damaged: {error}") from None
    if kind not in _PARSERS:
        raise UserError(f"{name}: unknown kind of file {kind!r}; known: {', '.join(_PARSERS)} (also with .gz)")
    return FileRows(name, _PARSERS[kind](content, name), digest)


def _json_lines(content: bytes, name: str) -> list[Line]:
    if re.match(rb"\s*[\[{]\s*\n", content.removeprefix(b"\xef\xbb\xbf")):  # one document over several lines
        return _json(content, name)
    return _each_line(content)


def _each_line(content: bytes) -> list[Line]:
    lines = []
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if raw.strip():
            lines.append(_json_line(number, raw))
    return lines


def _json_line(number: int, raw: bytes) -> Line:
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        return Line(number, None, f"is not UTF-8 (byte {error.start + 1} of the line; save the file as UTF-8)")
    except json.JSONDecodeError as error:
        return Line(number, None, f"is not JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        return Line(number, None, f"is not usable JSON: {error}")
    return _object(number, value)


def _object(number: int, value: object) -> Line:
    if not isinstance(value, dict):
        return Line(number, None, f"is not a JSON object but {described(value)}")
    return Line(number, value)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _json(content: bytes, name: str) -> list[Line]:
    """A list of objects, each with the line it begins on, alone or under a name such as "data"; or JSON lines."""
    document = _decoded(content, name)
    position = _skip_space(document, 0)
    if not document.startswith("[", position):
        return _wrapped(document, name) or _each_line(content)
    try:
        return list(_elements(document, position + 1))
    except json.JSONDecodeError as error:
        raise UserError(f"{name}:{error.lineno}: is not JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: is not usable JSON: {error}") from None


def _wrapped(document: str, name: str) -> list[Line]:
    """The rows of one object that holds them under a usual name, or the object as one row; none of anything else."""
    try:
        value = json.loads(document, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        if re.match(r"\s*\{\s*\n", document):
            raise UserError(
                f"{name}:{error.lineno}: is neither JSON lines nor one JSON document: {error.msg}"
            ) from None
        return []
    except (ValueError, RecursionError):
        return []
    held = [key for key in _WRAPPERS if isinstance(value, dict) and isinstance(value.get(key), list)]
    if len(held) > 1:
        raise UserError(f"{name}: holds rows under {' and '.join(held)}; keep one list a file")
    return [_object(number, row) for number, row in enumerate(value[held[0]], 1)] if held else [_object(1, value)]


def _elements(document: str, position: int) -> Iterator[Line]:
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    number, counted = 1, 0
    position = _skip_space(document, position)
    if document.startswith("]", position):
        return
    while True:
        number, counted = number + document.count("\n", counted, position), position
        value, position = decoder.raw_decode(document, position)
        yield _object(number, value)
        position = _skip_space(document, position)
        if document.startswith("]", position):
            break
        if not document.startswith(",", position):
            raise json.JSONDecodeError("Expecting ',' or ']'", document, position)
        position = _skip_space(document, position + 1)
    if document[position + 1 :].strip():
        raise json.JSONDecodeError("Extra data after the list", document, position + 1)


def _skip_space(document: str, position: int) -> int:
    while position < len(document) and document[position] in " \t\r\n":
        position += 1
    return position


def _separated(content: bytes, name: str, separator: str = ",") -> list[Line]:
    document = _decoded(content, name)
    reader = csv.reader(io.StringIO(document, newline=""), delimiter=separator, strict=True)
    lines: list[Line] = []
    try:
        header = next(reader, [])
        begin = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(header):
                lines.append(Line(begin, dict(zip(header, cells, strict=True))))
            elif cells:
                lines.append(Line(begin, None, f"has {len(cells)} columns where the header has {len(header)}"))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{name}:{reader.line_num}: is not CSV: {error}") from None
    return lines


def _parquet(content: bytes, name: str) -> list[Line]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(pyarrow.BufferReader(content), page_checksum_verification=True).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise UserError(f"{name}: is not readable as Parquet: {error}") from None
    return _numbered(rows)


def _plain(content: bytes, name: str) -> list[Line]:
    return [Line(1, {"text": _decoded(content, name)})]


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: is not UTF-8 (byte {error.start + 1}; save the file as UTF-8)") from None


def _numbered(rows: list[dict[str, Any]]) -> list[Line]:
    return [Line(number, row) for number, row in enumerate(rows, start=1)]


_PARSERS: dict[str, Callable[[bytes, str], list[Line]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _separated,
    ".tsv": partial(_separated, separator="\t"),
    ".parquet": _parquet,
    ".txt": _plain,
}


def _read_directory(place: Path, name: str, split: str | None) -> FileRows:
    """A `save_to_disk` directory, or a directory of files: the one named after the split, or the only one."""
    if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
        return _read_saved(place, name, split)
    files = sorted(file for file in place.iterdir() if file.is_file() and _stem(file) is not None)
    wanted = [file for file in files if _stem(file) == (split or "train")] or (files if split is None else [])
    if len(wanted) == 1:
        return _read_file(wanted[0], str(Path(name) / wanted[0].name))
    known = ", ".join(file.name for file in files) or "none"
    if not wanted and split is not None:
        raise UserError(f"{name}: split: no file is named {split!r}; data files there: {known}")
    raise UserError(f"{name}: is a directory and no one data file can be chosen; name one of its files ({known})")


def _stem(file: Path) -> str | None:
    """The name of a data file without its endings, or None for another file."""
    bare = Path(file.stem) if file.suffix.lower() in (".gz", ".gzip") else file
    return bare.stem if bare.suffix.lower() in _PARSERS else None


def _read_saved(place: Path, name: str, split: str | None) -> FileRows:
    import datasets

    try:
        found = datasets.load_from_disk(str(place))
        splits = found if isinstance(found, datasets.DatasetDict) else {"train": found}
        chosen = _choose_split(list(splits), name, split)
        rows = splits[chosen].to_list()
    except UserError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
        raise UserError(f"{name}: is not readable as a saved data set: {error}") from None
    return FileRows(name, _numbered(rows), _digest(rows))


def _choose_split(splits: list[str], name: str, split: str | None) -> str:
    if split is None and len(splits) == 1:
        return splits[0]
    if (split or "train") not in splits:
        asked = "has several splits" if split is None else f"has no split {split!r}"
        raise UserError(f"{name}: split: the data {asked}; name one of {', '.join(splits)}")
    return split or "train"


def _may_be_hub_name(path: str) -> bool:
    """Whether a path that does not exist looks like `name` or `owner/name`, not like a file."""
    begins_locally = not path or path[0] in "./~\\"
    return not begins_locally and path.count("/") <= 1 and Path(path).suffix.lower() not in (*_PARSERS, ".gz")


def _read_hub(path: str, split: str | None) -> FileRows:
    import datasets

    hub_name, _, configuration = path.partition(":")
    try:
        found = datasets.load_dataset(hub_name, configuration or None)
        rows = found[_choose_split(list(found), path, split)].to_list()
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        local = beside(Path(path))
        raise UserError(f"{path}: no such file or directory{local}; as a hub data set: {reason}") from None
    return FileRows(path, _numbered(rows), _digest(rows))


def _digest(rows: list[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=True, default=repr).encode() + b"\n")
    return digest.hexdigest()

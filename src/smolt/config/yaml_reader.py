"""YAML as people expect it: 1e-4 is a number, yes and no are words, and a key given twice is an error with both lines.

The resolution follows YAML 1.2's core schema. Only plain data comes out (no tags, no objects), with the line of every
key and list item, so that any later complaint can name its place.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from smolt.errors import UserError

KeyPath = tuple[str | int, ...]
MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_NODES = 100_000
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Document:
    """Plain data and the line (from 1) of each key and list item, by its path from the root."""

    file: str
    text: str
    data: Any
    lines: dict[KeyPath, int]


class _Loader(yaml.SafeLoader):
    """Composes nodes with YAML 1.2's scalars and a bounded depth; it never constructs objects."""

    depth = 0
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML declares it so

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node, refusing documents nested beyond MAX_DEPTH."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            problem = f"nested deeper than {MAX_DEPTH} levels"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_Loader.add_implicit_resolver(_TAG + "null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_TAG + "bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "int", re.compile(r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))


def _float(text: str) -> float:
    word = text.lower().lstrip("-+")
    if word in (".inf", ".nan"):
        return float(text.replace(".", ""))
    return float(text)


def _int(text: str) -> int:
    if len(text) > 30:
        raise ValueError("a whole number of more than 30 digits")
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _scalar(node: yaml.ScalarNode) -> Any:
    """The value of a leaf.

    Raises:
        ValueError: for a tag that is not plain data or a text its tag does not fit.
    """
    text = node.value
    if not isinstance(text, str):
        raise ValueError("not a text")
    kind = node.tag.removeprefix(_TAG)
    if kind == "str":
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError("half of a surrogate pair is not a character")
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return _int(text)
    if kind == "float":
        return _float(text)
    raise ValueError(f"the tag {node.tag} is not plain data")


class _Walk:
    """Turns nodes into plain data and keeps the lines."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[KeyPath, int] = {}
        self.nodes = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.nodes += 1
        line = node.start_mark.line + 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise UserError(f"{self.file}:{line}: too many values; aliases that multiply are refused")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            for index, item in enumerate(node.value):
                self.lines[(*path, index)] = item.start_mark.line + 1
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            try:
                return _scalar(node)
            except ValueError as error:
                raise UserError(f"{self.file}:{line}: {dotted(path)}: {error}") from None
        raise UserError(f"{self.file}:{line}: {dotted(path)}: the tag {node.tag} is not plain data")

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{self.file}:{line}: a key must be a plain word")
            here = (*path, key_node.value)
            if here in self.lines:
                raise UserError(
                    f"{self.file}:{line}: {dotted(here)}: given twice, first on line {self.lines[here]}; remove one"
                )
            self.lines[here] = line
            found[key_node.value] = self.value(value_node, here)
        return found


def dotted(path: KeyPath) -> str:
    """The path as people write it, ``kl.coefficient``; characters that do not print are escaped."""
    parts = [str(part) if str(part).isprintable() else ascii(part) for part in path]
    return ".".join(part if len(part) <= 80 else part[:77] + "..." for part in parts)


def _explained(error: yaml.YAMLError, file: str, text: str) -> UserError:
    """A YAML error as one line with its place."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return UserError(f"{file}:{line}: the character {chr(error.character)!a} is not allowed in YAML")
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        reason = " ".join(part for part in (error.context, error.problem) if part)
        shown = text.splitlines()[line - 1] if line <= len(text.splitlines()) else ""
        hint = '; a value that begins with { needs quotes, "{section}/file"' if re.search(r":\s*\{\w+\}", shown) else ""
        return UserError(f"{file}:{line}: not valid YAML: {reason}{hint}")
    return UserError(f"{file}: not valid YAML: {error}")


def read_text(text: str, file: str) -> Document:
    """Parse one YAML document.

    Args:
        text: the document.
        file: its name in error messages.

    Raises:
        UserError: with `file:line` for invalid YAML, a repeated key, a tag, or a document too large or too deep.
    """
    walk = _Walk(file)
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = None if node is None else walk.value(node, ())
    except yaml.YAMLError as error:
        raise _explained(error, file, text) from None
    finally:
        if loader is not None:
            loader.dispose()
    return Document(file, text, data, walk.lines)


def read_yaml(path: Path) -> Document:
    """Read a YAML file of at most 1 MB.

    Raises:
        UserError: as `read_text`, and for a file that cannot be read or is not UTF-8.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES:,} bytes; a recipe is a small text file")
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: not UTF-8 text (byte {raw[error.start]:#04x}); save the file as UTF-8"
        ) from None
    return read_text(text, str(path))

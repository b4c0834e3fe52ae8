"""A disk that breaks, standing in for `os` in `smolt.runs.storage`, and a model of what a power cut may leave on it."""

import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

LostData = Literal["kept", "missing", "half", "zeros"]


def flipped(content: bytes, draw: random.Random) -> bytes:
    """The same bytes with one bit changed."""
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


class Crash(BaseException):
    """The process is dead: nothing that runs after it changes the disk."""


@dataclass(frozen=True)
class Operation:
    """One change, with paths as they were then: create, write, sync, mkdir, rename, unlink, rmdir, truncate."""

    kind: str
    path: Path
    content: bytes = b""
    target: Path | None = None
    size: int = 0


@dataclass
class Disk:
    """Counts the changing operations and breaks the one numbered `break_at` (from 0).

    With `error` that operation raises OSError(error), once, or from then on with `lasting`. Without, the process
    crashes there, and a write leaves its first half.
    """

    break_at: int | None = None
    error: int | None = None
    lasting: bool = False
    operations: list[Operation] = field(default_factory=list)
    count: int = 0
    _paths: dict[int, Path] = field(default_factory=dict)

    def namespace(self) -> SimpleNamespace:
        """What replaces the name `os` in smolt.runs.storage."""
        own = {
            "open": self._open,
            "write": self._write,
            "fsync": self._fsync,
            "mkdir": self._mkdir,
            "rename": self._rename,
            "unlink": self._unlink,
            "rmdir": self._rmdir,
            "ftruncate": self._truncate,
        }
        return SimpleNamespace(**{**vars(os), **own})

    def _breaks(self) -> bool:
        """Whether this operation is the one at which the process dies; raises where it fails or comes after that."""
        number, self.count = self.count, self.count + 1
        if self.break_at is None or number < self.break_at:
            return False
        if self.error is None:
            if number > self.break_at:
                raise Crash
            return True
        if self.lasting or number == self.break_at:
            raise OSError(self.error, os.strerror(self.error))
        return False

    def _do(self, operation: Operation) -> None:
        if self._breaks():
            raise Crash
        self.operations.append(operation)

    def _open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and not path.exists():
            self._do(Operation("create", path))
        elif flags & os.O_TRUNC:
            self._do(Operation("truncate", path))
        descriptor = os.open(path, flags, mode)
        self._paths[descriptor] = path
        return descriptor

    def _write(self, descriptor: int, content: bytes) -> int:
        if self._breaks():
            os.write(descriptor, content[: len(content) // 2])
            raise Crash
        self.operations.append(Operation("write", self._paths[descriptor], bytes(content)))
        return os.write(descriptor, content)

    def _fsync(self, descriptor: int) -> None:
        self._do(Operation("sync", self._paths[descriptor]))

    def _truncate(self, descriptor: int, size: int) -> None:
        self._do(Operation("truncate", self._paths[descriptor], size=size))
        os.ftruncate(descriptor, size)

    def _mkdir(self, path: Path) -> None:
        if path.exists():
            raise FileExistsError
        self._do(Operation("mkdir", path))
        os.mkdir(path)

    def _rename(self, source: Path, target: Path) -> None:
        self._do(Operation("rename", source, target=target))
        os.rename(source, target)

    def _unlink(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError
        self._do(Operation("unlink", path))
        os.unlink(path)

    def _rmdir(self, path: Path) -> None:
        self._do(Operation("rmdir", path))
        os.rmdir(path)


class Node:
    """A file (its content) or a directory (its entries) of the model; identity is what a rename keeps."""

    def __init__(self, entries: "dict[str, Node] | None" = None) -> None:
        self.content = b""
        self.entries = entries

    @classmethod
    def of(cls, path: Path) -> "Node":
        """The model of what lies at `path`."""
        if path.is_dir():
            return cls({entry.name: cls.of(entry) for entry in path.iterdir()})
        node = cls()
        node.content = path.read_bytes()
        return node

    def copy(self) -> "Node":
        twin = Node(None if self.entries is None else {name: node.copy() for name, node in self.entries.items()})
        twin.content = self.content
        return twin

    def find(self, parts: Iterable[str]) -> "Node | None":
        node: Node | None = self
        for part in parts:
            node = None if node is None or node.entries is None else node.entries.get(part)
        return node

    def files(self, prefix: str = "") -> Iterator[tuple[str, bytes | None]]:
        """Every path below with its content, None for a directory."""
        for name, node in sorted((self.entries or {}).items()):
            yield prefix + name, None if node.entries is not None else node.content
            yield from node.files(f"{prefix}{name}/")

    def materialise(self, directory: Path) -> None:
        """Write the model to a real, empty directory."""
        for name, content in self.files():
            if content is None:
                (directory / name).mkdir()
            else:
                (directory / name).write_bytes(content)


def power_cuts(before: Node, root: Path, operations: list[Operation]) -> Iterator[tuple[int, Node]]:
    """Every distinct state of `root` that a power cut may leave, with the largest number of operations leading to it.

    What was not synced may be lost: of the directory entries any last few, or any single one; of file contents all,
    the second half, or all replaced by zeros.
    """
    seen = set()
    for length in reversed(range(len(operations) + 1)):
        done = operations[:length]
        entries, contents = _unsynced(before, root, done)
        lost = [set(entries[start:]) for start in range(len(entries) + 1)] + [{each} for each in entries]
        modes: tuple[LostData, ...] = ("kept", "missing", "half", "zeros") if contents else ("kept",)
        for dropped in lost:
            for mode in modes:
                state = before.copy()
                for number, operation in enumerate(done):
                    if number not in dropped:
                        _apply(state, root, operation, mode if number in contents else "kept")
                key = tuple(state.files())
                if key not in seen:
                    seen.add(key)
                    yield length, state


def _unsynced(before: Node, root: Path, operations: list[Operation]) -> tuple[list[int], set[int]]:
    """The numbers of the operations on directory entries, and of those on contents, that no later sync made durable."""
    state = before.copy()
    pending: list[tuple[int, Node, bool]] = []
    for number, operation in enumerate(operations):
        parts = operation.path.relative_to(root).parts
        node, parent = state.find(parts), state.find(parts[:-1])
        if operation.kind == "sync":
            pending = [item for item in pending if item[1] is not node]
        elif operation.kind in ("write", "truncate") and node is not None:
            pending.append((number, node, False))
        elif parent is not None:
            pending.append((number, parent, True))
        _apply(state, root, operation, "kept")
    return [number for number, _, entry in pending if entry], {number for number, _, entry in pending if not entry}


def _apply(state: Node, root: Path, operation: Operation, mode: LostData) -> None:
    """Do one operation on the model; one whose file or directory was lost does nothing."""
    parts = operation.path.relative_to(root).parts
    parent, node, name = state.find(parts[:-1]), state.find(parts), parts[-1] if parts else ""
    if parent is None or parent.entries is None:
        return
    if operation.kind in ("create", "mkdir"):
        parent.entries[name] = Node({} if operation.kind == "mkdir" else None)
    elif node is None:
        return
    elif operation.kind == "write":
        node.content += _written(operation.content, mode)
    elif operation.kind == "truncate":
        node.content = node.content[: operation.size]
    elif operation.kind == "rename" and operation.target is not None:
        parent.entries[operation.target.name] = parent.entries.pop(name)
    elif operation.kind == "unlink" or (operation.kind == "rmdir" and not node.entries):
        del parent.entries[name]


def _written(content: bytes, mode: LostData) -> bytes:
    if mode == "zeros":
        return bytes(len(content))
    return content[: {"kept": len(content), "missing": 0, "half": len(content) // 2}[mode]]

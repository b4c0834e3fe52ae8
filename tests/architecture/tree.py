"""smolt's own source as data: its modules, and what each imports, read from the syntax tree (nothing is executed)."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"


@dataclass(frozen=True)
class Import:
    """One imported name.

    Attributes:
        module: the module that imports.
        target: what is imported, as a dotted name (for `from a import b` both `a` and `a.b` are looked at).
        line: where.
        deferred: whether it happens inside a function.
    """

    module: str
    target: str
    line: int
    deferred: bool


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package is named by its `__init__`."""
    found = {}
    for path in sorted((SOURCE / "smolt").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def syntax(module: str) -> ast.Module:
    """The syntax tree of a module."""
    path = modules()[module]
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def place(module: str, node: ast.AST) -> str:
    """`path:line` of a node, for messages."""
    return f"{modules()[module].relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def part(module: str) -> str:
    """The room a module belongs to: `data` for `smolt.data.nouns`, `` for smolt itself."""
    return module.split(".")[1] if "." in module else ""


@cache
def imports(module: str) -> tuple[Import, ...]:
    """What a module imports, at the top and inside functions; relative imports are resolved."""
    return tuple(_walk(module, syntax(module), deferred=False))


def bench_imports() -> Iterator[Import]:
    """What the modules of bench/ import from one another."""
    for path in sorted((ROOT / "bench").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "bench":
                for alias in node.names:
                    target = f"{node.module}.{alias.name}".split(".")[1]
                    yield Import(path.stem, target, node.lineno, deferred=False)


def _walk(module: str, node: ast.AST, deferred: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, child.lineno, deferred)
        elif isinstance(child, ast.ImportFrom):
            origin = _origin(module, child)
            for alias in child.names:
                yield Import(module, f"{origin}.{alias.name}", child.lineno, deferred)
        inside = deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _walk(module, child, inside)


def _origin(module: str, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    is_package = modules()[module].name == "__init__.py"
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + is_package]
    return ".".join([*parts, node.module] if node.module else parts)


def own(target: str) -> str | None:
    """The module of smolt that an imported dotted name comes from, or None for somebody else's.

    `smolt.data.Turn` comes from `smolt.data`; a module that does not exist yet is named by its first two parts.
    """
    parts = target.split(".")
    if parts[0] != "smolt":
        return None
    for length in range(len(parts), 1, -1):
        name = ".".join(parts[:length])
        if name in modules():
            return name
    return ".".join(parts[:2]) if part(target) in {part(module) for module in modules()} else "smolt"


def calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a module with the dotted name that is called (empty when it is not a plain name)."""
    for node in ast.walk(syntax(module)):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or an attribute chain, else the empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""

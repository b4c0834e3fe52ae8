"""What is wrong with a recipe, said where it was written: `file:line: field: reason`, all of it at once."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from smolt.config.yaml_reader import KeyPath, dotted
from smolt.errors import UserError

MOST = 10
MOST_MOVES = 4


@dataclass(frozen=True)
class Complaint:
    """One mistake: the path of the field (empty = the recipe as a whole) and what is wrong with it."""

    path: KeyPath
    message: str


class Misplaced(ValueError):
    """Carries one complaint from where it is found to where all are gathered."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message)
        self.complaint = Complaint(path, message)


@dataclass(frozen=True)
class Origin:
    """Where a recipe's values were written.

    Attributes:
        file: the file, or words such as "recipe grpo" for values from Python.
        lines: path of a key -> its line in the file.
        arguments: path of a key -> the command-line argument that set it.
        moved: path in the recipe -> path in the file, for values that a section takes over from its study.
    """

    file: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    arguments: dict[KeyPath, str] = field(default_factory=dict)
    moved: dict[KeyPath, KeyPath] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int | None:
        """The line of the field, or of the nearest enclosing key; None when the values come from no file."""
        for candidate in _prefixes(self.written(path)):
            if candidate in self.lines:
                return self.lines[candidate]
        return 1 if self.lines else None

    def place(self, path: KeyPath) -> str:
        """`file:line`, or the argument that set the field."""
        for candidate in _prefixes(self.written(path)):
            if candidate in self.arguments:
                return f"argument `{dotted((self.arguments[candidate],))}`"
        line = self.line(path)
        return self.file if line is None else f"{self.file}:{line}"

    def written(self, path: KeyPath) -> KeyPath:
        """Where in the file the value of this path stands."""
        for _ in range(MOST_MOVES):
            moved = next((candidate for candidate in _prefixes(path) if candidate in self.moved), None)
            if moved is None:
                break
            path = self.moved[moved] + path[len(moved) :]
        return path


def _prefixes(path: KeyPath) -> Iterator[KeyPath]:
    """The path and its ancestors, longest first, without the root."""
    return (path[:length] for length in range(len(path), 0, -1))


def refusal(origin: Origin, complaints: Iterable[Complaint]) -> UserError:
    """All complaints as one error, in the order of their lines, at most ten."""
    ordered = sorted(complaints, key=lambda complaint: origin.line(complaint.path) or 0)
    told = []
    for complaint in ordered[:MOST]:
        parts = [origin.place(complaint.path), dotted(complaint.path), complaint.message]
        told.append(": ".join(part for part in parts if part))
    if len(ordered) > MOST:
        told.append(f"{origin.file}: and {len(ordered) - MOST} more")
    return UserError("\n".join(told))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like this one, or None when none is like it."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower()[:80], by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """A tail for an error: the nearest name, or the names there are."""
    names = list(known)
    close = nearest(name, names)
    return f'; did you mean "{close}"?' if close else f"; known: {', '.join(names)}"


def beside(path: Path) -> str:
    """A tail for an error about a path that is not there: the names beside it that resemble it most, or nothing."""
    parent, missing = path.parent, path.name
    while not parent.is_dir() and parent != parent.parent:
        parent, missing = parent.parent, parent.name
    try:
        names = sorted(entry.name for entry in parent.iterdir())
    except OSError:
        return ""
    close = difflib.get_close_matches(missing, names, n=3, cutoff=0.5)
    return f"; nearest in {parent}: {', '.join(close)}" if close else ""


def complaints_about(error: ValidationError, recipe: type[BaseModel], at: KeyPath = ()) -> list[Complaint]:
    """Pydantic's findings in the words of this project.

    Args:
        error: what validation raised.
        recipe: the class that was validated, for the names it knows.
        at: path of the validated mapping in the file.
    """
    errors = error.errors(include_url=False)
    wrong = {found["loc"][:-1] for found in errors} | {found["loc"][:-2] for found in errors}
    # A list whose only entry is wrong counts as empty too; the entry is what there is to say.
    said = [found for found in errors if found["type"] != "too_short" or found["loc"] not in wrong]
    return [_complaint(dict(found), recipe, at) for found in said]


def _complaint(found: dict[str, Any], recipe: type[BaseModel], at: KeyPath) -> Complaint:
    path = tuple(part for part in found["loc"] if part != "[key]")
    kind = found["type"]
    if kind == "extra_forbidden":
        message = "unknown field" + _where_else(path, recipe)
    elif kind == "missing":
        message = f"missing ({_description(path, recipe)})"
    elif kind == "value_error":
        message = str(found["ctx"]["error"])
    elif kind == "literal_error":
        options = [str(option) for option in _options(path, recipe)]
        message = f"is {_shown(found['input'])}, must be one of {found['ctx']['expected']}"
        close = nearest(str(found["input"]), options)
        message += f'; did you mean "{close}"?' if close else ""
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        message = f"is {_shown(found['input'])}, must be a block of fields"
    else:
        reason = found["msg"].replace("Input should", "must").replace("a valid integer", "a whole number")
        reason = reason.replace("a valid string", "a text").replace("a valid boolean", "true or false")
        message = f"is {_shown(found['input'])}; {reason[:1].lower()}{reason[1:]}"
    return Complaint(at + path, message)


def _shown(value: object) -> str:
    """A value in a message: short, and nothing a terminal would obey."""
    text = ascii(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    words = {"None": "null", "True": "true", "False": "false", "list": "a list", "dict": "a block of fields"}
    return words.get(text, text if len(text) <= 60 else text[:57] + "...")


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The recipe classes inside an annotation such as `Annotated[LoRA | None, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _enclosing(path: KeyPath, recipe: type[BaseModel]) -> type[BaseModel] | None:
    """The class of the block that holds the last part of the path."""
    current: type[BaseModel] | None = recipe
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        if current is None or part not in current.model_fields:
            return None
        inside = _models(current.model_fields[part].annotation)
        current = inside[0] if inside else None
    return current


def _description(path: KeyPath, recipe: type[BaseModel]) -> str:
    block = _enclosing(path, recipe)
    known = block.model_fields.get(str(path[-1])) if block else None
    return (known.description if known else None) or "it is required"


def _options(path: KeyPath, recipe: type[BaseModel]) -> tuple[object, ...]:
    block = _enclosing(path, recipe)
    known = block.model_fields.get(str(path[-1])) if block else None
    return get_args(known.annotation) if known else ()


def _where_else(path: KeyPath, recipe: type[BaseModel]) -> str:
    """The tail for an unknown field: the block it belongs to, the nearest name, or the names there are."""
    name = str(path[-1])
    block = _enclosing(path, recipe)
    if block is None:
        return ""
    elsewhere = [path for path in _paths(recipe) if path[-1] == name]
    if len(elsewhere) == 1:
        return f'; did you mean "{dotted(elsewhere[0])}"?'
    return suggestion(name, block.model_fields)


def _paths(recipe: type[BaseModel]) -> Iterator[KeyPath]:
    """Every field of a recipe and of its blocks (not of lists) as a path."""
    for name, known in recipe.model_fields.items():
        yield (name,)
        for model in _models(known.annotation)[:1]:
            yield from ((name, *rest) for rest in _paths(model))

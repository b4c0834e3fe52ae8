"""Rubrics and constitutions: what "better" means, as small files with a version."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smolt.config.blocks import SHIPPED
from smolt.config.complaints import suggestion
from smolt.config.yaml_reader import read_yaml
from smolt.errors import UserError

FOLDER = SHIPPED / "rubrics"
FIELDS = {"name": str, "version": int, "pairwise": str, "pointwise": str, "principles": list, "draw": int}
NEEDED = ("name", "version", "pairwise", "pointwise")


@dataclass(frozen=True)
class Rubric:
    """What a judge is asked.

    Attributes:
        name, version: for the record.
        pairwise: the question about two answers.
        pointwise: the question about one answer, on a scale of 1 to 10.
        principles: sentences that say what counts.
        draw: how many of them one showing sees, drawn by its content; 0 = all (2212.08073 draws one at a time).
    """

    name: str
    version: int
    pairwise: str
    pointwise: str
    principles: tuple[str, ...] = ()
    draw: int = 0

    @property
    def identity(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def chosen(self, seed: str) -> tuple[str, ...]:
        """The principles for one showing, a function of `seed` (hex)."""
        if not self.draw or self.draw >= len(self.principles):
            return self.principles
        order = sorted(self.principles, key=lambda text: hashlib.sha256((seed + text).encode()).digest())
        return tuple(order[: self.draw])


def rubric_names() -> list[str]:
    """The rubrics that come with smolt."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_rubric(name: str) -> Rubric:
    """A shipped rubric by its name, or one from a file.

    A .yaml file holds the fields of Rubric; a .txt file holds principles, one a line, for the question "Which answer
    keeps to these principles better?".

    Raises:
        UserError: there is no such rubric, or a field is wrong.
    """
    path = FOLDER / f"{name}.yaml" if name in rubric_names() else Path(name)
    if not path.is_file():
        raise UserError(f"rubric: {name!r} is neither a file nor one of the shipped{suggestion(name, rubric_names())}")
    if path.suffix in (".yaml", ".yml"):
        return _from_fields(read_yaml(path).data, str(path))
    if path.suffix != ".txt":
        raise UserError(f"{path}: is no rubric; it must be a .yaml file, or a .txt file of principles, one a line")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8; save the file as UTF-8") from None
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise UserError(f"{path}: holds no principle; write one on each line")
    ask = "Which answer keeps to these principles better?"
    rate = "How well does the answer keep to these principles, from 1 (not at all) to 10 (fully)?"
    return Rubric(path.stem, 1, ask, rate, lines)


def _from_fields(data: Any, file: str) -> Rubric:
    if not isinstance(data, dict):
        raise UserError(f"{file}:1: must be a mapping of {', '.join(FIELDS)}")
    for field, value in data.items():
        if field not in FIELDS:
            raise UserError(f"{file}: {field}: unknown field{suggestion(str(field), FIELDS)}")
        if not isinstance(value, FIELDS[field]) or isinstance(value, bool):
            raise UserError(f"{file}: {field}: must be {_described(FIELDS[field])}")
        if isinstance(value, str) and not value.strip():
            raise UserError(f"{file}: {field}: is empty")
    missing = [field for field in NEEDED if field not in data]
    if missing:
        raise UserError(f"{file}: {missing[0]}: is missing")
    principles = data.get("principles", [])
    if not all(isinstance(principle, str) and principle.strip() for principle in principles):
        raise UserError(f"{file}: principles: must be a list of sentences")
    if not 0 <= data.get("draw", 0) <= len(principles):
        raise UserError(f"{file}: draw: must be 0 (all) to {len(principles)}, the number of principles")
    return Rubric(**{**data, "principles": tuple(principles)})


def _described(kind: type) -> str:
    return {str: "a text", int: "a whole number", list: "a list"}[kind]

"""A recipe from the fields of a form: as YAML, checked in smolt's own words, with the command that runs it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolt.config import parse_recipe, shipped_recipes
from smolt.config.reference import REQUIRED, FieldEntry, stage_fields
from smolt.config.yaml_reader import read_yaml
from smolt.errors import UserError

FILE = "recipe"
"""What errors call the text before it is a file."""
TRAINED = ("sft", "reward", "dpo", "kto", "decide", "ppo", "grpo", "online_dpo", "distill", "pretrain")
"""Stages that a command of their own runs."""
WHOLE = {"reward": "a rule, a model's directory, or a list: gsm8k; [gsm8k, {name: length, options: {target: 60}}]"}
"""Blocks that are one field of the form, written as in YAML."""
WORDS = {"text", "null", "number", "mapping"}


@dataclass(frozen=True)
class FormField:
    """One field of the form.

    Attributes:
        name: dotted.
        about: what it means, and what may be written.
        default: what holds where nothing is written; "required" where something must be.
        choices: all values, where they are few and named.
    """

    name: str
    about: str
    default: str
    choices: tuple[str, ...] = ()

    @property
    def block(self) -> str:
        """The block it stands in, "" for the recipe itself."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Draft:
    """A recipe that is being written.

    Attributes:
        text: its YAML.
        error: what is wrong with it, "" where nothing is.
        stage, name: of the recipe, "" where it is wrong.
    """

    text: str
    error: str = ""
    stage: str = ""
    name: str = ""

    def command(self, runs: Path) -> str:
        """What runs it, once it is a file."""
        return f"smolt {self.stage} {file_of(runs, self.name)} --out {runs / self.name}" if self.stage else ""


def form_fields(stage: str) -> list[FormField]:
    """The fields of a stage's form, those that must be filled in first.

    Raises:
        UserError: there is no such stage, or it is none that trains by itself.
    """
    if stage not in TRAINED:
        raise UserError(f"unknown stage {stage!r}; the form writes {', '.join(TRAINED)}")
    entries = stage_fields(stage)
    found = [_field(entry) for entry in entries if entry.block is None and _top(entry.name) not in WHOLE]
    found += [
        FormField(name, about, REQUIRED)
        for name, about in WHOLE.items()
        if any(_top(entry.name) == name for entry in entries)
    ]
    optional = {entry.name for entry in entries if entry.block is not None}
    needed = [field for field in found if field.default == REQUIRED and field.block not in optional]
    return needed + [field for field in found if field not in needed]


def text_of(stage: str, given: Mapping[str, str]) -> str:
    """The YAML of a filled-in form: what was typed stands as it was typed."""
    tree: dict[str, Any] = {}
    for name, value in given.items():
        if value.strip():
            *blocks, last = name.split(".")
            place = tree
            for block in blocks:
                place = place.setdefault(block, {})
            place[last] = " ".join(value.split())
    return f"stage: {stage}\n" + "".join(_lines(tree, ""))


def _lines(tree: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for name, value in tree.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:\n", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value}\n")
    return lines


def checked(text: str) -> Draft:
    """The draft with what is wrong with it."""
    try:
        recipe = parse_recipe(text, FILE)
    except UserError as error:
        return Draft(text, str(error))
    return Draft(text, "", recipe.stage, recipe.name)


def shipped_text(name: str) -> str:
    """A shipped recipe, with its stage said.

    Raises:
        UserError: there is none of this name.
    """
    if name not in shipped_recipes():
        raise UserError(f"{name!r} is no shipped recipe")
    document = read_yaml(shipped_recipes()[name])
    return document.text if "stage" in document.data else f"stage: study\n{document.text}"


def file_of(runs: Path, name: str) -> Path:
    """Where a recipe that is started is kept."""
    return runs / "recipes" / f"{name}.yaml"


def _top(name: str) -> str:
    return name.split(".")[0]


def _field(entry: FieldEntry) -> FormField:
    """A plain field; its choices where its values are words of their own."""
    parts = tuple(re.split(r", | or ", entry.values))
    named = all(re.fullmatch(r"\w+", part) for part in parts) and len(parts) > 1
    few = named and not WORDS & set(parts) - {"null"}
    return FormField(entry.name, f"{entry.about} ({entry.values})", entry.default, parts if few else ())

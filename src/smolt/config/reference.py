"""The reference of recipe fields, written from the recipes' own classes: what it says is what is checked."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from smolt.config.complaints import suggestion
from smolt.config.study_recipe import STAGE_RECIPES, StudyRecipe
from smolt.errors import UserError

INTRODUCTION = """\
# Recipe fields

Written by `smolt recipe fields`; a test keeps this page equal to its output. A field is honoured or refused: there is
none that a stage ignores, and an unknown one is an error that names the nearest. `smolt recipe fields STAGE` lists one
stage with every field of its blocks. A block shows only the defaults in which it differs from the table of the block.
A file may also say its `stage`. In a study every stage is a section, which takes the study's `model`, `lora`, `data`,
`dev` and `seed` unless it has its own, and has two fields more:

| field | value | default | meaning |
|---|---|---|---|
| `stage` | a stage | the section's name | what the section does |
| `from` | a section above with a policy, or base | sft, else pretrain, else base | whose model it starts from |

The stage sft starts from pretrain, else base, unless `from` says otherwise; pretrain, problems, and a section with a
`model.path` of its own take no `from`. In a path `{section}` is that section's directory.
[Write your own study](../guides/write-your-own-study.md) shows all of it in use.
"""
REQUIRED = "required"
HIDDEN = ("stage", "sections")
EXAMPLE = {"model": "x", "teacher": "x", "data": "x", "reward": "gsm8k", "reward_model": "x"}
"""Values for what a recipe must be given, so that the defaults of the rest can be read off."""

BOUNDS = {"ge": "≥", "minimum": "≥", "gt": ">", "exclusiveMinimum": ">"} | {
    "le": "≤",
    "maximum": "≤",
    "lt": "<",
    "exclusiveMaximum": "<",
}
WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
    "null": "null",
}


@dataclass(frozen=True)
class FieldEntry:
    """One field of a recipe.

    Attributes:
        name: dotted from the recipe's top.
        values: what may be written, in words; of a block the class.
        default: as YAML, or "required"; of a block what differs from the block's own defaults, "" where nothing does.
        about: its description.
        block: the class of a block or of a list of blocks, None for a plain value.
    """

    name: str
    values: str
    default: str
    about: str
    block: type[BaseModel] | None = None


def recipe_classes() -> dict[str, type[BaseModel]]:
    """Stage -> the class of its recipe, the study last."""
    return {**STAGE_RECIPES, "study": StudyRecipe}


def stage_fields(stage: str) -> list[FieldEntry]:
    """Every plain field of a stage's recipe, those of its blocks dotted, and every block that may be null.

    Raises:
        UserError: there is no such stage.
    """
    classes = recipe_classes()
    if stage not in classes:
        raise UserError(f"unknown stage {stage!r}" + suggestion(stage, classes))
    recipe = classes[stage]
    entries = _flat(recipe, _example(recipe), "")
    return [entry for entry in entries if entry.block is None or entry.default == "null"]


def stage_lines(stage: str) -> str:
    """`stage_fields` as aligned lines for a terminal: name, default, meaning, values."""
    entries = stage_fields(stage)
    name, default = max(len(e.name) for e in entries), max(len(e.default) for e in entries)
    return "\n".join(f"{e.name:<{name}}  {e.default:<{default}}  {e.about} ({e.values})" for e in entries)


def reference_page() -> str:
    """The whole reference as Markdown: each stage's own fields, then each block once."""
    parts = [INTRODUCTION]
    blocks: dict[str, type[BaseModel]] = {}
    for stage, recipe in recipe_classes().items():
        entries = list(_own(recipe, _example(recipe)))
        parts.append(_section(stage, recipe, entries))
        _collect(entries, blocks)
    parts.append("# Blocks\n")
    parts += [_section(name, blocks[name], list(_own(blocks[name], None))) for name in sorted(blocks)]
    return "\n".join(parts)


def _example(recipe: type[BaseModel]) -> BaseModel:
    """A recipe with every default; where one of two fields must be given, its default is shown all the same."""
    fields = {name: recipe.model_fields[name] for name in EXAMPLE if name in recipe.model_fields}
    needed = {name for name, field in fields.items() if field.is_required() or field.default is None}
    made = recipe.model_validate({name: EXAMPLE[name] for name in needed})
    return made.model_copy(update={name: fields[name].default for name in needed if not fields[name].is_required()})


def _section(title: str, recipe: type[BaseModel], entries: list[FieldEntry]) -> str:
    lines = [f"## {title}", "", (recipe.__doc__ or "").splitlines()[0], ""]
    lines += ["| field | value | default | meaning |", "|---|---|---|---|"]
    for entry in entries:
        values = entry.values
        if entry.block is not None:
            name = entry.block.__name__
            values = values.replace(name, f"[{name}](#{name.lower()})")
        default = f"`{entry.default}`" if entry.default not in ("", REQUIRED) else entry.default
        lines.append(f"| `{entry.name}` | {values} | {default} | {entry.about} |")
    return "\n".join([*lines, ""])


def _collect(entries: list[FieldEntry], found: dict[str, type[BaseModel]]) -> None:
    """The blocks of some fields and those inside them, by class name."""
    for entry in entries:
        if entry.block is not None and entry.block.__name__ not in found:
            found[entry.block.__name__] = entry.block
            _collect(list(_own(entry.block, None)), found)


def _flat(recipe: type[BaseModel], values: BaseModel | None, prefix: str) -> Iterator[FieldEntry]:
    for entry in _own(recipe, values):
        yield FieldEntry(prefix + entry.name, entry.values, entry.default, entry.about, entry.block)
        if entry.block is not None:
            inner = dict(values or ()).get(entry.name)
            yield from _flat(entry.block, inner if isinstance(inner, BaseModel) else None, f"{prefix}{entry.name}.")


def _own(recipe: type[BaseModel], values: BaseModel | None) -> Iterator[FieldEntry]:
    """The fields of one class, in order; defaults from `values`, else the class's own."""
    properties = recipe.model_json_schema()["properties"]
    for name, field in recipe.model_fields.items():
        if name in HIDDEN:
            continue
        default = dict(values)[name] if values is not None else field.get_default(call_default_factory=True)
        block = _block_of(field.annotation)
        shown = REQUIRED if field.is_required() else _written(default, block)
        words = _block_words(properties[name], block) if block is not None else _words(properties[name])
        yield FieldEntry(name, words, shown, str(field.description or ""), block)


def _block_of(annotation: Any) -> type[BaseModel] | None:
    """The class of a field that holds a block, perhaps null, or a list of blocks."""
    classes = [item for item in (annotation, *get_args(annotation)) if isinstance(item, type)]
    return next((item for item in classes if issubclass(item, BaseModel)), None)


def _block_words(schema: dict[str, Any], block: type[BaseModel]) -> str:
    if schema.get("type") == "array":
        return f"list of {block.__name__}"
    return f"{block.__name__} or null" if "anyOf" in schema else block.__name__


def _written(default: Any, block: type[BaseModel] | None) -> str:
    """A default as YAML; of a block only what differs from the block's own defaults, "" where nothing does."""
    if isinstance(default, BaseModel) and block is not None:
        own = {name: field.get_default() for name, field in block.model_fields.items()}
        changed = {name: value for name, value in dict(default).items() if value != own[name]}
        return ", ".join(f"{name}: {_yaml(value)}" for name, value in changed.items())
    return _yaml(default) if block is None or default is None else ""


def _yaml(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _words(schema: dict[str, Any]) -> str:
    """What may be written, from a field's JSON schema."""
    if "anyOf" in schema:
        return " or ".join(_words(part) for part in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        *most, last = schema["enum"]
        return f"{', '.join(most)} or {last}"
    bounds = ", ".join(f"{sign} {schema[name]}" for name, sign in BOUNDS.items() if name in schema)
    word = WORDS[schema.get("type", "object")]
    if schema.get("type") == "array":
        inner = schema.get("items") or schema["prefixItems"][0]
        word = f"list of {_words(inner)}"
    return f"{word} {bounds}".strip()

"""From a file, a shipped name or Python values, with `section.key=value` overrides, to a checked recipe."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from pydantic import BaseModel, ValidationError

from smolt.config.blocks import MEASURES, SHIPPED, Block
from smolt.config.complaints import Complaint, Misplaced, Origin, beside, complaints_about, nearest, refusal, suggestion
from smolt.config.sections import expand_dotted, expand_study, read_study
from smolt.config.study_recipe import STAGE_RECIPES, Recipe, StudyRecipe
from smolt.config.yaml_reader import Document, KeyPath, read_text, read_yaml
from smolt.errors import UserError

WITH_PATH_ALONE = ("model", "teacher", "data", "dev", "test", "decisions")
BlockT = TypeVar("BlockT", bound=Block)
STAGES = (*STAGE_RECIPES, "study")


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with smolt: name -> file."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find_recipe(source: str) -> Path:
    """The file of a recipe, given as a path or as the name of a shipped one.

    Raises:
        UserError: there is neither.
    """
    shipped = shipped_recipes()
    if "\0" not in source and Path(source).is_file():
        return Path(source)
    if source in shipped:
        return shipped[source]
    near = beside(Path(source)) if "/" in source or Path(source).suffix in (".yaml", ".yml") else ""
    close = nearest(Path(source).stem, shipped)
    meant = f'; did you mean "{close}"?' if close else ""
    hint = near + meant or f"; shipped: {', '.join(shipped) or 'none'}"
    raise UserError(f"{ascii(source)[1:-1]}: no such recipe file, and no shipped recipe of this name{hint}")


@overload
def load_recipe(source: str | Path, stage: Literal["study"], overrides: Sequence[str] = ()) -> StudyRecipe: ...
@overload
def load_recipe(source: str | Path, stage: str | None = None, overrides: Sequence[str] = ()) -> Recipe: ...


def load_recipe(source: str | Path, stage: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    Args:
        source: path of a YAML file, or the name of a shipped recipe.
        stage: the stage the caller runs; None = as the file says.
        overrides: `section.key=value` each, the value in YAML.

    Raises:
        UserError: with every mistake found (at most ten shown), each with its place and the fix.
    """
    document = read_yaml(find_recipe(str(source)))
    return _checked(document, stage, overrides)


def parse_recipe(text: str, name: str) -> Recipe:
    """Check a recipe that is in no file yet; its text says its stage.

    Args:
        text: YAML.
        name: what errors call it.

    Raises:
        UserError: as `load_recipe`.
    """
    return _checked(read_text(text, name), None, ())


def make_recipe(stage: str, **values: Any) -> Recipe:
    """A recipe from Python values; dotted names reach into blocks: `make_recipe("grpo", **{"optim.lr": 1e-5})`.

    Raises:
        UserError: with every mistake found.
    """
    if stage not in STAGES:
        raise UserError(f"unknown stage {stage!r}" + suggestion(stage, STAGES))
    plain = {name: _plain(value) for name, value in values.items() if "." not in name}
    origin = Origin(f"recipe {stage}")
    if stage == "study":
        plain = _expanded(plain, stage, origin)
    for name, value in values.items():
        if "." in name:
            _set(plain, name, _plain(value), origin, name)
    origin.arguments.clear()
    return _built(plain, stage, origin)


def make_block(block: type[BlockT], **values: Any) -> BlockT:
    """One block from plain values, such as a command's options.

    Raises:
        UserError: with every mistake found.
    """
    try:
        return block.model_validate(values)
    except ValidationError as error:
        raise refusal(Origin("option"), complaints_about(error, block)) from None


def recipe_hash(recipe: BaseModel) -> str:
    """SHA-256 of the recipe's canonical JSON: equal exactly when every field is."""
    text = json.dumps(recipe.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    """Blocks and paths as plain data, so that they can be merged with other values."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    return str(value) if isinstance(value, Path) else value


def _checked(document: Document, stage: str | None, overrides: Sequence[str]) -> Recipe:
    origin = Origin(document.file, document.lines)
    data = document.data
    if not isinstance(data, dict):
        problem = "the file is empty" if data is None else "must be a mapping, `field: value` on each line"
        raise UserError(f"{document.file}:1: {problem}")
    stage = _stage(data, stage, origin)
    data = _expanded(data, stage, origin)
    written = tuple(data)
    for argument in overrides:
        name, value = _parsed(argument)
        if stage == "study" and isinstance(value, dict):
            value = _expanded({name: value}, stage, origin)[name]
        if stage != "study":
            name = name.removeprefix(f"{stage}.")
        elif _step(data, name.split("."))[0] not in (*written, *StudyRecipe.model_fields):
            raise UserError(
                f"argument `{argument}`: the study has no such section" + suggestion(name.split(".")[0], written)
            )
        _set(data, name, value, origin, argument)
    if data.get("stage", stage) != stage:
        raise refusal(origin, [Complaint(("stage",), f"this is a {stage} recipe; its stage cannot be overridden")])
    return _built(data, stage, origin)


def _expanded(data: dict[str, Any], stage: str, origin: Origin) -> dict[str, Any]:
    """Plain data with every dotted field in its block."""
    try:
        return expand_study(data, origin) if stage == "study" else _without_own_wrapper(data, stage, origin)
    except Misplaced as wrong:
        raise refusal(origin, [wrong.complaint]) from None


def _stage(data: dict[str, Any], wanted: str | None, origin: Origin) -> str:
    """The stage of a file: as it says, else as the caller wants, else a study where it has sections.

    Raises:
        UserError: it is unknown, or another than wanted.
    """
    said = data.get("stage")
    if said is not None and said not in STAGES:
        raise refusal(origin, [Complaint(("stage",), "unknown stage" + suggestion(str(said), STAGES))])
    sections = [name for name in data if name in STAGE_RECIPES and name not in ("reward", wanted)]
    if said is None and (
        "study" in data or (sections and all(isinstance(data[name], dict | None) for name in sections))
    ):
        said = "study"
    if said is None and wanted is None:
        raise UserError(f"{origin.file}:1: stage: missing; say which: {', '.join(STAGES)}")
    if said is not None and wanted is not None and said != wanted:
        raise refusal(origin, [Complaint(("stage",), f"this is a recipe for {said}; run `smolt {said}`, not {wanted}")])
    return str(said or wanted)


def _without_own_wrapper(data: dict[str, Any], stage: str, origin: Origin) -> dict[str, Any]:
    """A stage's own fields may stand under its name, as in a study: `dpo: {beta: 0.2}` in a dpo recipe.

    Raises:
        Misplaced: a field is given twice.
    """
    wrapped = data.get(stage)
    if not isinstance(wrapped, dict):
        return expand_dotted(data, origin, ())
    lifted = {name: value for name, value in data.items() if name != stage}
    for name, value in wrapped.items():
        if name in lifted:
            raise Misplaced((stage, name), "given twice, here and at the top; remove one")
        lifted[name] = value
        origin.moved[(name,)] = (stage, name)
    return expand_dotted(lifted, origin, ())


def _parsed(argument: str) -> tuple[str, object]:
    """Split `section.key=value`; a value that is no YAML is taken as plain text.

    Raises:
        UserError: there is no name or no equals sign.
    """
    name, sign, text = argument.partition("=")
    shown = ascii(argument[:80])[1:-1]
    if not sign or not re.fullmatch(r"[\w\-]+(\.[\w\-]+)*", name):
        raise UserError(f"argument `{shown}`: write it as section.key=value")
    if not text.isprintable():
        raise UserError(f"argument `{shown}`: the value holds a character that does not print")
    if text.startswith("{") and not text.endswith("}"):
        return name, text
    try:
        return name, read_text(text, f"argument `{shown}`").data
    except UserError:
        return name, text


def _set(data: dict[str, Any], name: str, value: object, origin: Origin, argument: str) -> None:
    """Put one override into the data, in place, and remember which argument it was.

    Raises:
        UserError: the way leads through something that has no fields.
    """
    path: KeyPath = ()
    target: Any = data
    parts = name.split(".")
    while True:
        key, parts = _step(target, parts)
        path = (*path, key)
        if not parts:
            break
        inner = target.get(key) if isinstance(target, dict) else target[key]
        if isinstance(inner, str) and (key in WITH_PATH_ALONE or isinstance(key, int)):
            inner = {"name" if isinstance(key, int) else "path": inner}
        if inner is not None and not isinstance(inner, dict | list):
            raise UserError(f"argument `{argument}`: {name.removesuffix('.' + '.'.join(parts))} has no fields")
        target[key] = inner = {} if inner is None else inner.copy()
        target = inner
    target[key] = value
    origin.arguments[path] = argument
    if path[-2:-1] == ("budget",) and key in MEASURES and value is not None:
        for other in MEASURES:  # an override takes the place of what the file measures it in
            if (*path[:-1], other) not in origin.arguments:
                target.pop(other, None)


def _step(target: Any, parts: list[str]) -> tuple[str | int, list[str]]:
    """The next key on the way: the longest dotted one that exists, else one part; a list takes an index.

    Raises:
        UserError: the list has no such index.
    """
    if isinstance(target, list):
        if not parts[0].isdecimal() or int(parts[0]) >= len(target):
            raise UserError(f"{'.'.join(parts)}: a list with {len(target)} items is reached by index, from 0")
        return int(parts[0]), parts[1:]
    for length in range(len(parts), 1, -1):
        if ".".join(parts[:length]) in target:
            return ".".join(parts[:length]), parts[length:]
    return parts[0], parts[1:]


def _built(data: dict[str, Any], stage: str, origin: Origin) -> Recipe:
    if stage == "study":
        return read_study(data, origin)
    recipe_class = STAGE_RECIPES[stage]
    try:
        return recipe_class.model_validate({**data, "stage": stage})
    except ValidationError as error:
        raise refusal(origin, complaints_about(error, recipe_class)) from None

"""What a stage is handed: a recipe or its fields, data in memory, `auto` settled, the longest rows to expect."""

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel
from transformers import AutoConfig

from smolt import processes
from smolt.config import Machine, Model, make_recipe
from smolt.data.handed_over import require_records
from smolt.errors import UserError
from smolt.models.forward import precision
from smolt.models.forward.precision import choose_precision
from smolt.models.forward.process_group import join
from smolt.models.forward.quiet import read_by_library
from smolt.models.groups import Groups, from_answers
from smolt.models.locating import locate
from smolt.runs.identity import MANIFEST, read_manifest

LOG = logging.getLogger(__name__)
Computing = TypeVar("Computing", Model, Machine)


def settled(model: Computing, run: Path | None, fresh: bool, shape: tuple[int, int] | None = None) -> Computing:
    """A training's model block with `auto` dtype and threads decided: as in the run it continues, else by measuring.

    Args:
        model: a recipe's.
        run: the training's directory.
        fresh: whether the run there is set aside.
        shape: width and feed-forward width; None asks the model at the path.

    Raises:
        UserError: there is no such model, or the manifest is damaged.
    """
    join()
    return processes.by_first(lambda: _settled(model, run, fresh, shape))


def _settled(model: Computing, run: Path | None, fresh: bool, shape: tuple[int, int] | None) -> Computing:
    if model.threads is not None:
        _say_threads(model.threads, os.environ.get("OMP_NUM_THREADS", ""))
        if model.dtype != "auto":
            return model
    if run is not None and not fresh and (run / MANIFEST).is_file():
        manifest = read_manifest(run)
        dtype = model.dtype if model.dtype != "auto" else manifest.get("dtype", "fp32")
        return model.model_copy(update={"dtype": dtype, "threads": manifest.get("threads", model.threads)})
    if choose_precision(model.device, "auto").device.type != "cpu":
        return model
    dtype, threads = precision.settle(model.dtype, model.threads, *(shape or _widths(model)))
    return model.model_copy(update={"dtype": dtype, "threads": threads})


@cache
def _say_threads(threads: int, environment: str) -> None:
    """Once a process: the recipe decides, for with another number the last digits would be others."""
    if environment.isdigit() and int(environment) != threads:
        LOG.warning(
            "the recipe says %d threads and OMP_NUM_THREADS %s: the recipe's are used; model.threads=%s changes that",
            threads,
            environment,
            environment,
        )


def _widths(model: Model | Machine) -> tuple[int, int]:
    located = locate(model.path) if isinstance(model, Model) else None
    if located is None:
        return precision.USUAL
    with read_by_library(f"model.path: {located.base}"):
        config = AutoConfig.from_pretrained(located.base, trust_remote_code=False)
    width = int(config.hidden_size)
    return width, int(getattr(config, "intermediate_size", None) or 4 * width)


def longest_answer(context: int, answer: int) -> Groups:
    """A context and an answer of so many tokens, which ones does not matter."""
    return from_answers([[0] * context], [[[0] * answer]])


RecipeT = TypeVar("RecipeT", bound=BaseModel)


def recipe_for(kind: type[RecipeT], recipe: RecipeT | str | Path, fields: dict[str, Any], **given: Any) -> RecipeT:
    """A recipe as it is, or one made from a model path and fields.

    Args:
        kind: the recipe's class.
        recipe: a recipe of that class, or a model path or hub name.
        fields: recipe fields, for a path only; of `model` all but its path.
        given: fields whose values were handed over in memory; None where they were not.

    Raises:
        UserError: fields beside a recipe, a field that is wrong, or one that is given twice.
    """
    memory = {name: value for name, value in given.items() if value is not None}
    if isinstance(recipe, kind):
        if fields:
            raise UserError(f"{', '.join(fields)}: a recipe was given; put the fields into it")
        return recipe
    stage = str(kind.model_fields["stage"].default)
    if "stage" in fields:
        raise UserError(f"stage: is {stage} already, the name of the function; leave it out")
    twice = next((name for name in memory if name in fields), None)
    if twice is not None:
        raise UserError(f"{twice}: was handed over in memory, and is given as a field too; keep one of the two")
    model = _model_at(str(recipe), fields.get("model"))
    return cast(RecipeT, make_recipe(stage, **{**fields, **memory, "model": model}))


def _model_at(path: str, block: object) -> object:
    """The model block of a path that is the first argument, and of the fields beside it, such as a dtype."""
    if block is None:
        return path
    fields = block.model_dump(exclude_unset=True) if isinstance(block, BaseModel) else block
    if not isinstance(fields, Mapping):
        raise UserError('model: the path is the first argument; beside it model takes fields: model={"dtype": "fp32"}')
    if str(fields.get("path", path)) != path:
        raise UserError(f"model.path: is {fields['path']}, and the first argument is {path}; give one of the two")
    return {**fields, "path": path}


def in_memory(records: Sequence[object] | None) -> str | None:
    """What a recipe's data block says of records that were handed over in memory.

    Raises:
        UserError: they are no list, or an empty one.
    """
    if records is None:
        return None
    require_records(records)
    return "(in memory)"

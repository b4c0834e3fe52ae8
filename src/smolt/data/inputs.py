"""What is to be read, looked for before anything that takes seconds is loaded: models and data by their paths.

Only what is certain is refused here. A name that may be one of the hub's data sets is left to its reader.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from smolt.config import BestOfNRecipe, Critic, Data, Judging, Model, RewardPart, Teacher
from smolt.config.complaints import beside
from smolt.config.yaml_reader import KeyPath, dotted
from smolt.data import files
from smolt.data.reading import named_formats
from smolt.errors import UserError
from smolt.runs.identity import is_run

HUB_SECONDS = 10
CONFIGURATIONS = {"config.json", "adapter_config.json"}
"""Files one of which a model directory holds."""


def look_for(*asked: BaseModel) -> None:
    """See that what recipes or blocks read is there. A path with a section's name in it waits for that section.

    Raises:
        UserError: the first that is not, with its field and the nearest names beside it; or an unknown format.
    """
    for block in asked:
        for fault in _unknown_formats(block):
            raise UserError(fault)
        for field, path, is_model in _read_by(block):
            if is_model:
                find_model(path, field)
            elif (missing := files.missing(path)) is not None:
                raise UserError(f"{field}: {missing}")


def missing_inputs(recipe: BaseModel) -> Iterator[str]:
    """What `look_for` would raise of each path and format, once a path, without asking the hub."""
    yield from dict.fromkeys(_unknown_formats(recipe))
    seen: set[str] = set()
    for field, path, is_model in _read_by(recipe):
        if path in seen:
            continue
        seen.add(path)
        if is_model:
            try:
                _find_here(path, field)
            except UserError as error:
                yield str(error)
        elif (missing := files.missing(path)) is not None:
            yield f"{field}: {missing}"


def hub_names(recipe: BaseModel) -> list[str]:
    """What a recipe takes for the name of a model on the hub, because nothing of that name is here."""
    paths = (path for _, path, is_model in _read_by(recipe) if is_model)
    return list(dict.fromkeys(path for path in paths if not Path(os.path.expanduser(path)).exists()))


def _read_by(block: BaseModel) -> Iterator[tuple[str, str, bool]]:
    """Field, path, and whether it is a model's, of what is there before the first section is made."""
    start: KeyPath = ("model",) if isinstance(block, Model) else ("data",) if isinstance(block, Data) else ()
    return ((dotted(place), path, is_model) for place, path, is_model in _paths_of(block, start) if "{" not in path)


def blocks_of(value: Any, place: KeyPath = ()) -> Iterator[tuple[KeyPath, BaseModel]]:
    """Each block of a recipe and where it stands; a section goes by its name."""
    if isinstance(value, list | tuple):
        for item in value:
            is_section = isinstance(item, BaseModel) and hasattr(item, "recipe")
            yield from blocks_of(item, (*place, item.name) if is_section else place)
    elif isinstance(value, BaseModel):
        yield place, value
        for name, item in value:
            yield from blocks_of(item, place if name in ("sections", "recipe", "parts") else (*place, name))


def _paths_of(value: Any, place: KeyPath) -> Iterator[tuple[KeyPath, str, bool]]:
    """Each path, where it stands, and whether it is a model's."""
    for at, block in blocks_of(value, place):
        if isinstance(block, BestOfNRecipe):
            yield (*at, "reward_model"), block.reward_model, True
        if isinstance(block, Data):
            yield (*at, "path"), block.path, False
        elif isinstance(block, Model | Teacher | Critic | Judging | RewardPart):
            for path in model_paths(block):
                yield (*at, "path"), path, True


def _unknown_formats(value: BaseModel) -> Iterator[str]:
    """What is wrong with the names of formats."""
    for at, block in blocks_of(value):
        if isinstance(block, Data) and block.format not in (None, "auto"):
            try:
                named_formats(dotted(at) or "data", block.format)
            except UserError as error:
                yield str(error)


def model_paths(block: Model | Teacher | Critic | Judging | RewardPart) -> list[str]:
    """Where the models are that a block names, on this machine or on the hub."""
    if isinstance(block, RewardPart) and block.name not in ("model", "judge", "decision"):
        several = block.options.get("path", ()) if block.name == "ensemble" else ()
        return [path for path in several if isinstance(path, str)] if isinstance(several, list | tuple) else []
    decides = block.decision if isinstance(block, Judging) else None
    named = decides if isinstance(decides, str) else block.path
    return [] if named is None or named.startswith(("http://", "https://")) else [named]


def find_model(path: str, field: str = "model.path") -> Path | None:
    """The directory or GGUF file at a model path; None for a name that the hub knows. Local paths come first.

    Args:
        path: as the user gave it.
        field: where, for messages.

    Raises:
        UserError: there is none, or what is there is no model.
    """
    place = _find_here(path, field)
    if place is None:
        _ask_the_hub(path, field)
    return place


def _find_here(path: str, field: str) -> Path | None:
    """As `find_model`, but of a name that the hub may know nothing is said."""
    place = Path(os.path.expanduser(path))  # pathlib's own raises for `~nobody`
    if not place.exists():
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) and not path.startswith("."):
            _refuse_beside_runs(path, field)
            return None
        raise UserError(f"{field}: {path}: no such directory, and not a hub name (owner/name){beside(place)}")
    if not place.is_dir():
        if not is_gguf(place):
            raise UserError(f"{field}: {path}: is a file and no GGUF; give the directory that holds config.json")
    elif not is_run(place) and CONFIGURATIONS.isdisjoint(entry.name for entry in place.iterdir()):
        raise UserError(f"{field}: {path}: holds neither config.json nor adapter_config.json, so it is not a model")
    return place


def is_gguf(path: Path) -> bool:
    """Whether a file says in its header that it is GGUF, whatever its name."""
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _refuse_beside_runs(name: str, field: str) -> None:
    parent = Path(name).parent
    runs = sorted(entry.name for entry in parent.iterdir() if is_run(entry)) if "/" in name and parent.is_dir() else []
    if runs:
        raise UserError(f"{field}: {name}: no such run; {parent} holds {', '.join(runs[:10])}{beside(Path(name))}")


def _ask_the_hub(name: str, field: str) -> None:
    """See that a name is in the hub's cache, or that the hub knows it when it is asked once.

    Raises:
        UserError: neither; a misspelt directory ends here too.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import RepositoryNotFoundError

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except RepositoryNotFoundError:
        reason = "the hub has no such model (or it is gated and you are not logged in)"
    except Exception as error:  # no network, offline mode, a proxy: each client library has errors of its own
        reason = f"the hub cannot be asked ({type(error).__name__})"
    else:
        return
    near = beside(Path(name))
    raise UserError(f"{field}: {name}: no such directory here, not in the hub's cache, and {reason}{near}")

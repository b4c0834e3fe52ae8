"""A model directory as a repository of a hub: what would go, and, when told, its way there.

Only files that a model directory has by its format go: nothing else that lies in the folder, no path of this machine.
"""

import contextlib
import fnmatch
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from huggingface_hub.utils.tqdm import disable_progress_bars

from smolt import __version__
from smolt.data.inputs import find_model
from smolt.errors import UserError
from smolt.models.gguf.destination import title_of
from smolt.models.locating import Located, locate
from smolt.models.publishing.model_card import model_card
from smolt.models.saving import is_reward_model
from smolt.runs import jsontext
from smolt.runs.identity import run_of

LOG = logging.getLogger(__name__)
CARD = "README.md"
PARTS = (
    *(CARD, "LICENSE*", "NOTICE*", "config.json", "generation_config.json", "adapter_config.json", "rendering.json"),
    *("*.safetensors", "*.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model"),
    *("chat_template.jinja", "smolt_reward.json"),
)
"""The files of a model directory, as patterns of names."""

VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Files of pieces of text, which may look like anything."""


@dataclass(frozen=True)
class Parcel:
    """What goes to a repository.

    Attributes:
        repository: owner/name.
        directory: of the model.
        files: names, in order.
        left_out: what else lies there.
        card: the README.md that is written for it; None where the directory has one.
    """

    repository: str
    directory: Path
    files: list[str]
    left_out: list[str]
    card: str | None

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file, the card first where it is written for it."""
        made = {} if self.card is None else {CARD: len(self.card.encode())}
        return {**made, **{name: (self.directory / name).stat().st_size for name in self.files}}


def pack(path: str, repository: str) -> Parcel:
    """See what would go; nothing is sent.

    Args:
        path: a model directory, an adapter whose base is on the hub, or a run.
        repository: owner/name.

    Raises:
        UserError: `path` is none of these, its files name places of this machine, or the name is none that a hub takes.
    """
    _require_name(repository)
    place = find_model(path)
    if place is None or not place.is_dir():
        raise UserError(
            f"model.path: {path}: is no directory here; a model directory, an adapter or a run goes to a hub"
        )
    located = locate(path, to_merge=True)
    directory = located.adapter or Path(located.base)
    base = None
    if directory.parent == Path(located.base):  # a model that decides, with its adapter in a folder of its own
        raise UserError(
            f"{path}: holds a base and an adapter; `smolt merge {path} --out DIR` makes one model, which can go"
        )
    if located.adapter is not None:
        base = str(jsontext.read_object(directory / "adapter_config.json")["base_model_name_or_path"])
        if Path(base).expanduser().exists():
            raise UserError(
                f"{directory / 'adapter_config.json'}: base_model_name_or_path: {base} is on this machine, and nobody "
                f"else has it; `smolt merge {path} --out DIR` makes one model of both, which can go"
            )
    entries = sorted(entry.name for entry in directory.iterdir())
    files = [name for name in entries if _is_part(directory / name)]
    for name in files:
        if name.endswith(".json") and name not in VOCABULARIES:
            _refuse_places(json.loads((directory / name).read_text(encoding="utf-8")), f"{directory / name}: ")
    card = None if CARD in files else _card(path, located, base)
    return Parcel(repository, directory, files, [name for name in entries if name not in files], card)


def push(parcel: Parcel, private: bool = True) -> str:
    """Make the repository if there is none, and commit the files to it; the address of the repository.

    Args:
        parcel: what goes.
        private: of a repository that is made; one that is there stays as it is.

    Raises:
        UserError: offline, without a token, or the hub refuses or cannot be reached; the reason is given.
    """
    if constants.is_offline_mode():
        raise UserError(
            "offline: HF_HUB_OFFLINE is set, so nothing can go to a hub; unset it and run the command again"
        )
    token = get_token()
    if token is None:
        raise UserError("no token of the hub: set HF_TOKEN, or log in once with `hf auth login`")
    disable_progress_bars()
    api = HfApi(token=token, library_name="smolt", library_version=__version__)
    given = [(name, parcel.directory / name) for name in parcel.files]
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(place)) for name, place in given]
    if parcel.card is not None:
        operations.append(CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=parcel.card.encode()))
    with _reached(parcel.repository):
        LOG.info("making the repository %s", parcel.repository)
        address = api.create_repo(parcel.repository, private=private, exist_ok=True)
        LOG.info("uploading %d files to %s", len(operations), parcel.repository)
        api.create_commit(parcel.repository, operations, commit_message=f"A model from smolt {__version__}")
    return str(address)


def _require_name(repository: str) -> None:
    try:
        validate_repo_id(repository)
    except HFValidationError as fault:
        raise UserError(f"{repository}: is no name of a repository, OWNER/NAME: {fault}") from fault
    if repository.count("/") != 1:
        raise UserError(f"{repository}: is no name of a repository; say whose it is, OWNER/NAME")


def _is_part(place: Path) -> bool:
    """Whether a file belongs to the format of a model directory."""
    return place.is_file() and any(fnmatch.fnmatchcase(place.name, pattern) for pattern in PARTS)


def _refuse_places(value: Any, field: str) -> None:
    """No text of a file is a path that this machine has.

    Raises:
        UserError: one is; its field is named.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_places(inner, f"{field}{name}: ")
    elif isinstance(value, list):
        for inner in value:
            _refuse_places(inner, field)
    elif isinstance(value, str) and re.fullmatch(r"/[^/\n]+/[^\n]{1,1000}", value) and Path(value).exists():
        raise UserError(f"{field}{value!r} is a path of this machine; change it before the file goes to a hub")


def _card(path: str, located: Located, base: str | None) -> str:
    """A README.md of what is known: the base of an adapter, the run that made it."""
    manifest, result = run_of(Path(path).expanduser())
    facts = {
        "kind": "reward" if is_reward_model(located) else "policy",
        "base": base or _start_of(manifest),
        "adapter": base is not None,
    }
    return model_card(title_of(path), facts, manifest, result)


def _start_of(manifest: dict[str, Any]) -> str | None:
    """The model a run started from: a hub name, or a place of this machine from its root on, which a card hides."""
    recipe = manifest.get("recipe")
    model = recipe.get("model") if isinstance(recipe, dict) else None
    path = model.get("path") if isinstance(model, dict) else None
    if not isinstance(path, str):
        return None
    place = Path(path).expanduser()
    return str(place.resolve()) if place.exists() else path


@contextlib.contextmanager
def _reached(repository: str) -> Iterator[None]:
    """Around the hub's client, which raises errors of other packages, more with every release.

    Raises:
        UserError: instead of what it raises, with the reason.
    """
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        refused = status in (401, 403)
        reason = "the token may not write there" if refused else (str(error).splitlines() or ["no reason given"])[0]
        raise UserError(f"{repository}: the hub refuses ({status}): {reason}") from error
    except Exception as error:
        cause = error.__cause__ or error
        raise UserError(f"{repository}: the hub cannot be reached ({type(cause).__name__}: {cause})") from error

"""What a model path means: a hub name, a model directory, an adapter directory, or a run that holds one.

Everything here is read before any weight is: a directory that would run code or leave itself is refused.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from smolt.errors import UserError
from smolt.models.gguf import imported, is_gguf
from smolt.runs import jsontext

HUB_SECONDS = 10
UNSAFE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack"}


@dataclass(frozen=True)
class Located:
    """A base model and, where the path is an adapter, the adapter directory on top of it."""

    base: str
    adapter: Path | None = None

    @property
    def tokenizer(self) -> str:
        """Where the tokenizer is: with the adapter if it has one of its own."""
        own = self.adapter is not None and (self.adapter / "tokenizer_config.json").is_file()
        return str(self.adapter) if own else self.base


def locate(path: str) -> Located:
    """Resolve a path or hub name; local paths come first. A GGUF file is imported into the user's cache.

    Raises:
        UserError: the directory does not exist, holds no model, or is not safe to load.
    """
    directory = Path(path).expanduser()
    if not directory.exists():
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) and not path.startswith("."):
            return _on_the_hub(path)
        raise UserError(f"model.path: {path}: no such directory, and not a hub name (owner/name)")
    if not directory.is_dir():
        if is_gguf(directory):
            return Located(str(imported(directory.resolve())))
        raise UserError(f"model.path: {path}: is a file and no GGUF; give the directory that holds config.json")
    if (directory / "manifest.json").is_file():
        if not (directory / "model").is_dir():
            raise UserError(f"model.path: {path}: this run has no model yet; finish it by running its command again")
        directory = directory / "model"
    if (directory / "adapter_config.json").is_file():
        return _adapter(directory)
    if not (directory / "config.json").is_file():
        raise UserError(f"model.path: {path}: holds neither config.json nor adapter_config.json, so it is not a model")
    check_directory(directory)
    return Located(str(directory.resolve()))


def _adapter(directory: Path) -> Located:
    base = jsontext.read_object(directory / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UserError(f"{directory / 'adapter_config.json'}: base_model_name_or_path: names no base model")
    check_directory(directory)
    below = locate(base)
    if below.adapter is not None:
        raise UserError(f"{directory}: its base {base} is an adapter itself; merge that first (smolt merge)")
    return Located(below.base, directory)


def _on_the_hub(name: str) -> Located:
    """A hub name that is in the cache, or that the hub knows when it is asked once.

    Raises:
        UserError: neither; a misspelt directory ends here too.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import RepositoryNotFoundError

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return Located(name)
    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except RepositoryNotFoundError:
        reason = "the hub has no such model (or it is gated and you are not logged in)"
    except Exception as error:  # no network, offline mode, a proxy: each client library has errors of its own
        reason = f"the hub cannot be asked ({type(error).__name__})"
    else:
        return Located(name)
    raise UserError(f"model.path: {name}: no such directory here, not in the hub's cache, and {reason}")


def check_directory(directory: Path) -> None:
    """Refuse a model directory that would run code or read outside itself.

    Raises:
        UserError: remote code, pickled weights, or a shard outside the directory.
    """
    for name in ("config.json", "tokenizer_config.json"):
        if (directory / name).is_file() and "auto_map" in jsontext.read_object(directory / name):
            raise UserError(f"{directory / name}: auto_map: the model wants to run its own code; smolt never does")
    weights = [file.name for file in directory.iterdir() if file.suffix in UNSAFE_SUFFIXES]
    if weights and not any(directory.glob("*.safetensors")):
        raise UserError(
            f"{directory}: its weights are only in {weights[0]}, which may carry code; convert to safetensors"
        )
    for index in directory.glob("*.index.json"):
        for shard in set(jsontext.read_object(index).get("weight_map", {}).values()):
            if not isinstance(shard, str) or Path(shard).name != shard:
                raise UserError(f"{index}: weight_map: {shard!r} lies outside the directory")

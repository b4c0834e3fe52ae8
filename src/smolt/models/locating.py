"""What a model path means: a hub name, a model directory, an adapter directory, or a run that holds one.

Everything here is read before any weight is: a directory that would run code or leave itself is refused.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from smolt.errors import UserError
from smolt.models.forward.quiet import read_by_library
from smolt.models.gguf import imported, is_gguf
from smolt.runs import jsontext
from smolt.runs.identity import is_run

ADAPTER_WEIGHTS = "adapter_model.safetensors"
HEAD = "base_model.model.score.weight"
"""The score head of a reward model, as peft names it among an adapter's weights."""

# fmt: off
KNOWN = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_bias", "lora_dropout", "megatron_core", "peft_type", "peft_version",
    "qalora_group_size", "r", "rank_pattern", "revision", "target_modules", "task_type", "use_dora", "use_rslora",
}
# fmt: on
"""Fields of adapter_config.json that are computed with, or that say nothing about what the adapter computes."""

BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights under which the base stays as it is."""

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


def locate(path: str, to_merge: bool = False) -> Located:
    """Resolve a path or hub name; local paths come first. A GGUF file is imported into the user's cache.

    Args:
        path: as the user gave it.
        to_merge: take any LoRA adapter, for its merge; else what is not computed in place is refused.

    Raises:
        UserError: the directory does not exist, holds no model, is not safe to load, or is an adapter that holds more
            than is computed.
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
    if is_run(directory):
        if not (directory / "model").is_dir():
            raise UserError(f"model.path: {path}: this run has no model yet; finish it by running its command again")
        directory = directory / "model"
    if (directory / "adapter_config.json").is_file():
        return _adapter(directory, to_merge)
    if not (directory / "config.json").is_file():
        raise UserError(f"model.path: {path}: holds neither config.json nor adapter_config.json, so it is not a model")
    check_directory(directory)
    return Located(str(directory.resolve()))


def _adapter(directory: Path, to_merge: bool) -> Located:
    config = jsontext.read_object(directory / "adapter_config.json")
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UserError(f"{directory / 'adapter_config.json'}: base_model_name_or_path: names no base model")
    check_directory(directory)
    below = locate(base)
    if below.adapter is not None:
        raise UserError(f"{directory}: its base {base} is an adapter itself; merge that first (smolt merge)")
    _check_adapter(directory, config, to_merge)
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


def inside_block(name: str) -> bool:
    """Whether the module or weight of this name belongs to one of the network's numbered blocks."""
    return re.search(r"\.\d+\.", name) is not None


def _check_adapter(directory: Path, config: dict[str, Any], to_merge: bool) -> None:
    """The one door for adapters: what passes is computed exactly.

    Raises:
        UserError: it is no LoRA, or holds something besides LoRA on linear layers inside the blocks and a score head.
    """
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise UserError(f"{directory / 'adapter_config.json'}: peft_type: {kind}: smolt reads LoRA adapters only")
    if config.get("layer_replication"):
        raise UserError(f"{directory}: layer_replication: repeats layers of its base; smolt reads no such adapter")
    if to_merge:
        return
    with read_by_library(str(directory)), safe_open(directory / ADAPTER_WEIGHTS, "np") as weights:
        names = sorted(weights.keys())
    found = _uncomputed(config, names)
    if found is not None:
        raise UserError(
            f"{directory}: {found}: smolt computes LoRA on linear layers inside the network's blocks and nothing else "
            f"in place; `smolt merge {directory} --out DIR` makes one model of this adapter and its base"
        )


def _uncomputed(config: dict[str, Any], names: list[str]) -> str | None:
    """The first thing an adapter holds that is not computed in place."""
    is_score = config.get("task_type") == "SEQ_CLS"
    if config.get("init_lora_weights", True) not in BEGINNINGS:
        return f"init_lora_weights: {config['init_lora_weights']}: rewrites the base's weights"
    heads = {"score", "classifier"} if is_score else set()
    for field, value in config.items():
        is_head = field == "modules_to_save" and isinstance(value, list) and heads.issuperset(value)
        if value and field not in KNOWN and not is_head:
            return f"{field}: {value!r:.80}"
    for name in names:
        lora = re.search(r"\.lora_(A|B|magnitude_vector)\b", name)
        if not (lora and inside_block(name)) and not (is_score and name == HEAD):
            return name
    return None

"""What a model path means: a hub name, a model directory, an adapter directory, or a run that holds one.

Everything here is read before any weight is: a directory that would run code or leave itself is refused.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from smolt.data.inputs import find_model
from smolt.errors import UserError
from smolt.models.forward.quiet import read_by_library
from smolt.models.gguf.reader import imported
from smolt.runs import inventory, jsontext
from smolt.runs.identity import is_run, run_of

ADAPTER_WEIGHTS = "adapter_model.safetensors"
DECISIONS = "decision.json"
"""Settings of a model that decides; they may name a folder with an adapter (see rendering/decision_prompts)."""

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

MOST = {
    "hidden_size": 2**16,
    "n_embd": 2**16,
    "d_model": 2**16,
    "intermediate_size": 2**20,
    "num_hidden_layers": 1000,
    "n_layer": 1000,
    "num_layers": 1000,
    "num_attention_heads": 2**12,
    "num_key_value_heads": 2**12,
    "n_head": 2**12,
    "num_heads": 2**12,
    "head_dim": 2**14,
    "vocab_size": 2**22,
    "max_position_embeddings": 2**28,
    "n_positions": 2**28,
}
"""Sizes in a configuration, and what no small language model exceeds."""

WITHOUT_MODEL = {"judge": "labels", "sample": "answers", "eval": "a measurement", "suite": "measurements"}
"""Runs that train nothing, by their stage, and what they hold."""

LARGEST = 1e12  # of a rotary base
MOST_RANK = 2**14
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
    directory = find_model(path)
    if directory is None:
        return Located(path)
    if not directory.is_dir():
        return Located(str(imported(directory.resolve())))
    directory = _of_a_run(directory, path)
    for entry in directory.iterdir():
        _check_file(directory, entry)
    if (directory / "adapter_config.json").is_file():
        return _adapter(directory, to_merge)
    if not (directory / "config.json").is_file():
        raise UserError(f"model.path: {path}: holds neither config.json nor adapter_config.json, so it is not a model")
    check_directory(directory)
    adapter = _adapter_below(directory)
    if adapter is not None:
        _check_adapter(adapter, jsontext.read_object(adapter / "adapter_config.json"), to_merge)
    return Located(str(directory.resolve()), adapter)


def _of_a_run(directory: Path, path: str) -> Path:
    """A run's model in the place of the run; it is as it was written.

    Raises:
        UserError: the run has none.
        StorageError: its files are damaged.
    """
    if is_run(directory):
        if (directory / inventory.RESULT).is_file():
            inventory.require(directory, f"{inventory.MODEL}/")
        directory /= inventory.MODEL
        if not directory.is_dir():
            raise UserError(f"model.path: {path}: {_instead(directory.parent, path)}")
    if directory.name == inventory.MODEL and is_run(directory.parent):
        inventory.require(directory.parent, f"{inventory.MODEL}/")
    return directory


def _instead(directory: Path, path: str) -> str:
    """Why a run has no model, in words."""
    manifest, result = run_of(directory)
    stage = str(manifest.get("stage"))
    if not result or stage not in WITHOUT_MODEL:
        return "this run has no model yet; finish it by running its command again"
    return f"{path} is a finished {stage} run: it holds {WITHOUT_MODEL[stage]}, no model"


def _adapter_below(directory: Path) -> Path | None:
    """The folder of the adapter that decision.json names, without which the model is another one; None without one.

    Raises:
        UserError: it is not there, or lies outside.
    """
    name = jsontext.read_object(directory / DECISIONS, or_empty=True).get("adapter")
    if name is None:
        return None
    folder = directory.resolve() / str(name)
    inside = folder.resolve().is_relative_to(directory.resolve()) and folder.resolve() != directory.resolve()
    if not inside or not (folder / "adapter_config.json").is_file():
        raise UserError(f"{directory / DECISIONS}: adapter: {str(name)[:60]!r} is no folder here that holds an adapter")
    for entry in folder.iterdir():
        _check_file(folder, entry)
    check_directory(folder)
    return folder


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


def check_directory(directory: Path) -> None:
    """Refuse a model directory that would run code, read outside itself, or ask for what no model has.

    Raises:
        UserError: remote code, pickled weights, a file outside the directory or that is none, impossible numbers.
    """
    if (directory / "config.json").is_file():
        _check_numbers(jsontext.read_object(directory / "config.json"), f"{directory / 'config.json'}: ")
    for name in ("config.json", "tokenizer_config.json"):
        if (directory / name).is_file() and "auto_map" in jsontext.read_object(directory / name):
            raise UserError(f"{directory / name}: auto_map: the model wants to run its own code; smolt never does")
    weights = [file.name for file in directory.iterdir() if file.suffix in UNSAFE_SUFFIXES]
    if weights and not any(directory.glob("*.safetensors")):
        raise UserError(
            f"{directory}: its weights are only in {weights[0]}, which may carry code; convert to safetensors"
        )
    for index in directory.glob("*.index.json"):
        shards = jsontext.read_object(index).get("weight_map", {})
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise UserError(f"{index}: weight_map: must name the file of each weight, a text")
        for shard in set(shards.values()):
            if Path(shard).name != shard:
                raise UserError(f"{index}: weight_map: {shard!r} lies outside the directory")


def _check_file(directory: Path, entry: Path) -> None:
    """An entry is a folder, or a plain file that lies in the directory; a hub cache keeps its files beside it."""
    real = entry.resolve()
    if not entry.exists():
        raise UserError(f"{entry}: is a link to {real}, which is not there")
    if real.is_dir():
        return
    if not real.is_file():
        raise UserError(f"{entry}: is a pipe, a socket or a device, not a file")
    homes = [directory.resolve()]
    if directory.resolve().parent.name == "snapshots":
        homes.append(directory.resolve().parents[1] / "blobs")
    if not any(real.is_relative_to(home) for home in homes):
        raise UserError(f"{entry}: leads to {real}, outside the model's directory; copy the file there")


def _check_numbers(value: Any, place: str) -> None:
    """No number of a configuration is impossible; libraries would build the network first.

    Raises:
        UserError: names the field.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_numbers(inner, f"{place}{name}: ")
            most = MOST.get(name)
            is_number = isinstance(inner, int | float)
            if most is not None and is_number and not (type(inner) is int and 1 <= inner <= most):
                raise UserError(f"{place}{name}: must be a whole number from 1 to {most}, not {inner!r:.40}")
            if re.search(r"rope_theta|_eps(ilon)?$", name) and is_number and not 0 < inner <= LARGEST:
                raise UserError(f"{place}{name}: must be a number above 0, not {inner!r:.40}")
    elif isinstance(value, list):
        for inner in value:
            _check_numbers(inner, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{place}{value} is not a finite number")


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
    _check_scale(directory, config)
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


def _check_scale(directory: Path, config: dict[str, Any]) -> None:
    """Ranks, alphas and dropout are numbers that a LoRA can have.

    Raises:
        UserError: names the field.
    """
    place = directory / "adapter_config.json"

    def patterned(name: str) -> dict[str, Any]:
        found = config.get(name) or {}
        if not isinstance(found, dict):
            raise UserError(f"{place}: {name}: must name a number for each pattern")
        return found

    for name, rank in [("r", config.get("r", 8)), *patterned("rank_pattern").items()]:
        if type(rank) is not int or not 1 <= rank <= MOST_RANK:
            raise UserError(f"{place}: {name}: a rank must be a whole number from 1 to {MOST_RANK}, not {rank!r:.40}")
    for name, alpha in [("lora_alpha", config.get("lora_alpha", 8)), *patterned("alpha_pattern").items()]:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= LARGEST:
            raise UserError(f"{place}: {name}: must be a finite number, not {alpha!r:.40}")
    dropout = config.get("lora_dropout") or 0.0
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise UserError(f"{place}: lora_dropout: must be a number from 0 to below 1, not {dropout!r:.40}")


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

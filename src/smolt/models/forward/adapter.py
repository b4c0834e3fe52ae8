"""An adapter on disk, and on a network: every weight of it goes in, and every weight it should have is there."""

import re
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smolt.config import LoRA
from smolt.config.complaints import nearest
from smolt.errors import UserError
from smolt.models.forward.quiet import hushed, read_by_library
from smolt.models.locating import ADAPTER_WEIGHTS, inside_block

WRAPPED = ".modules_to_save.weight"
LINEAR = (nn.Linear, Conv1D, LoraLayer)
"""What an adapter goes on; the last one carries an adapter already."""

OF_AN_ADAPTER = re.compile(r"\.(base_layer|lora_\w+)(\.|$)")


def require_targets(network: nn.Module, lora: LoRA | None) -> None:
    """See that each target of a recipe's adapters names layers that can have one; the library passes over some.

    Raises:
        UserError: a target names none; the message has the linear layers there are.
    """
    if lora is None or isinstance(lora.targets, str):
        return
    modules = [(name, part) for name, part in network.named_modules() if not OF_AN_ADAPTER.search(name)]
    inside = [name for name, part in modules if isinstance(part, LINEAR) and inside_block(name)]
    there = list(dict.fromkeys(name.rpartition(".")[2] for name in inside))
    for target in lora.targets:
        named = [part for name, part in modules if name == target or name.endswith(f".{target}")]
        if any(isinstance(part, (*LINEAR, nn.Embedding)) for part in named):
            continue
        close = nearest(target, there)
        wrong = f"is no linear layer but a {type(named[0]).__name__}" if named else "names no layer of this model"
        hint = f' did you mean "{close}"?' if close else ""
        raise UserError(f"lora.targets: {target}: {wrong};{hint} the linear layers in its blocks: {', '.join(there)}")


def fresh_config(lora: LoRA, task: str) -> LoraConfig:
    """What peft is told of an adapter that a recipe asks for; `task` is peft's name of what the network is for."""
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        task_type=task,
        use_rslora=lora.scaling == "root",
        use_dora=lora.dora,
    )


def read_adapter(directory: Path) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Configuration and weights of an adapter directory.

    Of embeddings that were resized peft writes one matrix under two names; the one it does not read back is left out.

    Raises:
        UserError: they cannot be read.
    """
    with read_by_library(str(directory)):
        config, weights = LoraConfig.from_pretrained(str(directory)), load_file(directory / ADAPTER_WEIGHTS)
    for name in [name for name in weights if name.endswith(WRAPPED)]:
        twin = weights.get(name.removesuffix(WRAPPED) + ".weight")
        if twin is not None and torch.equal(twin, weights[name]):
            del weights[name]
    return config, weights


def take_off(peft: PeftModel, name: str) -> None:
    """Take an adapter off a network that stays; switch to another one, or to none, before the next forward."""
    with hushed():
        peft.delete_adapter(name)


def fill(peft: PeftModel, name: str, weights: dict[str, Tensor], directory: Path) -> None:
    """Give an adapter of the network its weights.

    Args:
        peft: carries the adapter.
        name: its name.
        weights: as the directory has them.
        directory: where they are from, for messages.

    Raises:
        UserError: a weight is missing, unexpected, or of another shape.
    """
    try:
        result = set_peft_model_state_dict(peft, weights, adapter_name=name)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise UserError(f"{directory}: does not fit the base model ({reason})") from error
    held = peft.state_dict()
    given = {held[key].data_ptr() for key in held.keys() - set(result.missing_keys)}  # tied ones stand there once
    missing = [key for key in result.missing_keys if name in key.split(".") and held[key].data_ptr() not in given]
    wrong = [*missing, *result.unexpected_keys, *([] if weights else ["no weights"])]
    if wrong:
        raise UserError(f"{directory}: does not fit the base model ({wrong[0]})")

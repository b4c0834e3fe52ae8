"""Models on disk, in the ecosystem's formats: Hugging Face directories and peft adapters, read back exactly."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig

from smolt.config import LoRA
from smolt.errors import UserError
from smolt.models.forward.precision import Precision
from smolt.models.forward.trunk import Trunk, load_trunk
from smolt.models.locating import ADAPTER_WEIGHTS, HEAD, Located, locate, read_by_library
from smolt.models.rendering import Renderer
from smolt.models.roles import REWARD, Policy, Scorer, attach, score_head
from smolt.runs import jsontext

NOTE = "smolt_reward.json"  # what transformers' format has no place for


def save_policy(policy: Policy, renderer: Renderer, directory: Path) -> None:
    """A model directory, or with LoRA an adapter directory that names its base; tokenizer and template with it."""
    if policy.adapter is None:
        policy.trunk.network.save_pretrained(directory)
    else:
        save_adapter(policy.trunk, policy.adapter, directory, {})
    renderer.save(directory)


def save_adapter(trunk: Trunk, adapter: str, directory: Path, more: dict[str, torch.Tensor]) -> None:
    """One adapter as peft writes it, with further tensors (a score head) beside its own."""
    peft = trunk.peft
    if peft is None:
        raise RuntimeError("this trunk has no adapters")
    weights = get_peft_model_state_dict(peft, adapter_name=adapter)
    weights = {key: value.detach().cpu().contiguous() for key, value in {**weights, **more}.items()}
    save_file(weights, directory / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config: Any = peft.peft_config[adapter]
    fields = {**config.to_dict(), "inference_mode": True, "base_model_name_or_path": trunk.base}
    if more:
        fields |= {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
    jsontext.write(directory / "adapter_config.json", jsontext.plain(dict(sorted(fields.items()))))


def is_reward_model(located: Located) -> bool:
    """Whether a directory, adapter or hub name is a sequence classifier rather than a language model.

    Raises:
        UserError: its configuration cannot be read.
    """
    if located.adapter is not None:
        return jsontext.read_object(located.adapter / "adapter_config.json").get("task_type") == "SEQ_CLS"
    with read_by_library(f"model.path: {located.base}"):
        config = AutoConfig.from_pretrained(located.base, trust_remote_code=False)
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or [])


def load_policy(path: str, precision: Precision) -> Policy:
    """A policy to sample from, not to train: a hub name, model directory, adapter or run.

    Raises:
        UserError: there is none, or it is a reward model.
    """
    located = locate(path)
    if is_reward_model(located):
        raise UserError(f"model.path: {path}: is a reward model; it scores answers and writes none")
    trunk = load_trunk(located, precision, trained=False)
    if located.adapter is None:
        return Policy(trunk, None)
    trunk.load_adapter("policy", located.adapter)
    return Policy(trunk, "policy")


def open_scorer(located: Located, precision: Precision, lora: LoRA | None, seed: int) -> Scorer:
    """A reward model to train: the network as a classifier with one label, and a fresh head."""
    trunk = load_trunk(located, precision, trained=lora is None, classifier=True)
    head = score_head(trunk.width, seed, precision.device)
    if lora is None:
        if located.adapter is not None:
            raise UserError(
                f"lora: {located.adapter} is an adapter; give a lora block to continue it, or merge it first"
            )
        trunk.train_all()
    else:
        attach(trunk, REWARD, located, lora, seed)
        trunk.train_adapter(REWARD)
    for parameter in _classifier_head(trunk).parameters():
        parameter.requires_grad_(False)
    return Scorer(trunk, REWARD if lora is not None else None, head)


def save_scorer(scorer: Scorer, renderer: Renderer, directory: Path, note: dict[str, Any]) -> None:
    """AutoModelForSequenceClassification's format (with LoRA: peft's on top of it), with equal scores before the shift.

    transformers reads the score at the last token that is not the pad token, so a pad equal to the stop token would
    make it read one token early: the directory names another one. `note` holds `shift`, the mean score of answers it
    was trained on, and `refused`, why it should not be trained on (or None).
    """
    network = scorer.trunk.network
    with torch.no_grad():
        _classifier_head(scorer.trunk).weight.copy_(scorer.head.weight)
    if scorer.adapter is None:
        network.config.pad_token_id = _pad_other_than(renderer)
        network.save_pretrained(directory)
    else:
        save_adapter(scorer.trunk, scorer.adapter, directory, {HEAD: scorer.head.weight})
    renderer.save(directory)
    jsontext.write(directory / NOTE, note, indent=None)


def load_scorer(path: str, precision: Precision) -> tuple[Scorer, dict[str, Any]]:
    """A reward model of ours or any AutoModelForSequenceClassification with one label, and its note (see save_scorer).

    Raises:
        UserError: it has no score head.
    """
    located = locate(path)
    trunk = load_trunk(located, precision, trained=False, classifier=True)
    head = score_head(trunk.width, None, precision.device)
    adapter = None
    if located.adapter is not None:
        adapter, weight = REWARD, trunk.load_adapter(REWARD, located.adapter)
        if weight is None:
            raise UserError(f"{located.adapter}: has no score head, so it is not a reward model")
    else:
        if not any(name.endswith("ForSequenceClassification") for name in trunk.network.config.architectures or []):
            raise UserError(f"{located.base}: is a language model without a score head, so it is not a reward model")
        weight = _classifier_head(trunk).weight
    with torch.no_grad():
        head.weight.copy_(weight)
    head.requires_grad_(False)
    note = (located.adapter or Path(located.base)) / NOTE
    return Scorer(trunk, adapter, head), jsontext.read_object(note, or_empty=True)


def _classifier_head(trunk: Trunk) -> nn.Linear:
    module: nn.Linear = trunk.network.get_submodule("score")
    return module


def _pad_other_than(renderer: Renderer) -> int:
    own = renderer.tokenizer.pad_token_id
    if own is not None and own not in renderer.stop_ids:
        return int(own)
    return next(index for index in range(len(renderer.tokenizer)) if index not in renderer.stop_ids)


def weights_hash(located: Located) -> str:
    """SHA-256 over the files that decide what the model computes; of a hub name, the name."""
    digest = hashlib.sha256()
    folders = [Path(located.base)] + ([located.adapter] if located.adapter else [])
    for folder in folders:
        if not folder.is_dir():
            digest.update(str(folder).encode())
            continue
        for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json")]):
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()

"""Models on disk, in the ecosystem's formats: Hugging Face directories and peft adapters, read back exactly."""

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig
from transformers.utils.hub import cached_file

from smolt.config import LoRA
from smolt.errors import UserError
from smolt.models.forward.precision import Precision
from smolt.models.forward.quiet import hushed, read_by_library
from smolt.models.forward.trunk import Trunk, load_trunk
from smolt.models.locating import ADAPTER_WEIGHTS, HEAD, Located, locate
from smolt.models.rendering import Renderer
from smolt.models.roles import REWARD, Policy, Scorer, attach, score_head
from smolt.runs import jsontext, storage

if TYPE_CHECKING:
    from transformers.decision import DecisionConfig

ADAPTER = "adapter"  # folder of a decider's
NOTE = "smolt_reward.json"  # what transformers' format has no place for


def save_policy(policy: Policy, renderer: Renderer, directory: Path) -> None:
    """A model directory, or with LoRA an adapter directory that names its base; tokenizer and template with it."""
    if policy.adapter is None:
        with hushed():
            policy.trunk.network.save_pretrained(directory)
        _spell_both_ways(directory)
    else:
        save_adapter(policy.trunk, policy.adapter, directory, {})
    renderer.save(directory)


def _spell_both_ways(directory: Path) -> None:
    """Write dtype and rotary settings as transformers 4 and what is built on it read them, beside the new spelling.

    A reader that does not know `rope_parameters` would take its own default base, without a word. A spelling that
    would change what transformers itself reads is left out.
    """
    file = directory / "config.json"
    fields = jsontext.read_object(file)
    rope = fields.get("rope_parameters") or {}
    main, local = rope.get("full_attention", rope), rope.get("sliding_attention", {})
    older = {
        "torch_dtype": fields.get("dtype"),
        "rope_theta": main.get("rope_theta"),
        "partial_rotary_factor": main.get("partial_rotary_factor"),
    }
    if main.get("rope_type", "default") != "default":
        older["rope_scaling"] = {name: value for name, value in main.items() if name not in older}
    if fields.get("model_type") == "gpt_neox":
        older |= {"rotary_emb_base": older["rope_theta"], "rotary_pct": older["partial_rotary_factor"]}
    elif str(fields.get("model_type")).startswith("gemma3"):
        older["rope_local_base_freq"] = local.get("rope_theta")
    read = AutoConfig.from_pretrained(directory, trust_remote_code=False).to_dict()
    for name, value in older.items():
        if value is None or name in fields:
            continue
        jsontext.write(file, {**fields, name: value})
        again = AutoConfig.from_pretrained(directory, trust_remote_code=False).to_dict()
        if all(again.get(key) == held for key, held in read.items()):
            fields[name] = value
    jsontext.write(file, fields)


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


def save_decider(policy: Policy, renderer: Renderer, settings: "DecisionConfig", directory: Path) -> None:
    """A directory that `pipeline("decision")` loads: with LoRA the base's files, and the adapter in a folder beside.

    transformers looks for decision.json beside the base's weights, not beside an adapter's.
    """
    if policy.adapter is None:
        save_policy(policy, renderer, directory)
    else:
        for file in _model_files(policy.trunk.base):
            shutil.copyfile(file, directory / file.name)
        (directory / ADAPTER).mkdir()
        save_adapter(policy.trunk, policy.adapter, directory / ADAPTER, {})
        renderer.save(directory)
    replace(settings, adapter=None if policy.adapter is None else ADAPTER).save_pretrained(directory)


def _model_files(base: str) -> list[Path]:
    """Configuration and weights of a model directory, or of a hub name's copy here."""
    found = None if Path(base).is_dir() else cached_file(base, "config.json")
    folder = Path(base) if found is None else Path(found).parent
    names = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")
    return [file for name in names for file in sorted(folder.glob(name))]


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
    labels = [] if located.adapter is not None or not is_reward_model(located) else _labels(located)
    if len(labels) > 1:
        raise UserError(
            f"{located.base}: is a classifier with the labels {', '.join(labels[:10])}; start a reward model "
            "from a language model, or from a classifier with one label"
        )
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
        with hushed():
            network.save_pretrained(directory)
        _spell_both_ways(directory)
    else:
        save_adapter(scorer.trunk, scorer.adapter, directory, {HEAD: scorer.head.weight})
    renderer.save(directory)
    jsontext.write(directory / NOTE, note, indent=None)


def load_scorer(path: str, precision: Precision, good: str | None = None) -> tuple[Scorer, dict[str, Any]]:
    """A reward model of ours or any AutoModelForSequenceClassification, and its note (see save_scorer).

    Args:
        path: where it is.
        precision: where and how precisely.
        good: of a classifier with two labels the one that is wanted: the score is its logit less the other's, which is
            the log-odds of that label.

    Raises:
        UserError: it has no score head, or one that gives no single number.
    """
    located = locate(path)
    labels = _labels(located)
    if good is not None or len(labels) > 1:
        return _two_labels(located, precision, labels, good), {}
    trunk = load_trunk(located, precision, trained=False, classifier=True)
    head = score_head(trunk.width, None, precision.device)
    adapter = None
    if located.adapter is not None:
        adapter, weight = REWARD, trunk.load_adapter(REWARD, located.adapter)
        if weight is None:
            raise UserError(f"{located.adapter}: has no score head, so it is not a reward model")
    else:
        weight = _classifier_head(trunk).weight
    with torch.no_grad():
        head.weight.copy_(weight)
    head.requires_grad_(False)
    return Scorer(trunk, adapter, head), read_note(located)


def read_note(located: Located) -> dict[str, Any]:
    """What a reward model of ours says of itself (see save_scorer); empty for another one."""
    return jsontext.read_object((located.adapter or Path(located.base)) / NOTE, or_empty=True)


def _labels(located: Located) -> list[str]:
    """The labels of a classifier, one for each row of its head; one for an adapter with a score head.

    Raises:
        UserError: it is a language model.
    """
    if located.adapter is not None:
        return ["score"]
    if not is_reward_model(located):
        raise UserError(f"{located.base}: is a language model without a score head, so it is not a reward model")
    with read_by_library(f"model.path: {located.base}"):
        config = AutoConfig.from_pretrained(located.base, trust_remote_code=False)
    return [str(config.id2label[number]) for number in range(config.num_labels)]


def _two_labels(located: Located, precision: Precision, labels: list[str], good: str | None) -> Scorer:
    """A classifier with two labels, read as the log-odds of one of them."""
    shown = ", ".join(labels[:10]) + (" ..." if len(labels) > 10 else "")
    if len(labels) != 2:
        raise UserError(f"{located.base}: its score head has {len(labels)} labels ({shown}); a reward is one number")
    if good not in labels:
        raise UserError(
            f"{located.base}: its score head has 2 labels ({shown}), and a reward is one number: say which label is "
            f"good with options: {{label: {labels[1]}}}" + ("" if good is None else f"; there is no label {good!r}")
        )
    trunk = load_trunk(located, precision, trained=False, classifier=True, labels=2)
    both = _classifier_head(trunk).weight
    head = score_head(trunk.width, None, precision.device)
    with torch.no_grad():
        head.weight.copy_((both[labels.index(good)] - both[1 - labels.index(good)])[None])
    return Scorer(trunk, None, head.requires_grad_(False))


def _classifier_head(trunk: Trunk) -> nn.Linear:
    head = getattr(trunk.network, "score", None)
    if not isinstance(head, nn.Linear):
        raise UserError(f"{trunk.base}: {type(trunk.network).__name__} has no layer `score` over a causal network")
    return head


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


def other_inputs(recipe: Any, name: str = "") -> dict[str, str]:
    """SHA-256 of what a recipe reads besides its model and data, by field: dev data, rewards, a critic's start.

    Hub names, directories that hold no model and what is missing have none; what opens them says more.
    """
    if isinstance(recipe, dict):
        parts = [(f"{name}.{key}".strip("."), value) for key, value in recipe.items() if key not in ("model", "data")]
    elif isinstance(recipe, list):
        parts = [(f"{name}[{number}]", value) for number, value in enumerate(recipe)]
    elif isinstance(recipe, str) and re.search(r"\.path(\[\d+\])?$", name):
        digest = _digest(recipe)
        return {} if digest is None else {name: digest}
    else:
        return {}
    return {key: digest for at, value in parts for key, digest in other_inputs(value, at).items()}


def _digest(text: str) -> str | None:
    for path in (Path(text), Path(text.rpartition(":")[0])):  # the second is the file of "file.py:function"
        if path.is_file():
            return storage.sha256_of(path)
    directory = any((Path(text) / name).exists() for name in ("config.json", "adapter_config.json", "model"))
    return weights_hash(locate(text)) if directory else None

"""From an adapter, or a run, to a standalone model directory that any tool of the ecosystem loads.

The base is read once, in fp32, and peft merges into it whatever a LoRA adapter may hold (whole modules and trained
tokens too). What comes out is compared with the adapter model before it is put in its place: a merge that does not
agree is refused.
"""

import logging
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedModel,
)

from smolt.errors import SelfCheckError, UserError
from smolt.models.forward.adapter import fill, read_adapter
from smolt.models.forward.precision import DTYPES, Precision
from smolt.models.forward.probing import probe
from smolt.models.forward.quiet import hush, hushed, read_by_library, read_network
from smolt.models.forward.trunk import AGREEMENT, Trunk
from smolt.models.ground import require_rows
from smolt.models.locating import Located, locate
from smolt.models.publishing.model_card import model_card
from smolt.models.rendering import Renderer, load_renderer
from smolt.models.rendering.decision_settings import carry_settings
from smolt.models.roles import Policy, Scorer
from smolt.models.saving import NOTE, is_reward_model, save_policy, save_scorer, weights_hash
from smolt.runs import jsontext, storage
from smolt.runs.identity import run_of

LOG = logging.getLogger(__name__)
PROOF = "smolt_merge.json"
"""File of a merged directory: what it was made from, how well it agrees, and the hash of its weights."""

MERGED = "merged"
EMBEDDINGS = r"(embed_tokens|lm_head|wte|embed_in|embed_out)\.weight$"
STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
EXACT = Precision(torch.device("cpu"), torch.float32)


def merge(path: str, out: Path, dtype: str = "auto", fresh: bool = False) -> dict[str, Any]:
    """Write a standalone model directory: weights, tokenizer, chat template, model card.

    Args:
        path: an adapter directory or a run; a directory with full weights is written anew as it is.
        out: the directory to write; whole or absent, whatever happens.
        dtype: fp32, bf16 or fp16; auto is what the base's weights are stored in.
        fresh: set an earlier merge at `out` aside, as OUT.old-1, OUT.old-2, ...

    Returns:
        The facts of PROOF, with `out` and `status`: "complete", or "already complete" where the same merge lies there.

    Raises:
        UserError: `path` holds no model or a damaged one, or `out` holds something else.
        SelfCheckError: the merged model does not agree with the adapter model; nothing is left behind.
        StorageError: the disk is full or failing; nothing is left behind.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise UserError(f"dtype: {dtype!r} is unknown; choose auto, {', '.join(DTYPES)}")
    located = locate(path, to_merge=True)
    out = Path(os.path.expanduser(out)).resolve()
    asked = {"source": weights_hash(located), "asked_dtype": dtype}
    found = _earlier(out, located, asked, fresh)
    if found is not None:
        return {**found, "out": str(out), "status": "already complete"}
    origin = _merged(path, located, is_reward_model(located))
    chosen = DTYPES.get(dtype, origin.stored)
    facts = {
        **asked,
        "made_from": path,
        "base": located.base,
        "kind": "policy" if origin.note is None else "reward",
        "matrices": origin.matrices,
        "dtype": next((name for name, kind in DTYPES.items() if kind == chosen), str(chosen)),
        "difference": _require_agreement(origin),
    }
    facts = _write(out, origin.network.to(chosen), origin, facts)
    return {**facts, "out": str(out), "status": "complete"}


def merged_in_memory(path: str) -> tuple[PreTrainedModel, Renderer]:
    """A language model as `merge` would write it, in fp32 on the CPU, with its renderer; nothing is written.

    Raises:
        UserError: `path` holds no language model or a damaged one.
        SelfCheckError: the merged model does not agree with the adapter model.
    """
    located = locate(path, to_merge=True)
    origin = _merged(path, located, is_reward=False)
    if located.adapter is not None:
        _require_agreement(origin)
    return origin.network, origin.renderer


def _earlier(out: Path, located: Located, asked: dict[str, str], fresh: bool) -> dict[str, Any] | None:
    """The facts of the same merge at `out`; None where nothing is there or what is there may be set aside."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, not a directory; choose another --out")
    if not out.exists() or not any(out.iterdir()):
        return None
    if not (out / PROOF).is_file():
        raise UserError(f"{out}: is not empty and no earlier merge; nothing was written: choose another --out")
    if out in {Path(located.base).resolve(), located.adapter and located.adapter.resolve()}:
        raise UserError(f"{out}: is what the merge is made from; choose another --out")
    if fresh:
        return None
    facts = jsontext.read_object(out / PROOF)
    same = all(facts.get(name) == value for name, value in asked.items())
    if same and facts.get("weights") == weights_hash(Located(str(out))):
        return facts
    raise UserError(f"{out}: holds another merge (of {facts.get('made_from')}); --fresh sets it aside")


# --- the merged network -----------------------------------------------------------------------------------------------


@dataclass
class _Origin:
    """The merged model, and what it was made from.

    Attributes:
        path: as the user gave it.
        renderer: tokenizer and template.
        network: the bare network with the adapter merged into it, fp32.
        stored: dtype of most of the base's weights.
        rows: probe tokens, one sequence each, int64 [T].
        expected: what the adapter model computes on each row: logits, fp32 [T, V]; a reward model its score, [1].
        matrices: that the adapter changed; 0 where the weights are the model's own.
        note: of a reward model (see save_scorer); None for a language model.
    """

    path: str
    renderer: Renderer
    network: PreTrainedModel
    stored: torch.dtype
    rows: list[Tensor]
    expected: list[Tensor]
    matrices: int
    note: dict[str, Any] | None


def _merged(path: str, located: Located, is_reward: bool) -> _Origin:
    """Merge in fp32, in memory.

    Raises:
        UserError: the adapter does not fit its base, or peft cannot merge its kind.
    """
    hush()
    renderer, network = load_renderer(located.tokenizer), _load(located.base, is_reward)
    rows = probe(network.config.vocab_size).rows
    stored, matrices = _stored_dtype(located.base, network), 0
    if is_reward:
        network.config.pad_token_id = None  # one row at a time needs none; save_scorer names one
    if located.adapter is None:
        expected = _outputs(network, rows)
    else:
        peft = _adapted(network, located.adapter)
        matrices = sum(isinstance(module, LoraLayer) for module in network.modules())
        LOG.info("computing the logits of the adapter model")
        expected = _outputs(network, rows)
        LOG.info("merging %s into its base", located.adapter)
        _untie(network)
        try:
            with hushed():
                network = peft.merge_and_unload()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{located.adapter}: cannot be merged: {error}") from error
    require_rows(renderer, network.config.vocab_size, path)
    note = jsontext.read_object((located.adapter or Path(located.base)) / NOTE, or_empty=True) if is_reward else None
    if note is None and network.can_generate():
        network.generation_config = GenerationConfig(
            bos_token_id=renderer.tokenizer.bos_token_id,
            eos_token_id=sorted(renderer.stop_ids),
            pad_token_id=renderer.tokenizer.pad_token_id,
        )
    return _Origin(path, renderer, network, stored, rows, expected, matrices, note)


def _adapted(network: PreTrainedModel, directory: Path) -> PeftModel:
    """The network under an adapter, with as many embedding rows as one that brings embeddings of its own has."""
    config, weights = read_adapter(directory)
    held = [value for name, value in weights.items() if re.search(EMBEDDINGS, name)]
    if held and len(held[0]) != network.config.vocab_size:
        network.resize_token_embeddings(len(held[0]), mean_resizing=False)
    with hushed(), read_by_library(str(directory)):
        peft = PeftModel(network, config, MERGED)
        fill(peft, MERGED, weights, directory)
    return peft.eval()


def _untie(network: PreTrainedModel) -> None:
    """Give embeddings that carry LoRA a matrix of their own: merged into a tied one, the other would change too."""
    for module in (network.get_input_embeddings(), network.get_output_embeddings()):
        if isinstance(module, LoraLayer):
            base = module.get_base_layer()
            base.weight = nn.Parameter(base.weight.detach().clone())


def _stored_dtype(directory: str, network: PreTrainedModel) -> torch.dtype:
    """The dtype of most weights in their files, which config.json need not name; of a hub name, what that says."""
    count: Counter[str] = Counter()
    for file in Path(directory).glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118  (no mapping)
                part = weights.get_slice(name)
                count[part.get_dtype()] += math.prod(part.get_shape())
    written = STORED.get(count.most_common(1)[0][0]) if count else getattr(network.config, "dtype", None)
    return written or torch.float32


def _outputs(network: PreTrainedModel, rows: list[Tensor]) -> list[Tensor]:
    """The network's logits on each row: [T, V], or a classifier's [1]."""
    with torch.no_grad():
        return [network(input_ids=row[None], use_cache=False).logits[0] for row in rows]


def _load(directory: str, is_reward: bool) -> PreTrainedModel:
    """A network in fp32 for the comparison, with eager attention."""
    kind, extra = (AutoModelForSequenceClassification, {"num_labels": 1}) if is_reward else (AutoModelForCausalLM, {})
    settings = {"dtype": torch.float32, "attn_implementation": "eager", "use_safetensors": True, **extra}
    return read_network(kind, directory, f"model.path: {directory}", **settings).eval()


def _difference(network: PreTrainedModel, origin: _Origin) -> float:
    """Largest difference of a logit from the model it was made from; not a number where either has none."""
    pairs = zip(_outputs(network, origin.rows), origin.expected, strict=True)
    return float(torch.stack([(found - wanted).abs().max() for found, wanted in pairs]).max())


def _require_agreement(origin: _Origin) -> float:
    LOG.info("comparing the merged model with the adapter model")
    difference = _difference(origin.network, origin)
    if not difference <= AGREEMENT:
        raise SelfCheckError(
            f"{origin.path}: the merged model differs from the adapter model by {difference:.1e} in a logit (allowed "
            f"{AGREEMENT:g}, both in fp32); nothing was written"
        )
    return difference


# --- the directory ----------------------------------------------------------------------------------------------------


def _write(out: Path, network: PreTrainedModel, origin: _Origin, facts: dict[str, Any]) -> dict[str, Any]:
    """Fill a directory beside `out`, check what was written, put it in its place."""
    with storage.whole_directory(out) as staging:
        LOG.info("writing the merged model")
        _save(network, origin, staging)
        facts = {**facts, "difference_stored": _read_back(staging, network, origin)}
        facts["weights"] = weights_hash(Located(str(staging)))
        manifest, result = run_of(Path(origin.path).expanduser())
        (staging / "README.md").write_text(model_card(out.name, facts, manifest, result), encoding="utf-8")
        jsontext.write(staging / PROOF, facts)
    return facts


def _save(network: PreTrainedModel, origin: _Origin, directory: Path) -> None:
    trunk = Trunk(network, EXACT, origin.path)
    if origin.note is None:
        save_policy(Policy(trunk, None), origin.renderer, directory)
        carry_settings(origin.renderer, directory)
    else:
        head: nn.Linear = network.get_submodule("score")
        save_scorer(Scorer(trunk, None, head), origin.renderer, directory, origin.note)


def _read_back(directory: Path, network: PreTrainedModel, origin: _Origin) -> float:
    """Load what was written as anyone would; its difference from the adapter model, rounding included.

    Raises:
        SelfCheckError: a weight or the tokenizer is not read back as it was written.
    """
    again = _load(str(directory), origin.note is not None)
    LOG.info("comparing what was written with the adapter model")
    found, written = again.state_dict(), network.state_dict()
    wrong = [name for name in written if name not in found or not torch.equal(found[name], written[name].float())]
    if wrong or load_renderer(directory).fingerprint != origin.renderer.fingerprint:
        raise SelfCheckError(f"{wrong[0] if wrong else 'the tokenizer'} is not read back from disk as it was written")
    return _difference(again, origin)

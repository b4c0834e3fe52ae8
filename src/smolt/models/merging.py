"""From an adapter, or a run, to a standalone model directory that any tool of the ecosystem loads.

The merge is done once, in fp32, into copies of the target matrices; the frozen trunk is never written. What comes out
is compared with the adapter model before it is put in its place: a merge that does not agree is refused.
"""

import errno
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedModel,
)

from smolt.errors import SelfCheckError, UserError
from smolt.models.forward.precision import DTYPES, Precision
from smolt.models.forward.probing import probe
from smolt.models.forward.trunk import AGREEMENT, Trunk
from smolt.models.groups import Groups
from smolt.models.locating import Located, locate
from smolt.models.model_card import model_card
from smolt.models.rendering import Renderer, load_renderer
from smolt.models.roles import Policy, Scorer
from smolt.models.saving import HEAD, is_reward_model, load_policy, load_scorer, save_policy, save_scorer, weights_hash
from smolt.runs import StorageError, jsontext, storage
from smolt.runs.identity import run_of

PROOF = "smolt_merge.json"
"""File of a merged directory: what it was made from, how well it agrees, and the hash of its weights."""

WEIGHTS = "adapter_model.safetensors"
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
    located = locate(path)
    out = out.expanduser().resolve()
    asked = {"source": weights_hash(located), "asked_dtype": dtype}
    found = _earlier(out, located, asked, fresh)
    if found is not None:
        return {**found, "out": str(out), "status": "already complete"}
    _refuse_strange_keys(located)
    origin = _open_scorer(path, located) if is_reward_model(located) else _open_policy(path, located)
    network, stored = _merged_network(located, origin)
    chosen = DTYPES.get(dtype, stored)
    facts = {
        **asked,
        "made_from": path,
        "base": located.base,
        "kind": "policy" if origin.head is None else "reward",
        "matrices": len(origin.matrices),
        "dtype": next((name for name, kind in DTYPES.items() if kind == chosen), str(chosen)),
        "difference": _require_agreement(network, origin),
    }
    facts = _write(out, network.to(chosen), origin, facts)
    return {**facts, "out": str(out), "status": "complete"}


def merged_in_memory(path: str) -> tuple[PreTrainedModel, Renderer]:
    """A language model as `merge` would write it, in fp32 on the CPU, with its renderer; nothing is written.

    Raises:
        UserError: `path` holds no language model or a damaged one.
        SelfCheckError: the merged model does not agree with the adapter model.
    """
    located = locate(path)
    _refuse_strange_keys(located)
    origin = _open_policy(path, located)
    network, _ = _merged_network(located, origin)
    _require_agreement(network, origin)
    return network, origin.renderer


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


# --- the model it is made from, and the merged network ----------------------------------------------------------------


@dataclass
class _Origin:
    """The model to merge, as far as the merge needs it.

    Attributes:
        path: as the user gave it.
        renderer: tokenizer and template.
        rows: probe tokens, one sequence each, int64 [T].
        expected: what it computes on each row: logits, fp32 [T, V]; a reward model its score, [1].
        matrices: merged copies of the target matrices, fp32, by name; empty where the weights are the model's own.
        head: of a reward model, [1, h].
        note: of a reward model (see save_scorer); None for a language model.
    """

    path: str
    renderer: Renderer
    rows: list[Tensor]
    expected: list[Tensor]
    matrices: dict[str, Tensor]
    head: Tensor | None
    note: dict[str, Any] | None


def _open_policy(path: str, located: Located) -> _Origin:
    renderer = load_renderer(located.tokenizer)
    policy = load_policy(path, EXACT)
    network = policy.trunk.network
    network.set_attn_implementation("eager")
    policy.trunk.use(policy.adapter)
    rows = _rows(probe(network.config.vocab_size))
    matrices = merged_matrices(network, policy.adapter) if policy.adapter else {}
    return _Origin(path, renderer, rows, _outputs(network, rows), matrices, None, None)


def _open_scorer(path: str, located: Located) -> _Origin:
    renderer = load_renderer(located.tokenizer)
    scorer, note = load_scorer(path, EXACT)
    network = scorer.trunk.network
    found = probe(network.config.vocab_size)
    groups = replace(found, answers=tuple(torch.cat([row, torch.tensor([renderer.stop_id])]) for row in found.answers))
    with torch.no_grad():
        expected = list(scorer.verdicts(groups)[:, None])
    matrices = merged_matrices(network, scorer.adapter) if scorer.adapter else {}
    return _Origin(path, renderer, _rows(groups), expected, matrices, scorer.head.weight.detach(), note)


def _rows(groups: Groups) -> list[Tensor]:
    return [torch.cat([groups.contexts[owner], row]) for owner, row in zip(groups.owners, groups.answers, strict=True)]


def _outputs(network: PreTrainedModel, rows: list[Tensor]) -> list[Tensor]:
    """The network's logits on each row: [T, V], or a classifier's [1]."""
    with torch.no_grad():
        return [network(input_ids=row[None], use_cache=False).logits[0] for row in rows]


def merged_matrices(network: nn.Module, adapter: str) -> dict[str, Tensor]:
    """W + (alpha / rank) B A of every target matrix, in new tensors; the network is left as it is.

    Args:
        network: carries the adapter.
        adapter: its name.

    Returns:
        Name of the matrix in the bare network -> its merged copy, of the network's dtype.
    """
    merged = {}
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, LoraLayer) and adapter in {*module.lora_A, *module.lora_embedding_A}:
                merged[f"{name}.weight"] = module.get_base_layer().weight + module.get_delta_weight(adapter)
    return merged


def _refuse_strange_keys(located: Located) -> None:
    """An adapter may hold more than LoRA (trained biases, whole modules); leaving it out silently would be a lie.

    Raises:
        UserError: it does.
    """
    if located.adapter is None:
        return
    strange = [key for key in load_file(located.adapter / WEIGHTS) if ".lora_" not in key and key != HEAD]
    if strange:
        raise UserError(f"{located.adapter / WEIGHTS}: {strange[0]}: is no LoRA weight; smolt merges LoRA only")


def _merged_network(located: Located, origin: _Origin) -> tuple[PreTrainedModel, torch.dtype]:
    """The bare network with the merged matrices, in fp32, and the dtype its base is stored in."""
    network = _load(located.base, origin.head is not None, "auto")
    stored = network.dtype
    network = network.float()
    parameters = dict(network.named_parameters())
    changed = {**origin.matrices, **({"score.weight": origin.head} if origin.head is not None else {})}
    with torch.no_grad():
        for name, value in changed.items():
            parameters[name].copy_(value)
    if origin.head is not None:
        network.config.pad_token_id = None  # one row at a time needs none; save_scorer names one
    elif network.can_generate():
        tokenizer = origin.renderer.tokenizer
        network.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=sorted(origin.renderer.stop_ids),
            pad_token_id=tokenizer.pad_token_id,
        )
    return network, stored


def _load(directory: str, classifier: bool, dtype: torch.dtype | str) -> PreTrainedModel:
    if classifier:
        network: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            directory, num_labels=1, dtype=dtype, trust_remote_code=False, use_safetensors=True
        )
    else:
        network = AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, trust_remote_code=False, use_safetensors=True
        )
    return network.eval()


def _difference(network: PreTrainedModel, origin: _Origin) -> float:
    """Largest difference of a logit from the model it was made from; not a number where either has none."""
    pairs = zip(_outputs(network, origin.rows), origin.expected, strict=True)
    return float(torch.stack([(found - wanted).abs().max() for found, wanted in pairs]).max())


def _require_agreement(network: PreTrainedModel, origin: _Origin) -> float:
    difference = _difference(network, origin)
    if not difference <= AGREEMENT:
        raise SelfCheckError(
            f"{origin.path}: the merged model differs from the adapter model by {difference:.1e} in a logit (allowed "
            f"{AGREEMENT:g}); nothing was written. Likely causes: DoRA, a LoRA bias, or an adapter on tied embeddings"
        )
    return difference


# --- the directory ----------------------------------------------------------------------------------------------------


def _write(out: Path, network: PreTrainedModel, origin: _Origin, facts: dict[str, Any]) -> dict[str, Any]:
    """Fill a directory beside `out`, check what was written, put it in its place."""
    with storage.whole_directory(out) as staging:
        try:
            _save(network, origin, staging)
        except SafetensorError as error:
            raise StorageError(errno.EIO, f"writing failed ({error}); nothing is left behind", str(out)) from error
        facts = {**facts, "difference_stored": _read_back(staging, network, origin)}
        facts["weights"] = weights_hash(Located(str(staging)))
        manifest, result = run_of(Path(origin.path).expanduser())
        (staging / "README.md").write_text(model_card(out.name, facts, manifest, result), encoding="utf-8")
        jsontext.write(staging / PROOF, facts)
    return facts


def _save(network: PreTrainedModel, origin: _Origin, directory: Path) -> None:
    trunk = Trunk(network, EXACT, origin.path)
    if origin.head is None:
        save_policy(Policy(trunk, None), origin.renderer, directory)
        return
    head = nn.Linear(origin.head.shape[1], 1, bias=False)
    head.weight = nn.Parameter(origin.head)
    save_scorer(Scorer(trunk, None, head), origin.renderer, directory, origin.note or {})


def _read_back(directory: Path, network: PreTrainedModel, origin: _Origin) -> float:
    """Load what was written as anyone would; its difference from the adapter model, rounding included.

    Raises:
        SelfCheckError: a weight or the tokenizer is not read back as it was written.
    """
    again = _load(str(directory), origin.head is not None, torch.float32)
    found, written = again.state_dict(), network.state_dict()
    wrong = [name for name in written if name not in found or not torch.equal(found[name], written[name].float())]
    if wrong or load_renderer(directory).fingerprint != origin.renderer.fingerprint:
        raise SelfCheckError(f"{wrong[0] if wrong else 'the tokenizer'} is not read back from disk as it was written")
    return _difference(again, origin)

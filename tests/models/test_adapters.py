"""Whatever peft writes as a LoRA adapter is computed exactly, or refused by name at every door and merged exactly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from smolt.cli.doctor import examined
from smolt.config import LoRA, Model
from smolt.errors import UserError
from smolt.models.ground import open_ground
from smolt.models.groups import from_answers
from smolt.models.locating import locate
from smolt.models.merging import EXACT, merge
from smolt.models.roles import open_policy
from smolt.models.sampling import Drawing, sample
from smolt.models.saving import load_policy
from tests.invariance.test_packing import alone
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_models import apart

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore::FutureWarning:transformers", "ignore::UserWarning")
LINEAR = ["q_proj", "v_proj", "down_proj"]
GROUPS = from_answers([list(range(3, 12)), [5, 6]], [[[20, 21, 22], [30]], [[7, 8, 9, 10, 11, 12]]])

EXACTLY: dict[str, dict[str, Any]] = {
    "plain": {},
    "all linear layers": {"target_modules": "all-linear"},
    "an expression": {"target_modules": r".*\.(gate|o)_proj"},
    "rank-stabilised": {"use_rslora": True, "r": 6},
    "decomposed": {"use_dora": True},
    "bias": {"lora_bias": True},
    "patterns": {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"down_proj": 40}},
    "one layer": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "without a layer": {"exclude_modules": ["model.layers.0.self_attn.q_proj"]},
    "dropout": {"lora_dropout": 0.3},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "head": ({"target_modules": ["q_proj", "lm_head"]}, r"lm_head\.lora_"),
    "embeddings": ({"target_modules": ["q_proj", "embed_tokens"]}, r"embed_tokens\.lora_"),
    "both": ({"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, r"lm_head\.lora_"),
    "whole head": ({"modules_to_save": ["lm_head"]}, r"modules_to_save: \['lm_head'\]"),
    "whole embeddings": ({"modules_to_save": ["embed_tokens"]}, "modules_to_save"),
    "whole norms": ({"modules_to_save": ["norm", "input_layernorm"]}, "modules_to_save"),
    "tokens": ({"trainable_token_indices": {"embed_tokens": [5, 9]}}, "trainable_token_indices"),
    "rewriting": ({"init_lora_weights": "pissa"}, "init_lora_weights: pissa"),
}


def stirred(network: torch.nn.Module) -> None:
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, parameter in sorted(network.named_parameters()):
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))


def bare(base: Path) -> PreTrainedModel:
    network: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        base, attn_implementation="eager", trust_remote_code=False
    )
    return network.eval()


def based(tmp_path: Path, tied: bool) -> Path:
    base = tiny_model(tmp_path / "base")
    network = bare(base)
    network.config.tie_word_embeddings = tied
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    if not tied:
        network.lm_head.weight = torch.nn.Parameter(network.lm_head.weight.detach().clone().roll(1, 0))
    network.save_pretrained(base)
    return base


def adapted(tmp_path: Path, settings: dict[str, Any], tied: bool = True) -> Path:
    """An adapter that peft made and wrote."""
    base = based(tmp_path, tied)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": LINEAR, "task_type": "CAUSAL_LM", **settings})
    made = get_peft_model(bare(base), config)
    stirred(made)
    made.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    return tmp_path / "adapter"


def pefts(tmp_path: Path) -> PreTrainedModel:
    """The truth: what peft itself reads."""
    network: Any = PeftModel.from_pretrained(bare(tmp_path / "base"), tmp_path / "adapter")
    return network.eval()


def greedy(network: PreTrainedModel, context: list[int], count: int) -> Tensor:
    """By whole forwards, without a cache."""
    ids = torch.tensor([context])
    with torch.no_grad():
        for _ in range(count):
            ids = torch.cat([ids, network(input_ids=ids, use_cache=False).logits[:, -1].argmax(-1)[None]], dim=1)
    return ids[0, len(context) :]


@pytest.mark.parametrize("kind", EXACTLY)
def test_computed_exactly(kind: str, tmp_path: Path) -> None:
    """Log-probabilities to 1e-5, 12 greedy tokens, and the merged model: peft's own."""
    path = adapted(tmp_path, EXACTLY[kind])
    truth, policy = pefts(tmp_path), load_policy(str(path), EXACT)
    with torch.no_grad():
        expected = alone(truth, GROUPS)
        assert apart(policy(GROUPS)[0], expected) <= 1e-5
        assert apart(expected, alone(bare(tmp_path / "base"), GROUPS)) > 1e-2
        drawn = sample(policy, [[3, 4, 5]], 1, Drawing(12, 0.0, 1, frozenset()), (0,))
    assert drawn.answers[0].tolist() == greedy(truth, [3, 4, 5], 12).tolist()
    if kind == "bias":
        with pytest.raises(UserError, match=r"cannot be merged: .*base layer has no bias"):
            merge(str(path), tmp_path / "merged")
        return
    merge(str(path), tmp_path / "merged")
    with torch.no_grad():
        assert apart(alone(bare(tmp_path / "merged"), GROUPS), expected) <= 1e-4


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", REFUSED)
def test_refused_by_name_or_merged_exactly(kind: str, tied: bool, tmp_path: Path) -> None:
    """Every door names what it is and the way out; the merge gives peft's log-probabilities, its ties as they are."""
    settings, name = REFUSED[kind]
    path = adapted(tmp_path, settings, tied)
    doors: list[Callable[[], object]] = [
        lambda: locate(str(path)),
        lambda: load_policy(str(path), EXACT),
        lambda: open_ground(Model(path=str(path), device="cpu")),
    ]
    for door in doors:
        with pytest.raises(UserError, match=name) as refusal:
            door()
        assert f"smolt merge {path}" in str(refusal.value)
    with torch.no_grad():
        expected = alone(pefts(tmp_path), GROUPS)
        assert apart(expected, alone(bare(tmp_path / "base"), GROUPS)) > 1e-3
        merge(str(path), tmp_path / "merged")
        assert apart(alone(bare(tmp_path / "merged"), GROUPS), expected) <= 1e-4
        assert apart(load_policy(str(tmp_path / "merged"), EXACT)(GROUPS)[0], expected) <= 1e-4


def test_doctor_says_so(tmp_path: Path) -> None:
    found = examined(str(adapted(tmp_path, {"modules_to_save": ["embed_tokens"]})))
    assert found.exit_code == 2
    assert "modules_to_save" in found.words


@pytest.mark.parametrize("kind", ["IA3", "layer_replication"])
def test_refused_in_a_merge_as_well(kind: str, tmp_path: Path) -> None:
    """What is no LoRA, and what changes the base's layers: refused by its name."""
    if kind == "IA3":
        config = IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
        get_peft_model(bare(based(tmp_path, True)), config).save_pretrained(tmp_path / "adapter")
    else:
        adapted(tmp_path, {"layer_replication": [[0, 2], [1, 2]]})
    for door in (lambda path: load_policy(path, EXACT), lambda path: merge(path, tmp_path / "merged")):
        with pytest.raises(UserError, match=kind):
            door(str(tmp_path / "adapter"))


def test_embeddings_that_grew(tmp_path: Path) -> None:
    """Two chat tokens were added before training: the merged model has their rows, and computes what peft did."""
    base = based(tmp_path, True)
    network, tokenizer = bare(base), tiny_tokenizer()
    rows = network.config.vocab_size + 2
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|a|>", "<|b|>"]})
    network.resize_token_embeddings(rows)
    config = LoraConfig(r=4, target_modules=LINEAR, modules_to_save=["embed_tokens", "lm_head"], task_type="CAUSAL_LM")
    made = get_peft_model(network, config)
    stirred(made)
    made.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = alone(made.eval(), GROUPS)
        merge(str(tmp_path / "adapter"), tmp_path / "merged")
        assert apart(load_policy(str(tmp_path / "merged"), EXACT)(GROUPS)[0], expected) <= 1e-4
    assert bare(tmp_path / "merged").config.vocab_size == rows


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_recipe_cannot_ask_for_what_would_be_refused(target: str, tmp_path: Path) -> None:
    """lora.targets outside the blocks: refused before anything is trained."""
    base = tiny_model(tmp_path / "base")
    with pytest.raises(UserError, match=f"lora.targets: {target}: lies outside"):
        open_policy(locate(str(base)), EXACT, LoRA(rank=4, alpha=8.0, targets=("q_proj", target)), 0)


LAYERS = "the linear layers in its blocks: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("vproj", 'vproj: names no layer of this model; did you mean "v_proj"? ' + LAYERS),
        ("attention.wx", "attention.wx: names no layer of this model; " + LAYERS),
        ("input_layernorm", "input_layernorm: is no linear layer but a LlamaRMSNorm; " + LAYERS),
    ],
)
def test_a_target_that_names_no_linear_layer(target: str, said: str, tmp_path: Path) -> None:
    """It is refused beside one that does, where the library would adapt the other alone, and on a second adapter."""
    located = locate(str(tiny_model(tmp_path / "base")))
    wrong = LoRA(rank=4, alpha=8.0, targets=("q_proj", target))
    for targets in (wrong, wrong.model_copy(update={"targets": (target,)})):
        with pytest.raises(UserError) as error:
            open_policy(located, EXACT, targets, 0)
        assert str(error.value) == f"lora.targets: {said}"
    policy = open_policy(located, EXACT, LoRA(rank=4, alpha=8.0, targets=("q_proj",)), 0)
    with pytest.raises(UserError, match=f"lora.targets: {target}: .*{LAYERS}$"):
        policy.trunk.add_adapter("second", wrong)
    policy.trunk.add_adapter("second", LoRA(rank=4, alpha=8.0, targets=("q_proj", "self_attn.v_proj")))


@pytest.mark.parametrize(
    ("field", "value"),
    [("alora_invocation_tokens", [5]), ("target_parameters", ["weight"]), ("a_field_of_tomorrow", {"x": 1})],
)
def test_a_field_nobody_tried_is_refused(field: str, value: object, tmp_path: Path) -> None:
    """What adapter_config.json sets and smolt does not know may change the numbers."""
    path = adapted(tmp_path, {})
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(UserError, match=field):
        locate(str(path))

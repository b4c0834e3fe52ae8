"""Model directories that are not all there, lead elsewhere, or ask for what no model has: refused at once, by name."""

import copy
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from smolt.errors import UserError
from smolt.models.forward.precision import choose_precision
from smolt.models.locating import locate
from smolt.models.merging import merge
from smolt.models.rendering import Renderer, layouts
from smolt.models.saving import load_policy, load_scorer
from tests import tokenizers_on_the_spot as made
from tests.reliability.scenes import open_scene, write_inputs
from tests.tiny import tiny_model

EXACT = choose_precision("cpu", "fp32")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def copied(source: Path, target: Path, keep: Callable[[str], str | None]) -> Path:
    """A model whose weights have other names; None leaves one out."""
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    named = {keep(name): value for name, value in weights.items()}
    save_file({name: value for name, value in named.items() if name}, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.mark.parametrize(
    ("keep", "missing"),
    [
        (lambda name: None if "layers.0.self_attn.q_proj" in name else name, "layers.0.self_attn.q_proj.weight"),
        (lambda name: None if "layers.1." in name else name, "layers.1.input_layernorm.weight"),
        (lambda name: None if "embed" in name else name, "embed_tokens.weight"),
        (lambda name: f"x.{name}", "lack .* of .* weights"),
        (lambda name: name.replace("q_proj", "query"), "q_proj.weight"),
    ],
)
def test_missing_weights_are_named_and_not_drawn(
    whole: Path, tmp_path: Path, keep: Callable[[str], str | None], missing: str
) -> None:
    """The library would fill them at random and say nothing."""
    broken = copied(whole, tmp_path / "broken", keep)
    with pytest.raises(UserError, match=missing):
        load_policy(str(broken), EXACT)


def test_a_tied_head_is_not_missing(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model")
    names = set(load_file(tmp_path / "model" / "model.safetensors"))
    assert load_policy(str(tmp_path / "model"), EXACT).trunk.network.get_output_embeddings() is not None
    assert "lm_head.weight" in names or json.loads((tmp_path / "model/config.json").read_text())["tie_word_embeddings"]


def test_a_reward_model_without_its_head_is_none(inputs: Path, tmp_path: Path) -> None:
    """Trained from a language model, which has no such head, it is one; without the head it scores at random."""
    open_scene("reward-full", inputs, tmp_path / "run").finish()
    assert load_scorer(str(tmp_path / "run"), EXACT) is not None
    broken = copied(tmp_path / "run/model", tmp_path / "broken", lambda name: None if "score" in name else name)
    with pytest.raises(UserError, match=r"lack 1 of .* weights: score.weight"):
        load_scorer(str(broken), EXACT)


def test_an_adapter_with_dropout_is_merged(inputs: Path, tmp_path: Path) -> None:
    """The comparison of both models draws nothing."""
    open_scene("sft-lora", inputs, tmp_path / "run", lora__dropout=0.3).finish()
    assert merge(str(tmp_path / "run"), tmp_path / "merged")["difference"] <= 1e-4


def config_of(model: Path, **changes: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 1_000_000),
        ("num_hidden_layers", -1),
        ("num_hidden_layers", 2.5),
        ("hidden_size", 0),
        ("vocab_size", 10**12),
        ("rms_norm_eps", float("nan")),
        ("rms_norm_eps", -1e-6),
        ("rope_theta", float("inf")),
        ("rope_parameters", {"rope_type": "default", "rope_theta": float("nan")}),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 0}),
        ("initializer_range", float("nan")),
    ],
)
def test_impossible_numbers(whole: Path, tmp_path: Path, field: str, value: Any) -> None:
    shutil.copytree(whole, tmp_path / "model")
    config_of(tmp_path / "model", **{field: value})
    began = time.monotonic()
    with pytest.raises(UserError, match=rf"config.json: .*({field}|rope_theta|finite)"):
        locate(str(tmp_path / "model"))
    assert time.monotonic() - began < 1


ADAPTER = {"base_model_name_or_path": "", "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", 0),
        ("r", "eight"),
        ("r", 10**9),
        ("r", True),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", [1]),
        ("lora_alpha", float("nan")),
        ("lora_alpha", float("inf")),
        ("lora_alpha", None),
        ("alpha_pattern", {"q_proj": "x"}),
        ("lora_dropout", 1.5),
    ],
)
def test_impossible_adapters(whole: Path, tmp_path: Path, field: str, value: Any) -> None:
    config = {**ADAPTER, "base_model_name_or_path": str(whole), field: value}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file({"base_model.model.x.0.lora_A.weight": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"adapter_config.json: "):
        locate(str(tmp_path))


@pytest.mark.parametrize("value", [["a"], None, {"a": {"b": 1}}, {"a": 3}, "x"])
def test_an_index_that_is_none(whole: Path, tmp_path: Path, value: Any) -> None:
    shutil.copytree(whole, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": value}))
    with pytest.raises(UserError, match="weight_map"):
        locate(str(tmp_path / "model"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"])
def test_a_pipe_in_the_place_of_a_file(whole: Path, tmp_path: Path, name: str) -> None:
    """Whoever opened it would wait for ever."""
    shutil.copytree(whole, tmp_path / "model")
    (tmp_path / "model" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "model" / name)
    with pytest.raises(UserError, match=rf"{name}: is a pipe, a socket or a device"):
        locate(str(tmp_path / "model"))


def test_links_lead_nowhere_else(whole: Path, tmp_path: Path) -> None:
    """Out of the directory: refused. Within it, or within a hub cache: as ever."""
    shutil.copytree(whole, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(UserError, match=r"model.safetensors: leads to .*elsewhere"):
        locate(str(tmp_path / "model"))
    (tmp_path / "elsewhere.safetensors").rename(tmp_path / "model" / "own.safetensors")
    with pytest.raises(UserError, match=r"is a link to .* which is not there"):
        locate(str(tmp_path / "model"))
    weights.unlink()
    weights.symlink_to("own.safetensors")
    locate(str(tmp_path / "model"))
    hub = tmp_path / "models--a--b"
    (hub / "snapshots").mkdir(parents=True)
    (hub / "blobs").mkdir()
    shutil.copytree(whole, hub / "snapshots" / "0123")
    (hub / "snapshots/0123/model.safetensors").rename(hub / "blobs" / "abc")
    (hub / "snapshots/0123/model.safetensors").symlink_to("../../blobs/abc")
    load_policy(str(hub / "snapshots" / "0123"), EXACT)


TEMPLATES = {
    "does not end": "{% for a in range(1500) %}{% for b in range(1500) %}{{ a }}{% endfor %}{% endfor %}",
    "grows without end": "{% set n = namespace(t='x' * 64) %}"
    "{% for i in range(20) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_without_end_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried with limits that these templates, which do end, exceed; without the limits they pass the trial's time."""
    monkeypatch.setattr(layouts, "TRIAL_SECONDS", 0.05 if name == "does not end" else 20.0)
    monkeypatch.setattr(layouts, "TRIAL_MEMORY", 1 << 24)
    with pytest.raises(UserError, match=f"the chat template {name}"):
        Renderer(copy.deepcopy(made.smollm()), template=TEMPLATES[name])

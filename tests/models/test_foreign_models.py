"""Models that other tools write: read for what they are, refused for what they are, and written so that others read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)

from smolt.cli.doctor import examined
from smolt.config import Model, RewardPart
from smolt.data import Answer, Question, Turn
from smolt.errors import UserError
from smolt.models.ground import open_ground
from smolt.models.locating import locate
from smolt.models.merging import EXACT, merge
from smolt.models.rendering import load_renderer
from smolt.models.roles import Policy
from smolt.models.saving import load_policy, load_scorer, open_scorer, save_policy
from smolt.rewards.learned import learned_reward
from smolt.runs import Run
from smolt.runs.identity import is_run
from tests.models.test_merging import SMALL, adapter
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_models import CONTROLS, ONE_HEAD_EACH, SHAPE

# --- two precisions ---------------------------------------------------------------------------------------------------


def restored(base: Path, named: str | None, kinds: dict[str, torch.dtype]) -> None:
    """The base's weights in these dtypes (by a part of their names), under a config.json that names another."""
    file = base / "model.safetensors"
    weights = {
        name: value.to(next((kind for part, kind in kinds.items() if part in name), torch.float32))
        for name, value in load_file(file).items()
    }
    save_file(weights, file, metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    config.pop("dtype", None)
    (base / "config.json").write_text(json.dumps(config if named is None else {**config, "dtype": named}))


BF16, FP16 = torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("named", "kinds", "stored"),
    [
        ("bfloat16", {}, "fp32"),
        ("bfloat16", {"proj": BF16, "embed": BF16, "lm_head": BF16}, "bf16"),  # norms alone in fp32
        (None, {"": FP16}, "fp16"),
        ("float32", {"": BF16}, "bf16"),
    ],
    ids=["fp32 named bf16", "norms in fp32", "fp16 unnamed", "bf16 named fp32"],
)
def test_the_base_is_read_once(named: str | None, kinds: dict[str, torch.dtype], stored: str, tmp_path: Path) -> None:
    """A plain LoRA merges, with fp32 agreement of 1e-4, and is stored as most of the base's weights are."""
    path = adapter(tmp_path)
    restored(tmp_path / "base", named, kinds)
    facts = merge(str(path), tmp_path / "merged")
    assert facts["difference"] <= 1e-4
    assert facts["dtype"] == stored


# --- a tokenizer with more tokens than the embedding has rows ---------------------------------------------------------


def more_tokens(base: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|a|>", "<|b|>"]})
    tokenizer.save_pretrained(base)


def more_words(base: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained(base)


def far_stop(base: Path) -> None:
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 300]}))


def fewer_rows(base: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(base, trust_remote_code=False)
    network.resize_token_embeddings(len(tiny_tokenizer()) - 1)
    network.save_pretrained(base)


@pytest.mark.parametrize(
    ("change", "named"),
    [(more_tokens, r"<\|b\|>"), (more_words, "<think>"), (far_stop, "stop token 300"), (fewer_rows, "has the id")],
)
def test_every_token_needs_its_row(change: Any, named: str, tmp_path: Path) -> None:
    """Refused when the model is opened, by doctor, and in a merge, with the token and the number of rows."""
    base = tiny_model(tmp_path / "base")
    change(base)
    with pytest.raises(UserError, match=rf"{named}.* rows"):
        open_ground(Model(path=str(base), device="cpu"))
    found = examined(str(base))
    assert found.exit_code == 2
    assert "rows" in found.words
    with pytest.raises(UserError, match=rf"{named}.* rows"):
        merge(str(base), tmp_path / "merged")


# --- both spellings ---------------------------------------------------------------------------------------------------


def rope(kind: str, theta: float, **more: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": theta, **more}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
SPELLED: dict[str, tuple[PretrainedConfig, dict[str, Any]]] = {
    "1e6": (LlamaConfig(**SHAPE, **CONTROLS, rope_parameters=rope("default", 1e6)), {"rope_theta": 1e6}),
    "1e5": (Qwen2Config(**SHAPE, **CONTROLS, rope_parameters=rope("default", 1e5)), {"rope_theta": 1e5}),
    "llama3": (
        LlamaConfig(**SHAPE, **CONTROLS, rope_parameters=rope("llama3", 5e5, **LLAMA3)),
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    ),
    "gemma3": (
        Gemma3TextConfig(
            **SHAPE,
            **CONTROLS,
            head_dim=8,
            layer_types=["sliding_attention", "full_attention"],
            rope_parameters={"full_attention": rope("default", 1e6), "sliding_attention": rope("default", 1e4)},
        ),
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
    ),
    "gpt_neox": (
        GPTNeoXConfig(**ONE_HEAD_EACH, **CONTROLS, rope_parameters=rope("default", 2e4, partial_rotary_factor=0.5)),
        {"rotary_emb_base": 2e4, "rotary_pct": 0.5},
    ),
}


@pytest.mark.parametrize("kind", SPELLED)
def test_rotary_settings_in_both_spellings(kind: str, tmp_path: Path) -> None:
    """The older one stands beside the new one with equal values, and transformers reads the configuration it saved."""
    config, expected = SPELLED[kind]
    network = AutoModelForCausalLM.from_config(config, trust_remote_code=False).to(BF16)
    network.save_pretrained(tmp_path / "plain")
    tiny_tokenizer().save_pretrained(tmp_path / "plain")
    (tmp_path / "ours").mkdir()
    policy = load_policy(str(tmp_path / "plain"), EXACT)
    policy.trunk.network.to(BF16)
    save_policy(Policy(policy.trunk, None), load_renderer(tmp_path / "plain"), tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert {name: written.get(name) for name in expected} == expected
    assert written["torch_dtype"] == written["dtype"] == "bfloat16"
    plain, ours = (AutoConfig.from_pretrained(tmp_path / name, trust_remote_code=False) for name in ("plain", "ours"))
    assert ours.rope_parameters == plain.rope_parameters
    fields = plain.to_dict() | {"_name_or_path": ours.name_or_path}
    assert {name: ours.to_dict().get(name) for name in fields} == fields
    before, after = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name, trust_remote_code=False).eval()
        for name in ("plain", "ours")
    )
    with torch.no_grad():
        assert torch.equal(*(part(input_ids=torch.arange(3, 60)[None]).logits for part in (before, after)))


# --- another program's manifest ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "manifest", ['{"schemaVersion": 2, "layers": []}', "[1, 2]", '{"format": "else/1"}', "no JSON", ""]
)
def test_another_programs_manifest(manifest: str, tmp_path: Path) -> None:
    """A model directory that holds one is a model; its merge's card does not quote it."""
    base = tiny_model(tmp_path / "base")
    (base / "manifest.json").write_text(manifest)
    assert not is_run(base)
    assert locate(str(base)).base == str(base)
    merge(str(base), tmp_path / "merged")
    assert "schemaVersion" not in (tmp_path / "merged" / "README.md").read_text()


def test_our_manifest(tmp_path: Path) -> None:
    """A run is one by the format its manifest names; without its model it is unfinished."""
    (tmp_path / "manifest.json").write_text('{"format": "smolt-run/1"}')
    with pytest.raises(UserError, match="this run has no model yet"):
        locate(str(tmp_path))
    tiny_model(tmp_path / "model")
    assert locate(str(tmp_path)).base == str(tmp_path / "model")


def test_a_finished_run_that_holds_none(tmp_path: Path) -> None:
    """It is said what it holds; running its command again would make no model."""
    run: dict[str, Any] = {"stage": "judge", "recipe": {}, "data": "ab", "model": "cd", "renderer": None}
    with Run.open(tmp_path / "judged", manifest=run) as opened:
        opened.complete({"stage": "judge"})
    with pytest.raises(UserError, match="judged is a finished judge run: it holds labels, no model"):
        locate(str(tmp_path / "judged"))


# --- classifiers as reward models -------------------------------------------------------------------------------------


def classifier(folder: Path, labels: list[str]) -> Path:
    base = tiny_model(folder)
    network = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(labels), id2label=dict(enumerate(labels)), trust_remote_code=False
    )
    with torch.no_grad():
        network.score.weight.normal_(generator=torch.Generator().manual_seed(0))
    network.config.pad_token_id = 0
    network.save_pretrained(base)
    return base


@pytest.mark.parametrize("labels", [["BAD", "GOOD"], ["a", "b", "c"], [str(number) for number in range(40)]])
def test_a_classifier_is_refused_with_the_reason(labels: list[str], tmp_path: Path) -> None:
    """The number of labels and their names; of two, how to say which is good. None is a start for a reward model."""
    base = classifier(tmp_path / "base", labels)
    with pytest.raises(UserError, match=rf"score head has {len(labels)} labels \({labels[0]}, {labels[1]}.*one number"):
        load_scorer(str(base), EXACT)
    with pytest.raises(UserError, match=f"classifier with the labels {labels[0]}"):
        open_scorer(locate(str(base)), EXACT, SMALL, 0)


def test_two_labels_are_the_log_odds_of_the_good_one(tmp_path: Path) -> None:
    """As a reward: transformers' logit of GOOD less that of BAD; the other way round with the other label."""
    base = classifier(tmp_path / "base", ["BAD", "GOOD"])
    renderer = load_renderer(base)
    context, answer = renderer.context((Turn("user", "Hi."),)), renderer.answer("the other")
    network = AutoModelForSequenceClassification.from_pretrained(base, trust_remote_code=False).eval()
    with torch.no_grad():
        bad, good = network(input_ids=torch.tensor([context + answer])).logits[0].tolist()
    for label, expected in (("GOOD", good - bad), ("BAD", bad - good)):
        reward = learned_reward(RewardPart(name="model", path=str(base), options={"label": label}), EXACT)
        score = reward([Question((Turn("user", "Hi."),))], [Answer("the other", len(answer), True)])[0]
        assert score.value == pytest.approx(expected, abs=1e-4)
    with pytest.raises(UserError, match="no label 'GODO'"):
        learned_reward(RewardPart(name="model", path=str(base), options={"label": "GODO"}), EXACT)


def test_an_answer_that_no_template_writes_is_not_scored(tmp_path: Path) -> None:
    """A policy may write a mark the template takes for its own: the reward model abstains there and scores the rest."""
    base = classifier(tmp_path / "base", ["BAD", "GOOD"])
    tokenizer = load_renderer(base).tokenizer
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'].split('</think>')[-1] + eos_token }}{% endfor %}"
    )
    tokenizer.save_pretrained(base)
    reward = learned_reward(RewardPart(name="model", path=str(base), options={"label": "GOOD"}), EXACT)
    texts = ["the hen </think>", "the hen"]
    cut, whole = reward([Question((Turn("user", "he"),))] * 2, [Answer(text, 3, True) for text in texts])
    assert cut.value is None
    assert cut.reason is not None and cut.reason.startswith("the reward model's template: the chat template rewrites")
    assert whole.value is not None


def test_an_encoder_is_no_reward_model(tmp_path: Path) -> None:
    """BERT's classifier has no `score` layer: named, not a traceback."""
    config = BertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=1
    )
    AutoModelForSequenceClassification.from_config(config, trust_remote_code=False).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="BertForSequenceClassification has no layer `score`"):
        load_scorer(str(tmp_path), EXACT)

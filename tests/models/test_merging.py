"""Merging: the standalone directory computes what the adapter model computes, or nothing is written."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from smolt.config import LoRA
from smolt.data import Turn
from smolt.errors import SelfCheckError, UserError
from smolt.models import merging as merging
from smolt.models.groups import from_answers
from smolt.models.locating import Located, locate
from smolt.models.merging import EXACT, PROOF, merge
from smolt.models.rendering import load_renderer
from smolt.models.roles import Policy, open_policy
from smolt.models.sampling import Drawing, sample
from smolt.models.saving import is_reward_model, load_policy, load_scorer, open_scorer, save_policy, save_scorer
from smolt.runs import inventory
from tests.tiny import ARCHITECTURES, Architecture, tiny_model

QUESTIONS = ["Hi.", "What is the other number?", "the then he in a error"]
SMALL = LoRA(rank=4, alpha=8.0)


def stir(policy: Policy, seed: int = 0) -> None:
    """Give the adapter weights that change the model visibly."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(policy.parameters().items()):
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))


def adapter(tmp_path: Path, architecture: Architecture = "llama") -> Path:
    base = tiny_model(tmp_path / "base", architecture)
    policy = open_policy(locate(str(base)), EXACT, SMALL, seed=0)
    stir(policy)
    (tmp_path / "adapter").mkdir()
    save_policy(policy, load_renderer(base), tmp_path / "adapter")
    return tmp_path / "adapter"


def digest(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def contexts(folder: Path) -> list[list[int]]:
    renderer = load_renderer(folder)
    return [renderer.context((Turn("user", question),)) for question in QUESTIONS]


def greedy_by_smolt(folder: Path) -> list[list[int]]:
    drawing = Drawing(24, 0.0, 4, load_renderer(folder).stop_ids)
    groups = sample(load_policy(str(folder), EXACT), contexts(folder), 1, drawing, (0,))
    return [answer.tolist() for answer in groups.answers]


def greedy_by_transformers(folder: Path) -> list[list[int]]:
    """As anyone would: from_pretrained and generate, one question at a time, nothing of smolt involved."""
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    answers = []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        answer = model.generate(**ids, max_new_tokens=24, do_sample=False)
        answers.append(answer[0, ids["input_ids"].shape[1] :].tolist())
    return answers


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning")  # peft on GPT-2's transposed linear layers
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_text_of_the_merged_model_is_the_adapters(tmp_path: Path, architecture: Architecture) -> None:
    """24 greedy tokens to three questions are equal, and not the base's; no file of base or adapter has changed."""
    path = adapter(tmp_path, architecture)
    before = digest(path), digest(tmp_path / "base")
    facts = merge(str(path), tmp_path / "merged")
    assert (digest(path), digest(tmp_path / "base")) == before
    assert facts["difference"] <= 1e-4
    assert (facts["status"], facts["kind"], facts["dtype"]) == ("complete", "policy", "fp32")
    assert greedy_by_transformers(tmp_path / "merged") == greedy_by_smolt(path)
    assert greedy_by_smolt(tmp_path / "merged") == greedy_by_smolt(path)
    assert greedy_by_smolt(path) != greedy_by_smolt(tmp_path / "base")
    assert load_renderer(tmp_path / "merged").fingerprint == load_renderer(path).fingerprint


def test_a_merged_matrix_by_hand(tmp_path: Path) -> None:
    """W + 2 B A (alpha / rank = 8 / 4) for each of 7 linear layers in 2 blocks; every other weight bit for bit."""
    path = adapter(tmp_path)
    assert merge(str(path), tmp_path / "merged")["matrices"] == 14
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "base", tmp_path / "merged"))
    lora = load_file(path / "adapter_model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    down, up = (lora[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    torch.testing.assert_close(after[f"{name}.weight"], before[f"{name}.weight"] + 2 * up @ down)
    assert sum(not torch.equal(before[key], after[key]) for key in before) == 14


def tamper(path: Path, change: str) -> None:
    file = path / "adapter_model.safetensors"
    weights = load_file(file)
    key = sorted(weights)[0]
    if change == "missing":
        del weights[key]
    elif change == "dead":
        weights[key.replace("base_model.model", "model")] = weights.pop(key)
    elif change == "whole":
        weights["base_model.model.lm_head.weight"] = torch.zeros(1)
    save_file(weights, file)


@pytest.mark.parametrize("change", ["missing", "dead", "whole"])
def test_a_tampered_adapter_is_refused(tmp_path: Path, change: str) -> None:
    """A missing key, a dead key, a weight that is no LoRA: refused, and nothing is left behind."""
    path = adapter(tmp_path)
    tamper(path, change)
    with pytest.raises(UserError, match=r"does not fit the base model|is no LoRA weight"):
        merge(str(path), tmp_path / "new" / "merged")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "base"]


def test_a_merge_that_disagrees_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One merged matrix 1 % too large: SelfCheckError with exit code 70, and nothing is left behind."""
    path = adapter(tmp_path)

    whole = LoraModel.merge_and_unload

    def wrong(tuner: LoraModel) -> torch.nn.Module:
        merged: torch.nn.Module = whole(tuner)
        merged.get_parameter("model.layers.0.mlp.up_proj.weight").data *= 1.01
        return merged

    monkeypatch.setattr(LoraModel, "merge_and_unload", wrong)
    with pytest.raises(SelfCheckError, match="differs from the adapter model") as refusal:
        merge(str(path), tmp_path / "merged")
    assert refusal.value.exit_code == 70
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "base"]


def test_a_failing_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = adapter(tmp_path)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging, "save_policy", full)
    with pytest.raises(OSError, match="No space left on device"):
        merge(str(path), tmp_path / "merged")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "base"]


def test_dtypes(tmp_path: Path) -> None:
    """Stored as the base is (here bf16) unless asked; fp32 keeps the adapter's change exactly, bf16 to 8 bits."""
    path = adapter(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16, trust_remote_code=False)
    base.save_pretrained(tmp_path / "base")
    rounded = merge(str(path), tmp_path / "auto")
    exact = merge(str(path), tmp_path / "exact", dtype="fp32")
    assert (rounded["dtype"], exact["dtype"]) == ("bf16", "fp32")
    assert {value.dtype for value in load_file(tmp_path / "auto/model.safetensors").values()} == {torch.bfloat16}
    assert {value.dtype for value in load_file(tmp_path / "exact/model.safetensors").values()} == {torch.float32}
    assert exact["difference_stored"] <= 1e-4 < rounded["difference_stored"]
    with pytest.raises(UserError, match="int8"):
        merge(str(path), tmp_path / "no", dtype="int8")


def test_what_lies_at_out(tmp_path: Path) -> None:
    """The same merge is already complete; another one needs --fresh; what is not ours is never touched."""
    path = adapter(tmp_path)
    merge(str(path), tmp_path / "merged")
    assert merge(str(path), tmp_path / "merged")["status"] == "already complete"
    with pytest.raises(UserError, match="--fresh"):
        merge(str(path), tmp_path / "merged", dtype="bf16")
    assert merge(str(path), tmp_path / "merged", dtype="bf16", fresh=True)["dtype"] == "bf16"
    assert json.loads((tmp_path / "merged.old-1" / PROOF).read_text())["dtype"] == "fp32"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for out in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt", path, tmp_path / "base"):
        with pytest.raises(UserError, match="choose another --out"):
            merge(str(path), out, fresh=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"
    (tmp_path / "empty").mkdir()
    assert merge(str(path), tmp_path / "empty")["status"] == "complete"


def test_a_merged_base_is_not_set_aside_under_its_adapter(tmp_path: Path) -> None:
    """An adapter on top of a merged directory cannot be merged over its own base."""
    merge(str(adapter(tmp_path)), tmp_path / "merged")
    policy = open_policy(locate(str(tmp_path / "merged")), EXACT, SMALL, seed=1)
    (tmp_path / "second").mkdir()
    save_policy(policy, load_renderer(tmp_path / "merged"), tmp_path / "second")
    with pytest.raises(UserError, match="what the merge is made from"):
        merge(str(tmp_path / "second"), tmp_path / "merged", fresh=True)


def test_full_weights_of_a_run_are_written_anew_with_a_card(tmp_path: Path) -> None:
    """The weights are the run's, bit for bit; the card names stage, recipe and figures of result.json, and no path."""
    run = tmp_path / "run"
    tiny_model(run / "model")
    recipe = {"name": "first", "seed": 3, "model": {"path": str(tmp_path / "secret" / "start")}}
    (run / "manifest.json").write_text(
        json.dumps({"format": "smolt-run/1", "stage": "sft", "recipe": recipe, "recipe_hash": "abc"})
    )
    accuracy = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    result = json.dumps({"updates": 7, "accuracy": accuracy, "final": {"loss": 1.25}})
    inventory.write(run, result.encode())
    (run / "result.json").write_text(result)
    facts = merge(str(run), tmp_path / "merged")
    assert (facts["matrices"], facts["difference_stored"]) == (0, facts["difference"])
    before, after = (load_file(folder / "model.safetensors") for folder in (run / "model", tmp_path / "merged"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    card = (tmp_path / "merged" / "README.md").read_text()
    rows = ["| updates | 7 |", "| accuracy | 0.5 [0.4, 0.6], n = 10 |", "| last update: loss | 1.25 |"]
    for line in ["- stage: `sft`", "- recipe: `first`", "- seed: `3`", "- started from: `start`", *rows]:
        assert line in card.splitlines()
    assert str(tmp_path) not in card


@pytest.mark.parametrize("lora", [SMALL, None])
def test_a_reward_model_becomes_a_sequence_classifier(tmp_path: Path, lora: LoRA | None) -> None:
    """transformers' own score of context and answer is the verdict of smolt's scorer; shift and refusal stay noted."""
    base = tiny_model(tmp_path / "base", pad_is_eos=True)
    scorer = open_scorer(locate(str(base)), EXACT, lora, seed=0)
    if lora is not None:
        stir(Policy(scorer.trunk, scorer.adapter))
    renderer = load_renderer(base)
    (tmp_path / "reward").mkdir()
    save_scorer(scorer, renderer, tmp_path / "reward", {"shift": 0.25, "refused": None})
    facts = merge(str(tmp_path / "reward"), tmp_path / "merged")
    assert facts["kind"] == "reward"
    again, note = load_scorer(str(tmp_path / "merged"), EXACT)
    assert note == {"shift": 0.25, "refused": None}
    context, answer = renderer.context((Turn("user", "Hi."),)), renderer.answer("the other")
    groups = from_answers([context], [[answer]])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged", trust_remote_code=False).eval()
    with torch.no_grad():
        wanted = load_scorer(str(tmp_path / "reward"), EXACT)[0].verdicts(groups)
        assert abs(float(wanted)) > 1e-3
        torch.testing.assert_close(again.verdicts(groups), wanted, atol=1e-5, rtol=0)
        score = model(input_ids=torch.tensor([context + answer])).logits[0]
        torch.testing.assert_close(score, wanted, atol=1e-5, rtol=0)


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    assert not is_reward_model(locate(str(adapter(tmp_path))))
    assert not is_reward_model(Located(str(tmp_path / "base")))

"""Every shipped recipe loads by its name, and says what its system is known by."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolt.config import DPORecipe, GRPORecipe, PPORecipe, PretrainRecipe, StudyRecipe, load_recipe, shipped_recipes
from smolt.config.blocks import SHIPPED
from smolt.data import Source, load
from smolt.errors import UserError
from smolt.models.forward.precision import choose_precision
from smolt.models.rendering import Renderer
from smolt.training.algorithms.pretrain import make_trunk
from tests.tiny import tiny_tokenizer

LEFT_TO_THE_USER = {"stories-positive": ["model.path=anything"]}
"""What has no default: values that only the command line can give."""

SYSTEMS = ("qwen-gsm8k-rlaif", "gptneo-hh", "smollm2-orca", "slm-25m", "stories-positive")


def study(name: str, *overrides: str) -> StudyRecipe:
    recipe = load_recipe(name, None, [*LEFT_TO_THE_USER.get(name, []), *overrides])
    assert isinstance(recipe, StudyRecipe)
    return recipe


def sections(name: str) -> dict[str, Any]:
    return {section.name: section.recipe for section in study(name).sections}


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_is_a_valid_study_with_a_description(name: str) -> None:
    """It loads, names its file, says what it measures on and begins with one line about it (`smolt recipe list`)."""
    recipe = study(name)
    assert recipe.name == name
    assert (recipe.study.test or recipe.study.decisions) is not None
    assert shipped_recipes()[name].read_text(encoding="utf-8").startswith("# ")


def test_the_systems_are_shipped() -> None:
    assert set(SYSTEMS) <= set(shipped_recipes())


def test_stories_need_a_model() -> None:
    """The path is not guessed: without it the message names the field and what belongs there."""
    with pytest.raises(
        UserError, match=r"model\.path: missing \(a model or adapter directory, a GGUF file, or a hub name\)"
    ):
        load_recipe("stories-positive")


@pytest.mark.parametrize(("name", "kinds", "count"), [("prompts", 8, 48), ("scenarios", 7, 154)])
def test_shipped_prompts(name: str, kinds: int, count: int) -> None:
    """All different, equally many of each kind."""
    found = load(Source(f"{SHIPPED}/data/{name}.jsonl"), "questions").records
    per_kind: dict[str, int] = {}
    for question in found:
        per_kind[question.kind] = per_kind.get(question.kind, 0) + 1
    assert len({question.context for question in found}) == len({question.id for question in found}) == count
    assert per_kind == dict.fromkeys(per_kind, count // kinds)
    assert len(per_kind) == kinds


def test_story_openings_are_disjoint() -> None:
    """240 to learn on, 240 held out, none in both; the continuation brings its own space."""
    parts = [
        {
            question.context[0].content
            for question in load(Source(f"{SHIPPED}/data/story_openings", split), "questions").records
        }
        for split in ("train", "test")
    ]
    assert [len(part) for part in parts] == [240, 240]
    assert parts[0].isdisjoint(parts[1])
    assert all(opening == opening.strip() for part in parts for opening in part)


def test_qwen_gsm8k() -> None:
    """Two PPO arms that differ in the KL coefficient alone, LoRA r16 a32; the format cannot outweigh being right."""
    recipe, found = study("qwen-gsm8k-rlaif"), sections("qwen-gsm8k-rlaif")
    strong, weak = found["ppo_kl_0.2"], found["ppo_kl_0.05"]
    assert isinstance(strong, PPORecipe)
    assert (strong.kl.coefficient, weak.kl.coefficient) == (0.2, 0.05)
    assert strong.kl.stop is not None
    assert strong.kl.budget is not None
    assert strong.model_copy(update={"name": "", "kl": None}) == weak.model_copy(update={"name": "", "kl": None})
    assert (strong.model.path, strong.data.path) == ("Qwen/Qwen2.5-0.5B-Instruct", "openai/gsm8k:main")
    assert strong.lora is not None
    assert (strong.lora.rank, strong.lora.alpha) == (16, 32.0)
    weights = {part.name: (part.weight, part.options) for part in strong.reward.parts}
    assert weights == {"gsm8k": (1.0, {}), "format": (1.0, {"cap": 0.5})}
    assert (recipe.study.baseline, recipe.study.metric) == ("base", "accuracy")
    assert recipe.study.test is not None
    assert (strong.data.split, recipe.study.test.split) == ("train", "test")
    assert recipe.study.sampling.max_tokens == strong.sampling.max_tokens


def test_gptneo_hh() -> None:
    """SFT and reward model, then human labels, AI labels and rejected answers at equal data, all on HH dialogues."""
    found = sections("gptneo-hh")
    stages = {name: recipe.stage for name, recipe in found.items()}
    arms = {"dpo": "dpo", "ai_labels": "pairs", "rlaif_dpo": "dpo", "rejected": "sft"}
    assert stages.items() >= {"sft": "sft", "reward": "reward", "judge": "reward", **arms}.items()
    of_hh = {name: recipe.data for name, recipe in found.items() if name != "rlaif_dpo"}
    assert {data.path for data in of_hh.values()} == {"Anthropic/hh-rlhf"}
    assert {recipe.model.style for recipe in found.values()} == {"dialogue"}
    assert (found["sft"].model.path, found["dpo"].model.path) == ("EleutherAI/gpt-neo-125m", "{sft}/model")
    assert {found[arm].model.path for arm in arms} == {"{sft}/model"}
    assert {found[arm].data.limit for arm in ("dpo", "ai_labels", "rejected")} == {found["ai_labels"].limit} == {20_000}
    assert found["ai_labels"].judge.path == "{reward}/model"


def test_the_control_of_gptneo_hh_imitates_what_was_rejected(tmp_path: Path) -> None:
    """The columns change places: the demonstration of a pair is its rejected answer."""
    start = "\n\nHuman: Hello\n\nAssistant:"
    row = {"chosen": f"{start} Good.", "rejected": f"{start} Bad."}
    (tmp_path / "hh.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    data = sections("gptneo-hh")["rejected"].data
    found = load(Source(str(tmp_path / "hh.jsonl"), fields=data.fields), "demonstrations").records
    assert [record.answer for record in found] == ["Bad."]


def test_smollm2_orca() -> None:
    """The published settings: learning rates, beta, KL, clip, group, adapters."""
    found = sections("smollm2-orca")
    dpo, ppo, grpo = found["dpo"], found["ppo"], found["grpo"]
    assert isinstance(dpo, DPORecipe)
    assert isinstance(ppo, PPORecipe)
    assert isinstance(grpo, GRPORecipe)
    trained = {name: recipe.optim.lr for name, recipe in found.items() if name != "best_of_n"}
    assert trained == {"reward": 1e-4, "dpo": 5e-6, "ppo": 1e-5, "grpo": 1e-5}
    assert (dpo.beta, ppo.kl.coefficient, ppo.clip, grpo.group, grpo.advantage.scale) == (0.3, 0.05, 0.2, 4, "group")
    for name in trained:
        recipe = found[name]
        assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.targets) == (8, 32.0, ("q_proj", "v_proj"))
        assert (recipe.data.path, recipe.model.path) == (
            "Intel/orca_dpo_pairs",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
        )


def test_slm_has_25_million_parameters() -> None:
    """24,845,824 parameters: 25 million less 0.6 %.

    8,192 x 512 tied = 4,194,304; a layer 512 x 512 x 3 (q, o, k and v together) + 3 x 512 x 1,408 + 2 x 512 =
    2,950,144, of which there are seven; the last norm 512.
    """
    recipe = sections("slm-25m")["pretrain"]
    assert isinstance(recipe, PretrainRecipe)
    tokenizer = tiny_tokenizer(chat=False)
    tokenizer.add_tokens([f"word{number}" for number in range(recipe.tokenizer.vocab - len(tokenizer))])
    trunk = make_trunk(recipe.shape, Renderer(tokenizer), choose_precision("cpu", "fp32"), seed=0)
    parameters = sum(parameter.numel() for parameter in trunk.network.parameters())
    assert parameters == 24_845_824
    assert abs(parameters / 25e6 - 1) < 0.1


def test_prompts_are_json_lines_with_one_key_order() -> None:
    """Each row is prompt, id, kind; a scenario may add what its answer is checked by, and nothing else."""
    for file in sorted((SHIPPED / "data").rglob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert {tuple(row)[:3] for row in rows} == {("prompt", "id", "kind")}
        added = {tuple(row)[3:] for row in rows}
        assert added == ({(), ("solution",), ("constraint",)} if file.stem == "scenarios" else {()})

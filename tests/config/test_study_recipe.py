"""A study's sections: what they take over, where they start from, and what they refer to."""

from pathlib import Path

import pytest

from smolt.config import (
    BestOfNRecipe,
    PPORecipe,
    PretrainRecipe,
    SFTRecipe,
    StudyRecipe,
    load_recipe,
    make_recipe,
    recipe_hash,
    section_references,
    with_directories,
)
from smolt.config.blocks import SHIPPED
from smolt.errors import UserError

STUDY = """\
name: demo
model: {path: start, threads: 2}
lora: {rank: 8}
seed: 5
study: {seeds: [0, 1], items: 50}
problems: {train: 100}
sft: {data: "{problems}/demonstrations.jsonl", optim.lr: 1e-4}
pairs: {data: "{problems}/train.jsonl", reward: gsm8k}
reward: {data: "{pairs}/preferences.jsonl", model: {threads: 1}}
dpo: {data: "{pairs}/preferences.jsonl", lora: null}
ppo_kl_0.05:
  stage: ppo
  kl.coefficient: 0.05
  from: sft
  data: "{problems}/train.jsonl"
  reward: [gsm8k, {name: model, path: "{reward}/model"}]
sft_more: {stage: sft, from: sft, data: "{problems}/demonstrations.jsonl", budget.like: ppo_kl_0.05}
best_of_n: {reward_model: reward, n: 4}
"""


def study(folder: Path, text: str = STUDY, *overrides: str) -> StudyRecipe:
    path = folder / "s.yaml"
    path.write_text(text, encoding="utf-8")
    recipe = load_recipe(path, None, overrides)
    assert isinstance(recipe, StudyRecipe)
    return recipe


def refused(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        study(folder, text, *overrides)
    return str(caught.value).replace(str(folder / "s.yaml"), "s.yaml")


def test_sections_in_order_with_their_sources(tmp_path: Path) -> None:
    """Without `from`, sections start from sft, and sft from the study's base model."""
    found = [(section.name, section.recipe.stage, section.source) for section in study(tmp_path).sections]
    assert found == [
        ("problems", "problems", "base"),
        ("sft", "sft", "base"),
        ("pairs", "pairs", "sft"),
        ("reward", "reward", "sft"),
        ("dpo", "dpo", "sft"),
        ("ppo_kl_0.05", "ppo", "sft"),
        ("sft_more", "sft", "sft"),
        ("best_of_n", "best_of_n", "sft"),
    ]


def test_inheritance(tmp_path: Path) -> None:
    """model, lora and seed come from the study; a section's own fields win, and model is merged field by field."""
    recipes = {section.name: section.recipe for section in study(tmp_path).sections}
    dumps = {name: recipe.model_dump() for name, recipe in recipes.items()}
    assert (dumps["sft"]["model"]["path"], dumps["sft"]["model"]["threads"]) == ("start", 2)
    assert (dumps["reward"]["model"]["path"], dumps["reward"]["model"]["threads"]) == ("{sft}/model", 1)
    assert dumps["sft"]["lora"]["rank"] == 8
    assert dumps["dpo"]["lora"] is None
    assert [dump["seed"] for dump in dumps.values()] == [5] * 8
    assert [dump["name"] for dump in dumps.values()] == list(dumps)
    assert isinstance(recipes["ppo_kl_0.05"], PPORecipe)
    assert recipes["ppo_kl_0.05"].kl.coefficient == 0.05


def test_study_level_data_and_dotted_fields(tmp_path: Path) -> None:
    """`data` at the top serves every section that has the field; `sft.batch: 3` at the top reaches the section."""
    recipe = study(tmp_path, "model.path: m\ndata: d.jsonl\nsft:\nsft_two: {stage: sft, data: e.jsonl}\nsft.batch: 3\n")
    first, second = (section.recipe for section in recipe.sections)
    assert isinstance(first, SFTRecipe)
    assert isinstance(second, SFTRecipe)
    assert (first.model.path, first.data.path, first.batch, second.data.path) == ("m", "d.jsonl", 3, "e.jsonl")


def test_pretraining_takes_over_where_to_compute_only(tmp_path: Path) -> None:
    """The later sections start from the pretrained model, and no base model is needed."""
    text = "model: {path: m, threads: 2, window: 64, style: plain}\npretrain: {data: t.txt}\n"
    text += "sft: {data: d}\ndpo: {data: p}\n"
    recipe = study(tmp_path, text)
    assert isinstance(recipe.sections[0].recipe, PretrainRecipe)
    assert recipe.sections[0].recipe.model.threads == 2
    assert [section.source for section in recipe.sections] == ["base", "pretrain", "sft"]
    text = "pretrain: {data: t.txt}\nsft: {data: d}\n"
    assert study(tmp_path, text).model is None


def test_references(tmp_path: Path) -> None:
    """Paths in braces, the section it starts from, and budget.like."""
    found = {section.name: section_references(section.recipe) for section in study(tmp_path).sections}
    assert found["sft"] == {"problems"}
    assert found["ppo_kl_0.05"] == {"problems", "sft", "reward"}
    assert found["sft_more"] == {"problems", "sft", "ppo_kl_0.05"}
    assert found["best_of_n"] == {"sft", "reward"}


def test_with_directories(tmp_path: Path) -> None:
    """Every {section} becomes its directory, and only in paths."""
    recipe = study(tmp_path).sections[5].recipe
    assert isinstance(recipe, PPORecipe)
    places = {"problems": Path("/p"), "sft": Path("/s"), "reward": Path("/r")}
    filled = with_directories(recipe, places)
    assert isinstance(filled, PPORecipe)
    assert (filled.model.path, filled.data.path, filled.reward.parts[1].path) == (
        "/s/model",
        "/p/train.jsonl",
        "/r/model",
    )
    assert filled.optim == recipe.optim
    with pytest.raises(UserError, match=r"`\{sft\}` names no section; known: problems"):
        with_directories(recipe, {"problems": Path("/p")})


def test_shipped_data_is_found_in_every_path(tmp_path: Path) -> None:
    """`{shipped}` is smolt's own directory of recipes and data, never a section, and a dump does not change again."""
    text = 'model: m\nstudy: {test: "{shipped}/data/a"}\nsft: {data: {path: "{shipped}/data/b.jsonl"}}\n'
    found = study(tmp_path, text, "sft.dev={shipped}/data/c.jsonl")
    sft = found.sections[0].recipe
    assert isinstance(sft, SFTRecipe)
    assert found.study.test is not None
    assert sft.dev is not None
    folder = f"{SHIPPED}/data"
    assert (found.study.test.path, sft.data.path, sft.dev.path) == (
        f"{folder}/a",
        f"{folder}/b.jsonl",
        f"{folder}/c.jsonl",
    )
    assert section_references(sft) == set()
    assert StudyRecipe.model_validate(found.model_dump(mode="json")) == found


def test_dump_reads_back_equal(tmp_path: Path) -> None:
    first = study(tmp_path)
    again = StudyRecipe.model_validate(first.model_dump(mode="json"))
    assert again == first
    assert recipe_hash(again) == recipe_hash(first)


def test_overrides_reach_sections_with_dots_in_their_names(tmp_path: Path) -> None:
    recipe = study(tmp_path, STUDY, "ppo_kl_0.05.kl.coefficient=0.2", "study.items=7", "model.threads=1", "sft.batch=2")
    ppo, sft = recipe.sections[5].recipe, recipe.sections[1].recipe
    assert isinstance(ppo, PPORecipe)
    assert isinstance(sft, SFTRecipe)
    assert (ppo.kl.coefficient, ppo.model.threads, recipe.study.items, sft.batch) == (0.2, 1, 7, 2)


def test_the_baseline_is_sft_where_there_is_one(tmp_path: Path) -> None:
    assert study(tmp_path).study.baseline == "sft"
    assert study(tmp_path, "model: m\ndpo: {data: d}\n").study.baseline == "base"


def test_every_arm_may_answer_at_equal_length(tmp_path: Path) -> None:
    """What the study's limit is, best-of-n's is too, however it came about; its other settings stay."""
    text = STUDY.replace("n: 4", "n: 4, sampling: {temperature: 0.7}")
    for overrides, limit in (((), 256), (("study.sampling.max_tokens=48",), 48)):
        recipe = study(tmp_path, text, *overrides).sections[-1].recipe
        assert isinstance(recipe, BestOfNRecipe)
        assert (recipe.sampling.max_tokens, recipe.sampling.temperature) == (limit, 0.7)
    same = study(tmp_path, text, "study.sampling.max_tokens=48", "best_of_n.sampling.max_tokens=48").sections[-1].recipe
    assert same == recipe


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kl.coefficient", "kl.coeficient", 's.yaml:13: ppo_kl_0.05.kl.coeficient: unknown field; did you mean "coeff'),
        (
            "dpo:",
            "dpoo:",
            's.yaml:10: dpoo: unknown section; did you mean "dpo"? a section with a name',
        ),
        ("stage: ppo", "stage: pppo", 's.yaml:12: ppo_kl_0.05.stage: unknown stage; did you mean "ppo"?'),
        (
            "from: sft\n",
            "from: sftt\n",
            's.yaml:14: ppo_kl_0.05.from: must be base or a section above; did you mean "s',
        ),
        ("from: sft\n", "from: pairs\n", "pairs makes no policy to start from (its stage is pairs)"),
        ("from: sft\n", "from: best_of_n\n", "ppo_kl_0.05.from: must be base or a section above"),
        ("{train: 100}", "{train: 100, from: base}", "problems.from: problems starts from nothing; remove `from`"),
        ("from: sft\n", "from: sft\n  model.path: x\n", "it gives its own model.path; remove `from`"),
        ("{reward}/model", "{rewrd}/model", "refers to the section rewrd, which does not stand above it"),
        ("{reward}/model", "{reward}/modl", '`{reward}/modl` is nothing that reward makes; did you mean "model"?'),
        (
            "{problems}/train.jsonl",
            "{problems}/trian.jsonl",
            'nothing that problems makes; did you mean "train.jsonl"?',
        ),
        (
            "{pairs}/preferences.jsonl",
            "{pairs}/pairs.jsonl",
            'nothing that pairs makes; did you mean "preferences.jsonl"?',
        ),
        ("{reward}/model", "{sft}/model", "`{sft}` is no reward model: its stage is sft"),
        ("items: 50", 'test: "{pairs}/test.jsonl"', "study: `{pairs}/test.jsonl` is nothing that pairs makes"),
        (
            "n: 4",
            "n: 4, sampling: {max_tokens: 48}",
            "s.yaml:18: best_of_n.sampling.max_tokens: the other arms are measured at 256 (study.sampling.max_tokens)",
        ),
        (
            "{rank: 8}",
            "{rank: 8, dropout: 0.1}",
            "s.yaml:3: ppo_kl_0.05.lora: dropout is off where answers are sampled",
        ),
        (
            "{train: 100}",
            "{train: 100, name: x}",
            "s.yaml:6: problems.name: a section is named by its key",
        ),
        ("items: 50", "baseline: ddpo", "s.yaml:5: study.baseline: 'ddpo' is no arm; did you mean \"dpo\"?"),
        ("seeds: [0, 1]", "seeds: [1, 1]", "s.yaml:5: study.seeds: the seeds must differ"),
        ("seed: 5", "sed: 5", 's.yaml:4: sed: unknown field; did you mean "seed"?'),
        ("{train: 100}", "3", "s.yaml:6: problems: must be a block of fields"),
        ("dpo:", "base:", "s.yaml:10: base: base is the name of the model before all stages"),
        ("dpo:", "shipped:", "s.yaml:10: shipped: shipped is the name of the data that comes with smolt"),
        ("dpo:", "sections:", "s.yaml:10: sections: write each section at the top, under its own name"),
        ("stage: sft,", "stage: [sft],", "s.yaml:17: sft_more.stage: unknown stage"),
    ],
)
def test_mistakes_in_a_study_name_their_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert message in refused(tmp_path, STUDY.replace(old, new, 1))


def test_all_mistakes_of_a_study_are_named_at_once(tmp_path: Path) -> None:
    """Of the study, of a section's `from` and its fields, of what is none; what a section takes over is said once."""
    text = "model: {path: m, threds: 2}\nlora: {rnk: 8}\nsft: {data: d, updates: two, bacht: 2}\ndpoo: {data: p}\n"
    text += "dpo: {data: p, from: grpo, name: x, bacht: 4, reward_model: sft}\n"
    places = ["1: model.threds", "2: lora.rnk", "3: sft.updates", "3: sft.bacht", "4: dpoo"]
    places += ["5: dpo.name", "5: dpo.from", "5: dpo.bacht", "5: dpo.reward_model"]
    said = refused(tmp_path, text).splitlines()
    assert sorted(": ".join(line.split(": ")[:2]) for line in said) == sorted(f"s.yaml:{place}" for place in places)


def test_inherited_mistakes_point_at_the_study(tmp_path: Path) -> None:
    """A study without a model, one without sections, and data that no section uses."""
    assert "model.path: missing" in refused(tmp_path, "study: {items: 1}\nsft: {data: d}\n")
    assert refused(tmp_path, "study: {items: 1}\n").startswith("s.yaml:1: a study needs a section: pretrain, sft")
    assert refused(tmp_path, "data: d\nproblems:\n") == "s.yaml:1: data: no section uses it; remove it"


def test_an_argument_makes_no_section(tmp_path: Path) -> None:
    message = refused(tmp_path, STUDY, "grpo.group=4")
    assert message.startswith("argument `grpo.group=4`: the study has no such section; known: name, model")


def test_a_study_from_python() -> None:
    recipe = make_recipe(
        "study", model="m", sft={"data": "d", "optim.lr": 1e-4}, dpo={"data": "p"}, **{"dpo.beta": 0.5}
    )
    assert isinstance(recipe, StudyRecipe)
    assert [section.recipe.model_dump().get("beta") for section in recipe.sections] == [None, 0.5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{}", "study.test: is missing"),
        ("{test: t.jsonl}", "study.reward: is missing"),
        ("{reward: gsm8k}", "study.test"),
    ],
)
@pytest.mark.parametrize(("section", "arm"), [("sft", "sft"), ("reward", "base")])  # without a policy base is measured
def test_arms_that_nobody_could_measure_are_refused_before_training(
    tmp_path: Path, section: str, arm: str, settings: str, message: str
) -> None:
    recipe = study(tmp_path, f"stage: study\nmodel: m\nstudy: {settings}\n{section}: {{data: d.jsonl}}\n")
    assert recipe.arms == [arm]
    with pytest.raises(UserError, match=message):
        recipe.require_exam()

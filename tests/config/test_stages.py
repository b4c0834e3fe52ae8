"""The recipe classes: defaults, ranges, shorthands and the combinations that make no sense."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from smolt.config import STAGE_RECIPES, StudyRecipe, make_recipe, recipe_hash
from smolt.config.complaints import _models
from smolt.errors import UserError

SHARED = {
    "stage",
    "name",
    "seed",
    "model",
    "lora",
    "optim",
    "budget",
    "data",
    "dev",
    "watch",
    "save",
    "sampling",
    "checks",
    "correction",
    "server",
}
NEEDED: dict[str, dict[str, Any]] = {
    "pretrain": {"data": "t.txt"},
    "sft": {"model": "m", "data": "d"},
    "reward": {"model": "m", "data": "d"},
    "dpo": {"model": "m", "data": "d"},
    "kto": {"model": "m", "data": "d"},
    "decide": {"model": "m", "data": "d"},
    "ppo": {"model": "m", "data": "d", "reward": "gsm8k"},
    "grpo": {"model": "m", "data": "d", "reward": "gsm8k"},
    "online_dpo": {"model": "m", "data": "d", "reward": "gsm8k"},
    "distill": {"model": "m", "data": "d", "teacher": "t"},
    "pairs": {"model": "m", "data": "d", "reward": "gsm8k"},
    "answers": {"model": "m", "data": "d"},
    "best_of_n": {"model": "m", "reward_model": "r"},
    "problems": {},
}


def recipe(stage: str, **values: Any) -> Any:
    return make_recipe(stage, **(NEEDED[stage] | values))


def refused(stage: str, **values: Any) -> str:
    with pytest.raises(UserError) as caught:
        recipe(stage, **values)
    return str(caught.value)


def all_blocks(block: type[BaseModel]) -> set[type[BaseModel]]:
    inner = [model for known in block.model_fields.values() for model in _models(known.annotation)]
    return {block}.union(*(all_blocks(model) for model in inner))


@pytest.mark.parametrize("stage", STAGE_RECIPES)
def test_at_most_ten_own_fields(stage: str) -> None:
    assert len(set(STAGE_RECIPES[stage].model_fields) - SHARED) <= 10


@pytest.mark.parametrize("stage", [*STAGE_RECIPES, "study"])
def test_every_field_is_described(stage: str) -> None:
    """Only `stage` speaks for itself."""
    blocks = all_blocks(STAGE_RECIPES.get(stage, StudyRecipe))
    silent = [f"{block.__name__}.{name}" for block in blocks for name, known in block.model_fields.items()]
    described = [f"{b.__name__}.{name}" for b in blocks for name, known in b.model_fields.items() if known.description]
    assert {name.split(".")[1] for name in set(silent) - set(described)} == {"stage"}


@pytest.mark.parametrize("stage", STAGE_RECIPES)
def test_dump_reads_back_equal(stage: str) -> None:
    """The manifest's JSON is the recipe: validating the dump gives an equal recipe with an equal hash."""
    first = recipe(stage)
    again = STAGE_RECIPES[stage].model_validate(first.model_dump(mode="json"))
    assert again == first
    assert recipe_hash(again) == recipe_hash(first)
    assert recipe_hash(recipe(stage, seed=1)) != recipe_hash(first)


def test_defaults_of_the_stages() -> None:
    """Dr. GRPO scale, token mean, G = 8, clip 0.2 / 0.28, beta 0.02; PPO 4 epochs, eps 1e-5, gamma 1, lam 0.95."""
    grpo, ppo = recipe("grpo"), recipe("ppo")
    assert (grpo.group, grpo.advantage.scale, grpo.reduction) == (8, "none", "token")
    assert (grpo.surrogate.low, grpo.surrogate.high, grpo.kl.beta) == (0.2, 0.28, 0.02)
    assert (ppo.inner.epochs, ppo.optim.eps, ppo.gae.gamma, ppo.gae.lam, ppo.clip) == (4, 1e-5, 1.0, 0.95, 0.2)
    assert (ppo.kl.coefficient, ppo.critic.lr_scale, ppo.critic.warmup) == (0.05, 5.0, 2)
    assert (recipe("dpo").beta, recipe("reward").centering, recipe("reward").gate) == (0.1, 0.01, True)
    assert (ppo.budget.updates, recipe("sft").budget.epochs) == (100, 1.0)


def test_a_given_field_keeps_the_other_stage_defaults() -> None:
    """`optim.lr` alone leaves PPO's eps at 1e-5; `budget.minutes` alone leaves 1 epoch but no count of rollouts."""
    assert recipe("ppo", optim={"lr": 1e-4}).optim.eps == 1e-5
    assert recipe("sft", budget={"minutes": 5}).budget.epochs == 1.0
    assert recipe("sft", budget={"updates": 5}).budget.epochs is None
    assert recipe("grpo", budget={"minutes": 5}).budget.updates is None


def test_numbers_as_people_write_them() -> None:
    """A quoted 1e-4 and a whole number pass for a float."""
    assert recipe("sft", optim={"lr": "1e-4", "clip": 2}).optim.lr == 1e-4
    assert type(recipe("sft", optim={"clip": 2}).optim.clip) is float


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("batch", True, "is true; must be a whole number"),
        ("batch", "8", "is '8'; must be a whole number"),
        ("batch", 8.0, "is 8.0; must be a whole number"),
        ("batch", 0, "is 0; must be greater than or equal to 1"),
        ("optim.lr", False, "must be a number, not true or false"),
        ("optim.lr", "fast", "must be a number"),
        ("optim.lr", float("nan"), "must be a finite number"),
        ("optim.lr", "inf", "must be a finite number"),
        ("optim.lr", 0, "is 0; must be greater than 0"),
        ("optim.betas", [0.9, 1.0], "optim.betas: must both lie in [0, 1)"),
        ("lora.targets", "q_proj", "must be all-linear or a list of module names"),
        ("lora.targets", [], "must be all-linear or a list of module names"),
        ("watch.best", "yes", "is 'yes'; must be true or false"),
        ("data.too_long", "cut", "is 'cut', must be one of 'error' or 'drop'"),
        ("data.path", "", "must not be empty"),
        ("data.path", "a\0b", "a path holds no zero byte"),
        ("model", 7, "is 7, must be a block of fields"),
        ("name", "../up", "a name is made of letters, digits"),
        ("seed", -1, "is -1; must be greater than or equal to 0"),
    ],
)
def test_wrong_values(field: str, value: object, reason: str) -> None:
    assert reason in refused("sft", **{field: value})
    assert field in refused("sft", **{field: value})


@pytest.mark.parametrize(
    ("stage", "values", "reason"),
    [
        ("sft", {"model.dtype": "fp16", "model.device": "cpu"}, "recipe sft: model: fp16 is not for the cpu"),
        ("pretrain", {"model.dtype": "fp16", "model.device": "cpu"}, "fp16 is not for the cpu"),
        ("ppo", {"lora.dropout": 0.1}, "lora: dropout is off where answers are sampled"),
        ("grpo", {"lora.dropout": 0.1}, "lora: dropout is off where answers are sampled"),
        ("grpo", {"group": 1}, "recipe grpo: group: a group of 1 has no baseline; give at least 2 (8 is usual)"),
        ("grpo", {"group": 0}, "group: must be at least 2"),
        (
            "grpo",
            {"inner.minibatches": 17},
            "inner.minibatches 17 exceeds prompts 16; lower inner.minibatches, or take more prompts",
        ),
        ("ppo", {"prompts": 2}, "exceeds prompts * samples = 2; lower inner.minibatches, or take more prompts"),
        ("ppo", {"budget.epochs": 1}, "budget: epochs do not apply: one update is one rollout; give updates"),
        ("grpo", {"budget.like": "sft"}, "budget.like is for sft in a study"),
        ("dpo", {"budget.like": "sft"}, "budget.like is for sft in a study"),
        ("sft", {"budget": {"updates": 1, "epochs": 1}}, "give one of updates and epochs, not 2; remove the other"),
        ("ppo", {"kl.mode": "adaptive"}, "mode adaptive needs a target"),
        ("ppo", {"kl.target": 3}, "target is for mode adaptive"),
        ("ppo", {"critic.start": "reward"}, "critic.start reward needs critic.path"),
        ("ppo", {"critic.path": "r"}, "path is for start: reward"),
        ("ppo", {"reward": "model"}, "reward model needs a path (a reward model directory)"),
        ("ppo", {"reward": {"name": "python"}}, "reward python needs a path (file.py:function)"),
        ("ppo", {"reward": []}, "reward.parts: is a list; tuple should have at least 1 item"),
        ("ppo", {"sampling.temperature": 0}, "sampling.temperature: is 0; must be greater than 0"),
        ("dpo", {"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing is for loss sigmoid"),
        ("dpo", {"loss": "simpo", "label_smoothing": 0.1}, "label_smoothing is for loss sigmoid and cpo"),
        ("dpo", {"gamma": 0.5}, "gamma is for loss simpo; remove it"),
        ("dpo", {"loss": "kto"}, "loss: "),
        ("decide", {"loss": "bier"}, "loss: "),
        ("kto", {"batch": 1}, "batch: is 1; must be greater than or equal to 2"),
        ("kto", {"undesirable_weight": 0}, "undesirable_weight: is 0; must be greater than 0"),
        ("grpo", {"keep_empty_groups": True, "advantage.resample": 1}, "advantage.resample replaces groups"),
        ("answers", {"endpoint": {"url": "http://h", "model": "x"}}, "give exactly one of model (on this machine)"),
        ("answers", {"least": 1}, "keep and least are about rated answers; give a reward or remove them"),
        ("answers", {"reward": "gsm8k", "keep": "all"}, "keep: all needs least"),
        ("online_dpo", {"samples": 1}, "samples: is 1; must be greater than or equal to 2"),
        ("online_dpo", {"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing is for loss sigmoid; remove it"),
        (
            "online_dpo",
            {"inner.minibatches": 17},
            "inner.minibatches 17 exceeds prompts 16; lower inner.minibatches, or take more prompts",
        ),
        ("distill", {"beta": 1.5}, "beta: is 1.5; must be less than or equal to 1"),
        ("distill", {"own": -0.1}, "own: is -0.1; must be greater than or equal to 0"),
        ("distill", {"teacher": {}}, "teacher.path: missing"),
        ("distill", {"budget.epochs": 1}, "budget: epochs do not apply: one update is one rollout; give updates"),
        ("dpo", {"label_smoothing": 0.5}, "label_smoothing: is 0.5; must be less than 0.5"),
        ("pretrain", {"shape.hidden": 100}, "hidden 100 must be a multiple of 2 * heads = 16"),
        ("pretrain", {"shape.kv_heads": 3}, "heads 8 must be a multiple of kv_heads 3"),
        ("pretrain", {"model.path": "m"}, "model.path: unknown field"),
    ],
)
def test_refused_combinations(stage: str, values: dict[str, Any], reason: str) -> None:
    assert reason in refused(stage, **values)


def test_dropout_is_fine_where_nothing_is_sampled() -> None:
    assert recipe("sft", **{"lora.dropout": 0.1}).lora.dropout == 0.1


@pytest.mark.parametrize("reward", ["gsm8k", ["gsm8k"], {"name": "gsm8k"}, {"parts": ["gsm8k"]}, [{"name": "gsm8k"}]])
def test_ways_to_write_one_reward(reward: object) -> None:
    """All five mean one part named gsm8k with weight 1."""
    assert [(part.name, part.weight) for part in recipe("grpo", reward=reward).reward.parts] == [("gsm8k", 1.0)]


def test_rewards_with_weights() -> None:
    parts = recipe("grpo", reward=["gsm8k", {"name": "format", "weight": 0.5}]).reward.parts
    assert [(part.name, part.weight) for part in parts] == [("gsm8k", 1.0), ("format", 0.5)]


def test_values_from_python(tmp_path: Path) -> None:
    """Paths, blocks and dotted names may be mixed: the dotted one reaches into the block."""
    first = recipe("sft", model=tmp_path, data=tmp_path / "d.jsonl", **{"optim.lr": 3e-4})
    assert first.model.path == str(tmp_path)
    again = recipe("dpo", model=first.model, optim=first.optim, **{"model.threads": 2, "optim.warmup": 4})
    assert (again.model.path, again.model.threads) == (str(tmp_path), 2)
    assert (again.optim.lr, again.optim.warmup) == (3e-4, 4)


def test_unknown_stage() -> None:
    with pytest.raises(UserError, match="unknown stage 'gpro'; did you mean \"grpo\""):
        make_recipe("gpro")


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        recipe("sft").batch = 3

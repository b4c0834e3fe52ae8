"""Files, overrides and the messages: `file:line: field: reason`, with the nearest name."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolt.config import PPORecipe, SFTRecipe, load_recipe
from smolt.errors import UserError

PPO = """\
model: {path: m}
data: d.jsonl
reward: gsm8k
kl:
  coefficient: 0.1
"""


def written(folder: Path, text: str) -> str:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(folder: Path, text: str, stage: str | None = "ppo", *overrides: str) -> str:
    path = written(folder, text)
    with pytest.raises(UserError) as caught:
        load_recipe(path, stage, overrides)
    return str(caught.value).replace(path, "x.yaml")


def ppo(folder: Path, *overrides: str, text: str = PPO) -> PPORecipe:
    recipe = load_recipe(written(folder, text), "ppo", overrides)
    assert isinstance(recipe, PPORecipe)
    return recipe


def test_unknown_field_names_line_and_nearest(tmp_path: Path) -> None:
    """Line 5 holds the misspelt field."""
    text = PPO.replace("coefficient", "coeficient")
    assert refused(tmp_path, text) == 'x.yaml:5: kl.coeficient: unknown field; did you mean "coefficient"?'


def test_a_field_of_another_block_is_found(tmp_path: Path) -> None:
    assert refused(tmp_path, PPO + "lr: 1e-4\n") == 'x.yaml:6: lr: unknown field; did you mean "optim.lr"?'


def test_without_a_near_name_all_are_listed(tmp_path: Path) -> None:
    message = refused(tmp_path, PPO + "save: {zzz: 1}\n")
    assert message == "x.yaml:6: save.zzz: unknown field; known: every, minutes, keep"


def test_missing_field(tmp_path: Path) -> None:
    assert refused(tmp_path, PPO.replace("reward: gsm8k", "")) == "x.yaml:1: reward: missing (what is rewarded)"
    nested = refused(tmp_path, PPO.replace("{path: m}", "{threads: 2}"))
    assert nested == "x.yaml:1: model.path: missing (a model or adapter directory, a GGUF file, or a hub name)"


def test_a_word_that_is_no_choice(tmp_path: Path) -> None:
    message = refused(tmp_path, PPO + "  mode: adaptve\n")
    assert message == (
        "x.yaml:6: kl.mode: is 'adaptve', must be one of 'fixed' or 'adaptive'; did you mean \"adaptive\"?"
    )


def test_all_mistakes_are_told_at_most_ten(tmp_path: Path) -> None:
    """Twelve unknown fields on lines 6 to 17: ten are named in order, two counted."""
    text = PPO + "".join(f"zz{index:02}: 1\n" for index in range(12))
    lines = refused(tmp_path, text).splitlines()
    assert len(lines) == 11
    assert [line.split(":")[1] for line in lines[:10]] == [str(line) for line in range(6, 16)]
    assert lines[10] == "x.yaml: and 2 more"


def test_a_message_holds_no_control_characters(tmp_path: Path) -> None:
    """An escape sequence in a key or value is shown escaped: no terminal obeys it."""
    message = refused(tmp_path, PPO + '"\\e[31mred": 1\ncritic: {start: "\\e[31m"}\n')
    assert "\x1b" not in message
    assert "\\x1b[31mred" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml:1: the file is empty"),
        ("- a", "x.yaml:1: must be a mapping, `field: value` on each line"),
        ("stage: pppo", 'x.yaml:1: stage: unknown stage; did you mean "ppo"?'),
        ("stage: [ppo]", "x.yaml:1: stage: unknown stage"),
        ("stage: dpo", "x.yaml:1: stage: this is a recipe for dpo; run `smolt dpo`, not ppo"),
        ("study: {items: 1}", "this is a recipe for study; run `smolt study`, not ppo"),
    ],
)
def test_files_that_are_no_ppo_recipe(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


def test_the_stage_may_be_in_the_file_or_given(tmp_path: Path) -> None:
    """With neither, the message lists the stages."""
    assert load_recipe(written(tmp_path, "stage: ppo\n" + PPO)).stage == "ppo"
    assert load_recipe(written(tmp_path, PPO), "ppo").stage == "ppo"
    assert refused(tmp_path, PPO, None).startswith("x.yaml:1: stage: missing; say which: pretrain, sft, reward, dpo")


def test_dotted_keys_and_the_stage_as_a_block(tmp_path: Path) -> None:
    """`kl.coefficient: 0.3`, and `ppo: {kl: ...}` as in a study; a mistake inside keeps its line."""
    assert ppo(tmp_path, text="model: m\ndata: d\nreward: gsm8k\nkl.coefficient: 0.3\n").kl.coefficient == 0.3
    assert ppo(tmp_path, text="model: m\ndata: d\nppo: {reward: gsm8k, clip: 0.3}\n").clip == 0.3
    message = refused(tmp_path, "model: m\ndata: d\nppo:\n  reward: gsm8k\n  clipp: 0.3\n")
    assert message == 'x.yaml:5: clipp: unknown field; did you mean "clip"?'
    twice = refused(tmp_path, PPO + "kl.coefficient: 0.3\n")
    assert twice == "x.yaml:6: kl.coefficient: given twice; remove one"


def test_overrides(tmp_path: Path) -> None:
    """Values are YAML; they reach into blocks, shorthands, lists and absent blocks; the stage's name may lead."""
    recipe = ppo(
        tmp_path,
        "kl.coefficient=2e-1",
        "data.limit=5",
        "ppo.clip=0.3",
        "lora.rank=4",
        "optim.betas=[0.5, 0.6]",
        "reward=[gsm8k, format]",
        "reward.1.weight=0.5",
        "model.path={sft}/model",
        "watch={every: 3}",
        "critic.clip=null",
    )
    assert (recipe.kl.coefficient, recipe.data.limit, recipe.data.path, recipe.clip) == (0.2, 5, "d.jsonl", 0.3)
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.optim.betas, recipe.optim.eps) == (4, (0.5, 0.6), 1e-5)
    assert [(part.name, part.weight) for part in recipe.reward.parts] == [("gsm8k", 1.0), ("format", 0.5)]
    assert (recipe.model.path, recipe.watch.every, recipe.critic.clip) == ("{sft}/model", 3, None)


def test_an_override_of_the_budget_takes_the_place_of_its_measure(tmp_path: Path) -> None:
    """The file's epochs give way to updates; two that were both asked for are refused."""
    text = "stage: sft\nmodel: m\ndata: d\nbudget: {epochs: 2, minutes: 5}\n"
    recipe = load_recipe(written(tmp_path, text), "sft", ["budget.updates=1"])
    assert isinstance(recipe, SFTRecipe)
    assert (recipe.budget.updates, recipe.budget.epochs, recipe.budget.minutes) == (1, None, 5)
    message = refused(tmp_path, text, "sft", "budget.updates=1", "budget.epochs=3")
    assert "give one of updates and epochs, not 2; remove the other or set it to null" in message


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("kl.coeficient=1", 'argument `kl.coeficient=1`: kl.coeficient: unknown field; did you mean "coefficient"?'),
        ("clip=2", "argument `clip=2`: clip: is 2; must be less than 1"),
        ("clip", "argument `clip`: write it as section.key=value"),
        ("=3", "argument `=3`: write it as section.key=value"),
        ("a..b=3", "argument `a..b=3`: write it as section.key=value"),
        ("kl.coefficient.x=3", "argument `kl.coefficient.x=3`: kl.coefficient has no fields"),
        ("stage=dpo", "argument `stage=dpo`: stage: this is a ppo recipe; its stage cannot be overridden"),
        ("clip=\x1b[31m", "argument `clip=\\x1b[31m`: the value holds a character that does not print"),
    ],
)
def test_wrong_overrides_name_the_argument(tmp_path: Path, argument: str, message: str) -> None:
    assert refused(tmp_path, PPO, "ppo", argument) == message


def test_an_override_into_a_list_needs_an_index(tmp_path: Path) -> None:
    text = PPO.replace("gsm8k", "[gsm8k]")
    for argument in ("reward.5.weight=1", "reward.x=1"):
        assert "a list with 1 items is reached by index, from 0" in refused(tmp_path, text, "ppo", argument)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such recipe file, and no shipped recipe of this name"):
        load_recipe("nowhere.yaml")
    with pytest.raises(UserError, match="no such recipe file"):
        load_recipe("a\0b")


WORDS = [
    "model",
    "data",
    "reward",
    "kl",
    "stage",
    "ppo",
    "sft",
    "from",
    "study",
    "lora",
    "path",
    "optim",
    "base",
    "name",
]
LIKELY = st.sampled_from([*WORDS, "1e-4", "{sft}/m"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), LIKELY)
KEYS = st.one_of(st.sampled_from([*WORDS, "kl.stop", "a.b.c"]), st.text(max_size=6))
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
STAGE_NAMES = st.sampled_from([None, "ppo", "sft", "study", "pretrain", "best_of_n"])


def only_user_errors(raw: bytes, stage: str | None, overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz.yaml"
        path.write_bytes(raw)
        try:
            load_recipe(path, stage, overrides)
        except UserError as error:
            assert str(error).isprintable() or "\n" in str(error)


@settings(max_examples=150, deadline=None, database=None)
@given(st.dictionaries(KEYS, TREES, max_size=6), STAGE_NAMES, st.lists(st.text(max_size=12), max_size=2))
def test_random_trees_give_a_recipe_or_a_user_error(
    tree: dict[str, object], stage: str | None, overrides: list[str]
) -> None:
    """JSON is YAML: 150 random mappings with the words recipes use, 0 tracebacks."""
    only_user_errors(json.dumps(tree).encode(), stage, overrides)


@settings(max_examples=100, deadline=None, database=None)
@given(st.binary(max_size=60) | st.text("ab: -[]{}&*!|>#\"'\n\t.1e", max_size=60).map(str.encode), STAGE_NAMES)
def test_random_text_gives_a_recipe_or_a_user_error(raw: bytes, stage: str | None) -> None:
    """100 random byte strings and YAML-like texts, 0 tracebacks."""
    only_user_errors(raw, stage, [])


@settings(max_examples=100, deadline=None, database=None)
@given(st.sampled_from(["kl", "model", "reward", "data", "reward.0", "sft.model", "ppo"]), KEYS, TREES)
def test_random_overrides_give_a_recipe_or_a_user_error(block: str, key: str, value: object) -> None:
    """100 random `block.key=value` on a good recipe, 0 tracebacks."""
    only_user_errors(PPO.encode(), "ppo", [f"{block}.{key}={value}"])

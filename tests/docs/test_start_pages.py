"""The start pages and the guide to studies: recipes and commands run as written, a tiny model in SmolLM2's place."""

import json
import shutil
from pathlib import Path

import pytest

from smolt.config import BestOfNRecipe, ProblemsRecipe, StudyRecipe, load_recipe
from smolt.config.sections import POLICIES
from smolt.config.study_recipe import STAGE_RECIPES
from smolt.report.pictures import plots
from smolt.statistics import compare_counts, family
from tests.docs.test_commands import documented, lines, names_of, run
from tests.docs.workshop import README, ROOT, blocks, table
from tests.gguf_files import write_gguf

START = ROOT / "docs" / "start"
STUDY = ROOT / "docs" / "guides" / "write-your-own-study.md"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
RECORD = ROOT / "bench" / "results" / "2026-11-25-quickstart.md"


TINY = [
    *("study.items=6", "study.sampling.max_tokens=8", "own_pairs.sampling.max_tokens=8", "own_pairs.data.limit=8"),
    *(f"{section}.budget.updates=1" for section in ("sft", "dpo", "dpo_alone", "second_dpo", "rejected")),
    "own_pairs.reward={name: length, options: {target: 3}}",
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures would take most of the time."""
    monkeypatch.setattr(plots, "draw", lambda *given: plots.Pictures())


def write_recipes(page: Path, folder: Path) -> None:
    """Each YAML block under the name in its first line."""
    for block in blocks(page, "yaml"):
        (folder / block.text.split()[1]).write_text(block.text.replace(SMOLLM2, "my-model"), encoding="utf-8")


def contained(part: object, whole: object) -> bool:
    """Whether every value of a nested block is the other's value at the same place."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and contained(value, whole[key]) for key, value in part.items())
    if isinstance(part, tuple) and isinstance(whole, tuple):
        return len(part) == len(whole) and all(map(contained, part, whole))
    return part == whole


def test_the_readmes_recipe_is_the_quickstarts(tmp_path: Path) -> None:
    """Twelve lines that load; the sections in their order, each value given is the shipped recipe's."""
    text = blocks(README, "yaml")[0].text
    assert len(text.splitlines()) == 12
    (tmp_path / "cut.yaml").write_text(text, encoding="utf-8")
    cut, whole = load_recipe(tmp_path / "cut.yaml", "study"), load_recipe("quickstart", "study")
    assert isinstance(cut, StudyRecipe) and isinstance(whole, StudyRecipe)
    assert [(s.name, s.source) for s in cut.sections] == [(s.name, s.source) for s in whole.sections]
    given, shipped = (recipe.model_dump(exclude_unset=True) for recipe in (cut, whole))
    assert contained({"model": given["model"], "study": given["study"]}, shipped)
    for mine, theirs in zip(given["sections"], shipped["sections"], strict=True):
        if mine["name"] == "best_of_n":
            del mine["recipe"]["sampling"]  # as many tokens as the study's, which is one of the sizes
        assert contained(mine["recipe"], theirs["recipe"]), mine["name"]


def test_the_readmes_sentences_are_those_of_the_record() -> None:
    """Made from the wins and regressions on record, after Holm over all nine comparisons."""
    rows = [row for row in table(RECORD, "b") if row]
    found = [compare_counts(a, b, "accuracy", int(wins), int(losses), 1000) for b, a, wins, losses, *_ in rows]
    sentences = [comparison.sentence for comparison in family(found)]
    assert len(sentences) == 9
    printed = blocks(README, "text")[0].text.splitlines()
    assert len(printed) == 3 and set(printed) <= set(sentences)


def test_the_readme_is_short() -> None:
    """What it shows, the command and what it printed stand in the first screen."""
    first = README.read_text(encoding="utf-8").splitlines()[:42]
    assert {"make quickstart   # installs into .venv, runs the whole main job, says where the report is"} <= set(first)
    assert any("about five minutes on two CPU cores" in line for line in first)
    assert sum(line.endswith("regressions).") or line.endswith("n = 1,000).") for line in first) == 3


def test_the_quickstart_is_what_its_page_says() -> None:
    """The sections of the smoke study, which a test below runs, with the numbers that the page gives."""
    quickstart, smoke = (load_recipe(name, "study") for name in ("quickstart", "smoke"))
    assert {section.name for section in quickstart.sections} == {section.name for section in smoke.sections}
    recipes = {section.name: section.recipe for section in quickstart.sections}
    problems, choice = recipes["problems"], recipes["best_of_n"]
    assert isinstance(problems, ProblemsRecipe) and isinstance(choice, BestOfNRecipe)
    text = " ".join((START / "quickstart.md").read_text(encoding="utf-8").split())
    assert f"{problems.demonstrations:,} solutions (most of them without their steps)" in text
    assert problems.brief > 0.5
    assert f"best-of-{choice.n} then answer the same {problems.test:,} unseen problems" in text


def test_the_quickstart_pages_study_runs(workshop: Path) -> None:
    """Exit code 0, and every file of the command line's table but those of parts; then it is said to be complete."""
    (command,) = lines(START / "quickstart.md")
    run(command)
    assert documented("name", 2) - {"*section*", "claims"} < names_of(workshop / "runs" / "smoke")
    assert "already complete" in run(command).output


def test_a_recipe_of_ones_own_runs(workshop: Path) -> None:
    """Exit code 0, one after the other, for one's own recipe, data and reward."""
    write_recipes(START / "own-model.md", workshop)
    (workshop / "my_reward.py").write_text("def brief(question, answer): return -answer.tokens / 100\n")
    write_gguf(workshop / "my-model", workshop / "SmolLM2-135M-Instruct.Q4_1.gguf")
    commands = lines(START / "own-model.md")
    assert [command.split()[1] for command in commands] == [
        *("doctor", "grpo", "eval", "merge", "chat", "import", "chat"),
    ]
    for command in commands:
        run(command, *(["sampling.max_tokens=8"] if command.split()[1] == "doctor" else []))  # for a window of 128
    assert names_of(workshop / "runs" / "mine") == documented("name", 1)


def test_the_first_alignment_runs(workshop: Path) -> None:
    """From the chat to the merged model; `smolt compare` says its sentence over the held-out pairs."""
    page = START / "first-alignment.md"
    write_recipes(page, workshop)
    assert set(json.loads(blocks(page, "json")[0].text)) == {"prompt", "chosen", "rejected"}
    shutil.copy("preferences.jsonl", "held-out.jsonl")
    commands = [command.replace(SMOLLM2, "my-model") for command in lines(page)]
    printed = {command: run(command).output for command in commands}
    assert [command.split()[1] for command in commands] == [
        *(
            "chat",
            "data",
            "doctor",
            "dpo",
            "sft",
            "eval",
            "eval",
            "compare",
            "compare",
            "eval",
            "eval",
            "merge",
            "chat",
        ),
    ]
    assert "after against before, accuracy" in printed["smolt compare runs/before runs/after"]
    by_margin = json.loads(run("smolt compare runs/before runs/after --metric margin", "--json").stdout)
    assert (by_margin["metric"], by_margin["n"]) == ("margin", json.loads(run(commands[7], "--json").stdout)["n"])
    assert (workshop / "my-first-model" / "model.safetensors").is_file()


def test_the_study_of_the_guide_runs(workshop: Path, quick: None) -> None:
    """Sources, arms and roles are those of the page, with one seed and with two."""
    write_recipes(STUDY, workshop)
    study = load_recipe("my-study.yaml", "study")
    assert isinstance(study, StudyRecipe)
    sources = {section.name: section.source for section in study.sections}
    assert (sources["dpo"], sources["dpo_alone"], sources["second_dpo"]) == ("sft", "base", "dpo")
    assert [command.split()[1] for command in lines(STUDY)] == ["recipe", "study"]
    run(lines(STUDY)[0])
    seeds = blocks(STUDY, "sh")[1].text.strip()
    for command in (lines(STUDY)[1], seeds):
        run(command, *TINY)
    record = json.loads((workshop / "runs" / "my-study" / "record.json").read_text(encoding="utf-8"))
    roles = {arm["name"]: arm["role"] for arm in record["arms"]}
    assert set(roles) == {"base", "sft", "dpo", "dpo_alone", "second_dpo", "rejected"}
    assert [name for name, role in roles.items() if role == "control"] == ["rejected"]
    assert {"seed-0", "seed-1"} <= names_of(workshop / "runs" / "two-seeds")


def test_the_stages_of_the_guide_are_those_there_are() -> None:
    """The first column names every stage of a study; `from:` takes those that the page says."""
    stages = {name.strip(" `") for row in table(STUDY, "stage") for name in row[0].split(",")}
    assert stages == set(STAGE_RECIPES)
    text = STUDY.read_text(encoding="utf-8")
    assert "stage is `pretrain`, `sft`, `dpo`, `kto`, `decide`, `ppo`, `grpo`, `online_dpo` or `distill`" in " ".join(
        text.split()
    )
    assert POLICIES == ("pretrain", "sft", "dpo", "kto", "decide", "ppo", "grpo", "online_dpo", "distill")

"""A study's recipe is read, expanded and resolved once, however often its sections are asked for."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from smolt.config import StudyRecipe, load_recipe, sections
from smolt.config.blocks import Block
from smolt.study.places import Places

STUDY = """\
model: start
study: {seeds: [0, 1]}
problems: {train: 10}
sft: {data: "{problems}/demonstrations.jsonl", optim.lr: 1e-4}
grpo: {data: "{problems}/train.jsonl", reward: gsm8k, kl.beta: 0.1}
"""


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each class validated values."""
    counted: Counter[str] = Counter()
    original = Block.model_validate.__func__  # type: ignore[attr-defined]  # the function below the class method

    def counting(kind: type[Block], *values: Any, **options: Any) -> Any:
        counted[kind.__name__] += 1
        return original(kind, *values, **options)

    monkeypatch.setattr(Block, "model_validate", classmethod(counting))
    return counted


def opened(folder: Path, *overrides: str) -> StudyRecipe:
    (folder / "s.yaml").write_text(STUDY)
    return load_recipe(folder / "s.yaml", "study", overrides)


def test_reading_validates_each_section_once(tmp_path: Path, validated: Counter[str]) -> None:
    opened(tmp_path)
    assert validated == {"StudyRecipe": 1, "ProblemsRecipe": 1, "SFTRecipe": 1, "GRPORecipe": 1, "Section": 3}


def test_reading_expands_the_study_and_each_section_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four blocks: the study's own fields and its three sections."""
    places = []
    expand = sections.expand_dotted

    def noted(body: dict[str, Any], origin: Any, at: Any, keep_blocks: bool = False) -> dict[str, Any]:
        places.append(at)
        return expand(body, origin, at, keep_blocks)

    monkeypatch.setattr(sections, "expand_dotted", noted)
    recipe = opened(tmp_path, "grpo.kl.beta=0.2")
    assert places == [(), ("problems",), ("sft",), ("grpo",)]
    assert recipe.sections[2].recipe.model_dump()["kl"]["beta"] == 0.2


def test_a_whole_section_as_an_argument_may_have_dotted_fields(tmp_path: Path) -> None:
    recipe = opened(tmp_path, "grpo={data: d, reward: gsm8k, kl.beta: 0.3}")
    assert recipe.sections[2].recipe.model_dump()["kl"]["beta"] == 0.3


def test_paths_are_resolved_once_a_seed(tmp_path: Path, validated: Counter[str]) -> None:
    """Every section for each of two seeds, whether it is asked for never or a hundred times."""
    recipe = opened(tmp_path)
    validated.clear()
    places = Places(recipe, tmp_path)
    for _ in range(50):
        for section in recipe.sections:
            assert str(tmp_path / "seed-1") in str(places.seeded(section, 1)) or section.name == "problems"
            assert places.settings[1].baseline == "sft"
    assert validated == {"StudySettings": 2, "ProblemsRecipe": 2, "SFTRecipe": 2, "GRPORecipe": 2}
    assert [places.seeded(recipe.sections[1], seed).seed for seed in (0, 1)] == [0, 1]

"""Where things lie in a study's directory: a run directory a section, with several seeds a set of them a seed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from smolt.config import REWARDED, RewardMix, Section, StudyRecipe, section_references, with_directories
from smolt.data import Decision, load
from smolt.errors import UserError
from smolt.evaluation.suites import answers_file
from smolt.runs import jsontext
from smolt.runs.rated_answers import RatedAnswer, read_rated

ANSWERS = "evaluation.jsonl"
CANDIDATES = "candidates.jsonl"
"""All n answers of a best-of-n arm to the final questions."""


class Places:
    """A study's recipe, with the sections' directories in place of their names, and the directory that holds all of it.

    Attributes:
        recipe: as it was written.
        out: the study's directory.
        settings: seed -> how the arms are measured.
    """

    def __init__(self, recipe: StudyRecipe, out: Path) -> None:
        self.recipe = recipe
        self.out = out
        self.settings = {seed: with_directories(recipe.study, self.folders(seed)) for seed in recipe.study.seeds}
        self._recipes = {
            (section.name, seed): with_directories(section.recipe, self.folders(seed))
            for seed in recipe.study.seeds
            for section in recipe.sections
        }

    def folder(self, name: str, seed: int) -> Path:
        """The run directory of a section; with several seeds each has a set of its own."""
        several = len(self.recipe.study.seeds) > 1
        return self.out / f"seed-{seed}" / name if several else self.out / name

    def folders(self, seed: int) -> dict[str, Path]:
        """All sections' directories."""
        return {section.name: self.folder(section.name, seed) for section in self.recipe.sections}

    def seeded(self, section: Section, seed: int) -> Any:
        """A section's own recipe as it runs: with directories, and with its seed moved by the study's."""
        recipe: Any = self._recipes[section.name, seed]
        return recipe.model_copy(update={"seed": recipe.seed + seed})

    def result(self, name: str, seed: int) -> dict[str, Any]:
        """What a finished section left."""
        return jsontext.read_object(self.folder(name, seed) / "result.json")

    def section(self, name: str) -> Section | None:
        """The section of an arm; None for the base model."""
        return next((section for section in self.recipe.sections if section.name == name), None)

    def parent(self, section: Section) -> str:
        """The section whose model this one begins from, by `from:` or by `model: "{section}"`; else "base"."""
        model = getattr(section.recipe, "model", None)
        named = set() if model is None else section_references(model)
        return next((entry.name for entry in self.recipe.sections if entry.name in named), section.source)

    def model_path(self, name: str, seed: int) -> str:
        """Where an arm's model lies; best-of-n's is its source's."""
        section = self.section(name)
        if section is None:
            if self.recipe.model is None:
                raise UserError("study.baseline: there is no base model; name a section")
            return self.recipe.model.path
        if section.recipe.stage == "best_of_n":
            return self.model_path(self.parent(section), seed)
        return str(self.folder(name, seed) / "model")

    @property
    def exam_files(self) -> list[str]:
        """The files that every arm's answers go to: the final questions', and each suite's."""
        suites = self.recipe.study.suites
        return [ANSWERS, *(answers_file(name) for name in (suites.names if suites else []))]

    def measured(self, name: str, seed: int, file: str) -> list[Path]:
        """What measuring an arm makes for one of the files."""
        section, folder = self.section(name), self.folder(name, seed)
        chooses = section is not None and section.recipe.stage == "best_of_n" and file == ANSWERS
        return [folder / file, *([folder / CANDIDATES] if chooses else [])]

    def reward(self, seed: int) -> RewardMix:
        """Who rates: study.reward, else what the first section that learns from a reward has."""
        settled = self.settings[seed].reward
        if settled is not None:
            return settled
        for section in self.recipe.sections:
            recipe: Any = self.seeded(section, seed)
            if section.recipe.stage in REWARDED:
                found: RewardMix = recipe.reward
                return found
        raise AssertionError("a recipe with arms has a reward")

    def decisions(self, seed: int) -> list[Decision]:
        """What the arms decide."""
        settings = self.settings[seed]
        return [] if settings.decisions is None else load(settings.decisions, "decisions").records[: settings.items]

    def answers(self, name: str, file: str = ANSWERS) -> list[RatedAnswer]:
        """An arm's rated answers of all seeds; none where it was asked nothing."""
        found = [(seed, self.folder(name, seed) / file) for seed in self.recipe.study.seeds]
        return [replace(item, seed=seed) for seed, path in found if path.is_file() for item in read_rated(path)]

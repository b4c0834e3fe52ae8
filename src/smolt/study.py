"""A study: every section of a recipe in turn, every arm measured on the same questions, one report.

Each section has a run directory of its own under the study's, each arm's answers lie beside its model, and whatever is
whole is not done again: the same command continues where it stopped.
"""

import gc
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from smolt.algorithms import STAGES
from smolt.algorithms.sft import sft
from smolt.config import (
    BestOfNRecipe,
    PairsRecipe,
    ProblemsRecipe,
    RewardMix,
    Section,
    SFTRecipe,
    StudyRecipe,
    StudySettings,
    recipe_hash,
    with_directories,
)
from smolt.errors import UserError
from smolt.evaluation import Exam, best_of_n, kl_to, open_exam, read_items, take, write_items
from smolt.fitting import Metrics
from smolt.generated import write_generated
from smolt.models import Policy
from smolt.origins import other_inputs, package_versions
from smolt.pairs import make_pairs
from smolt.panels import Panel, read_panel, read_panels
from smolt.preparation import Ground, open_ground
from smolt.report import Arm, Item, StudyRecord, write_report
from smolt.report.analysis import analyse
from smolt.runs import Interrupts, Run
from smolt.runs.jsontext import decode_object
from smolt.saving import load_policy
from smolt.suites import answers_file, held_out_measures, origins_of_run, refuse_dependent, suite_exams, suite_panels
from smolt.training import Interrupted, Training, drive

Progress = Callable[[Training, Metrics], None]
ANSWERS = "evaluation.jsonl"
MEASURED = ("sft", "dpo", "ppo", "grpo", "best_of_n")
TRAINED_ONLY = ("pretrain", "reward")
"""Stages whose models answer no question of the evaluation: the report has their cost, curves and own figures."""


def run_study(
    recipe: StudyRecipe, *, out: Path, fresh: bool = False, progress: Progress = lambda training, metrics: None
) -> dict[str, Any]:
    """Run or continue a study.

    Args:
        recipe: the study.
        out: its directory.
        fresh: set an existing study there aside.
        progress: called after each update of each stage.

    Returns:
        status ("complete" or "already complete"), verdicts, measures of each arm.

    Raises:
        UserError: the recipe, its data or its model are wrong.
        Interrupted: Ctrl-C or SIGTERM; the same command continues.
    """
    out = out.resolve()  # the sections' recipes name each other's directories
    manifest = {
        "stage": "study",
        "recipe": recipe.model_dump(mode="json"),
        "recipe_hash": recipe_hash(recipe),
        "data": None,
        "model": None,
        "renderer": None,
        "versions": package_versions(),
        "threads": torch.get_num_threads(),
    }
    with Run.open(out, manifest=manifest, fresh=fresh) as run:
        if run.status == "complete":
            return {**(run.result or {}), "status": "already complete"}
        with Interrupts() as interrupts:
            study = Study(recipe, out, progress, interrupts)
            for seed in recipe.study.seeds:
                study.train_and_measure(seed)
        record = study.record()
        write_report(out, record)
        analysis = analyse(record)
        summary = {
            "arms": {
                name: {metric: measure.value for metric, measure in measures.items()}
                for name, measures in analysis.measures.items()
            },
            "verdicts": analysis.verdicts,
        }
        run.complete(summary)
        return {**summary, "status": "complete"}


@dataclass
class Study:
    """A study at work."""

    recipe: StudyRecipe
    out: Path
    progress: Progress
    interrupts: Interrupts

    def folder(self, name: str, seed: int) -> Path:
        """The run directory of a section; with several seeds each has a set of its own."""
        several = len(self.recipe.study.seeds) > 1
        return self.out / f"seed-{seed}" / name if several else self.out / name

    def folders(self, seed: int) -> dict[str, Path]:
        """All sections' directories."""
        return {section.name: self.folder(section.name, seed) for section in self.recipe.sections}

    def train_and_measure(self, seed: int) -> None:
        """Every section, then every arm's answers."""
        for section in self.recipe.sections:
            self._check_raters(seed)
            recipe: Any = self._seeded(section, seed)
            folder = self.folder(section.name, seed)
            if isinstance(recipe, ProblemsRecipe):
                self._alone(folder, recipe, lambda at, of: write_generated(at, of))
            elif isinstance(recipe, PairsRecipe):
                self._alone(folder, recipe, lambda at, of: make_pairs(of, at, self._tell))
            elif not isinstance(recipe, BestOfNRecipe):
                self._train(section, recipe, folder, seed)
            gc.collect()
            self._pause(folder)
        self._check_raters(seed)
        self._measure(seed)

    def _check_raters(self, seed: int) -> None:
        """Raters that an arm was trained against, or on whose pairs, are refused as soon as that is seen."""
        suites = with_directories(self.recipe.study, self.folders(seed)).suites
        if suites is not None and suites.raters:
            parts = [(self.folder(section.name, seed), section) for section in self.recipe.sections]
            arms = [(folder, section) for folder, section in parts if section.recipe.stage != "reward"]
            learned = {section.name: origins_of_run(self._seeded(section, seed), folder) for folder, section in arms}
            refuse_dependent(suites, learned)

    def _seeded(self, section: Section, seed: int) -> Any:
        recipe = with_directories(section.recipe, self.folders(seed))
        return recipe.model_copy(update={"seed": recipe.seed + seed})

    def _alone(self, folder: Path, recipe: Any, work: Callable[[Path, Any], dict[str, Any]]) -> None:
        """A section that makes data: done once, whole or not at all."""
        manifest = {"recipe": recipe.model_dump(mode="json"), "data": None, "model": None, "renderer": None}
        with Run.open(folder, manifest=manifest) as run:
            if run.status != "complete":
                run.complete(work(folder, recipe))

    def _train(self, section: Section, recipe: Any, folder: Path, seed: int) -> None:
        if Run.finished(folder, recipe.model_dump(mode="json")) is not None:
            return
        if isinstance(recipe, SFTRecipe) and recipe.budget.like:
            seconds = float(self.result(recipe.budget.like, seed)["training_seconds"])
            training = sft(recipe, out=folder, seconds=seconds)
        else:
            training = STAGES[section.recipe.stage](recipe, out=folder)
        drive(training, self.interrupts, self.progress)

    def _tell(self, done: int, total: int) -> None:
        """Between two batches of questions: leave when asked to; answers that are not whole are asked again."""
        self._pause(self.out)

    def _pause(self, at: Path) -> None:
        if self.interrupts.exit_code is not None:
            raise Interrupted(self.interrupts.exit_code, at)

    def result(self, name: str, seed: int) -> dict[str, Any]:
        """What a finished section left."""
        path = self.folder(name, seed) / "result.json"
        return decode_object(path.read_bytes(), str(path))

    def arms(self) -> list[str]:
        """Names of what is measured: the base model where it is the baseline, then every section with a policy."""
        base = ["base"] if self.recipe.study.baseline == "base" else []
        return base + [section.name for section in self.recipe.sections if section.recipe.stage in MEASURED]

    def section(self, name: str) -> Section | None:
        """The section of an arm; None for the base model."""
        return next((section for section in self.recipe.sections if section.name == name), None)

    def model_path(self, name: str, seed: int) -> str:
        """Where an arm's model lies; best-of-n's is its source's."""
        section = self.section(name)
        if section is None:
            if self.recipe.model is None:
                raise UserError("study.baseline: there is no base model; name a section")
            return self.recipe.model.path
        if section.recipe.stage == "best_of_n":
            return self.model_path(section.source, seed)
        return str(self.folder(name, seed) / "model")

    def _measure(self, seed: int) -> None:
        suites = self.recipe.study.suites
        files = [ANSWERS, *(answers_file(name) for name in (suites.names if suites else []))]
        exams: dict[str, Exam] = {}
        for name in self.arms():
            folder = self.folder(name, seed)
            for file in files:
                if (folder / file).is_file():
                    continue
                ground = self._ground(name, seed)
                exams = exams or self._exams(ground, seed)
                items = self._items(name, exams[file], ground, seed, with_kl=file == ANSWERS)
                folder.mkdir(parents=True, exist_ok=True)
                write_items(folder / file, items)
                gc.collect()
                self._pause(self.out)

    def _ground(self, name: str, seed: int) -> Ground:
        """The arm's model, computed as its section's recipe says."""
        section = self.section(name)
        recipe: Any = self.recipe if section is None else section.recipe
        path = self.model_path(name, seed)
        return open_ground(recipe.model.model_copy(update={"path": path}))

    def _exams(self, ground: Ground, seed: int) -> dict[str, Exam]:
        """What every arm answers, by the file its answers go to: the final questions, and each suite."""
        settings = with_directories(self.recipe.study, self.folders(seed))
        exam = self._exam(settings, ground, seed)
        return {ANSWERS: exam} | (suite_exams(settings.suites, exam, ground) if settings.suites else {})

    def _exam(self, settings: StudySettings, ground: Ground, seed: int) -> Exam:
        if settings.test is None:
            raise UserError("study.test: is missing: name the final questions (a file the training never sees)")
        reward = settings.reward or self._trained_reward(seed)
        return open_exam(ground, settings.test, reward, settings.sampling, settings.samples, seed, settings.items)

    def _trained_reward(self, seed: int) -> RewardMix:
        for section in self.recipe.sections:
            recipe: Any = self._seeded(section, seed)
            if section.recipe.stage in ("grpo", "ppo"):
                found: RewardMix = recipe.reward
                return found
        raise UserError("study.reward: is missing: no ppo or grpo section has one to measure the arms with")

    def _items(self, name: str, exam: Exam, ground: Ground, seed: int, with_kl: bool) -> list[Item]:
        section = self.section(name)
        policy = load_policy(self.model_path(name, seed), ground.precision)
        if section is not None and section.recipe.stage == "best_of_n":
            recipe: Any = self._seeded(section, seed)
            return best_of_n(exam, recipe, policy, ground, self._tell)
        items = take(exam, policy, ground, self._tell)
        baseline = self.recipe.study.baseline
        if not with_kl or name == baseline:
            return items
        if self._ground(baseline, seed).renderer.fingerprint != ground.renderer.fingerprint:
            return items  # where the two do not share their tokens there is no KL
        reference = load_policy(self.model_path(baseline, seed), ground.precision)
        if shape_of(reference) != shape_of(policy):
            return items  # another model altogether: it did not move away from this one
        apart = kl_to(reference, policy, exam, ground)
        return [
            replace(item, kl=apart[index // exam.samples])
            if index % exam.samples == 0 and index // exam.samples < len(apart)
            else item
            for index, item in enumerate(items)
        ]

    def record(self) -> StudyRecord:
        """Everything the report is generated from."""
        seeds = self.recipe.study.seeds
        arms = [self._arm(name) for name in self.arms()]
        arms += [self._arm(section.name) for section in self.recipe.sections if section.recipe.stage in TRAINED_ONLY]
        judged = any(item.correct is not None for arm in arms for item in arm.items)
        events = [
            f"{arm.name}, update {row['step']}: {event}"
            for arm in arms
            for row in arm.curve
            for event in [*row.get("events", []), *([row["stop"]] if "stop" in row else [])]
        ]
        return StudyRecord(
            name=self.recipe.name,
            arms=arms,
            baseline=self.recipe.study.baseline,
            metric="reward" if self.recipe.study.metric == "reward" or not judged else "accuracy",
            provenance={
                "recipe": self.recipe.model_dump(mode="json"),
                "recipe_hash": recipe_hash(self.recipe),
                "versions": package_versions(),
                "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
                "seeds": list(seeds),
                "test": self._test_hashes(),
            },
            events=events,
            notes=[],
            panels=self._panels(),
        )

    def _test_hashes(self) -> dict[str, str]:
        """SHA-256 of what the arms were measured with, by field: the questions, a scorer."""
        settings = with_directories(self.recipe.study, self.folders(self.recipe.study.seeds[0]))
        return other_inputs({"study": settings.model_dump(mode="json")})

    def _panels(self) -> list[Panel]:
        """What audits found in the sections, what these found on their way, and the suites; all with the first seed."""
        folders = self.folders(self.recipe.study.seeds[0])
        found = [panel for folder in folders.values() for panel in read_panels(folder)]
        for folder in folders.values():
            if (folder / "result.json").is_file():
                result = decode_object((folder / "result.json").read_bytes(), "result.json")
                found += [read_panel(panel) for panel in result.get("panels", [])]
        suites = with_directories(self.recipe.study, folders).suites
        if suites is not None:
            found += suite_panels(suites, self.arms(), self.recipe.study.baseline, self._answers)
        return found

    def _answers(self, name: str, file: str) -> list[Item]:
        """An arm's rated answers of all seeds."""
        found = [(seed, self.folder(name, seed) / file) for seed in self.recipe.study.seeds]
        return [replace(item, seed=seed) for seed, path in found if path.is_file() for item in read_items(path)]

    def _arm(self, name: str) -> Arm:
        section, seeds = self.section(name), self.recipe.study.seeds
        items = self._answers(name, ANSWERS)
        recipe = None if section is None else section.recipe
        if section is None or isinstance(recipe, BestOfNRecipe):
            facts = {"n": recipe.n, "chosen by": recipe.reward_model} if isinstance(recipe, BestOfNRecipe) else {}
            role: Any = "baseline" if name == self.recipe.study.baseline else "candidate"
            parent = None if section is None else section.source
            return Arm(
                name=name,
                stage="base" if section is None else "best_of_n",
                parent=parent,
                items=items,
                facts=facts,
                role=role,
            )
        results = [self.result(name, seed) for seed in seeds]
        rows = read_rows(self.folder(name, seeds[0]) / "metrics.jsonl")
        return Arm(
            name=name,
            stage=section.recipe.stage,
            parent=section.source,
            items=items,
            curve=rows,
            cost={
                "seconds": sum(result["training_seconds"] for result in results) / len(results),
                "tokens": float(sum(row.get("tokens", 0) for row in rows)),
                "peak_memory": float(max(result["peak_memory"] for result in results)),
            },
            facts=results[0].get("facts", {}) | hashes(self.folder(name, seeds[0])),
            extra_measures=held_out_measures(results[0]),
            role=self._role(section),
        )

    def _role(self, section: Section) -> Any:
        if section.name == self.recipe.study.baseline:
            return "baseline"
        if section.recipe.stage in TRAINED_ONLY:
            return "component"
        parent = self.section(section.source)
        imitates_on = isinstance(section.recipe, SFTRecipe) and parent and isinstance(parent.recipe, SFTRecipe)
        return "control" if imitates_on else "candidate"


def hashes(folder: Path) -> dict[str, Any]:
    """From a section's manifest: SHA-256 of its data, of the model it began from, and of template and tokenizer."""
    path = folder / "manifest.json"
    manifest = decode_object(path.read_bytes(), str(path)) if path.is_file() else {}
    found = {"data": manifest.get("data"), "model": manifest.get("model"), "template": manifest.get("renderer")}
    return {"sha256": {name: value for name, value in found.items() if value}}


def shape_of(policy: Policy) -> tuple[int, int]:
    """Width and depth of a policy's network."""
    config = policy.trunk.network.config
    return int(config.hidden_size), int(config.num_hidden_layers)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file."""
    if not path.is_file():
        return []
    with path.open("rb") as lines:
        return [decode_object(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]

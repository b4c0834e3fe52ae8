"""A study: every section of a recipe in turn, every arm measured on the same questions, one report.

Each section has a run directory of its own under the study's, each arm's answers lie beside its model, and whatever is
whole is not done again: the same command continues where it stopped.
"""

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from smolt import processes
from smolt.config import (
    AnswersRecipe,
    BestOfNRecipe,
    Model,
    PairsRecipe,
    ProblemsRecipe,
    Section,
    SFTRecipe,
    StudyRecipe,
    StudySettings,
    recipe_hash,
)
from smolt.data.generated import write_generated
from smolt.evaluation.decided.asked_decisions import opened
from smolt.evaluation.decided.decision_subject import CHUNK
from smolt.evaluation.exam import Exam, best_of_n, kl_to, open_exam, take
from smolt.evaluation.suites import origins_of_run, refuse_dependent, suite_exams
from smolt.models.forward.process_group import join
from smolt.models.ground import Ground, open_ground
from smolt.models.items import require_expected
from smolt.models.roles import Policy
from smolt.models.saving import load_policy
from smolt.preferences.demonstrations import make_demonstrations
from smolt.preferences.own_answers import make_pairs
from smolt.report.analysis import analyse
from smolt.report.report import write_report
from smolt.report.sections.length import cut_short
from smolt.rewards.build import rules_alone
from smolt.rewards.shorthand import look_for_rewards
from smolt.runs import Interrupts, Run, inventory
from smolt.runs.identity import MANIFEST, differences_of, normal, package_versions, read_manifest
from smolt.runs.locks import acquire
from smolt.runs.rated_answers import RatedAnswer, write_rated
from smolt.study.job_claims import refuse_parts, remove_claims
from smolt.study.places import ANSWERS, CANDIDATES, Places
from smolt.study.study_record import record_of
from smolt.training.algorithms import STAGES
from smolt.training.algorithms.sft import sft
from smolt.training.fit import Metrics
from smolt.training.stage import Interrupted, Training, drive

LOG = logging.getLogger(__name__)
Progress = Callable[[Training, Metrics], None]


def run_study(
    recipe: StudyRecipe, *, out: Path, fresh: bool = False, progress: Progress = lambda training, metrics: None
) -> dict[str, Any]:
    """Run or continue a study.

    Args:
        recipe: the study.
        out: its directory.
        fresh: set an existing study there aside.
        progress: called when a stage begins, without metrics, and after each of its updates.

    Returns:
        status ("complete" or "already complete"), verdicts, warnings, measures of each arm.

    Raises:
        UserError: the recipe, its data or its model are wrong.
        Interrupted: Ctrl-C or SIGTERM; the same command continues.
    """
    join()
    out = out.resolve()  # the sections' recipes name each other's directories
    places = Places(recipe, out)
    written = recipe.model_dump(mode="json")
    if fresh or Run.finished(out, written) is None:
        look_for_rewards(recipe)
        recipe.require_exam()
    manifest = manifest_of(recipe)
    processes.by_first(lambda: refuse_parts(out))
    if not fresh:
        processes.by_first(lambda: forget_other_answers(places, manifest))
    with Run.open(out, manifest=manifest, fresh=fresh) as run:
        if run.status == "complete":
            return {**(run.result or {}), "status": "already complete"}
        with Interrupts() as interrupts:
            study = Study(places, progress, interrupts)
            for seed in recipe.study.seeds:
                for section in recipe.sections:
                    study.make(section, seed)
                study.measure(recipe.arms, seed)
        return {**conclude(places, run), "status": "complete"}


def manifest_of(recipe: StudyRecipe) -> dict[str, Any]:
    """The manifest of a study's directory."""
    return {
        "stage": "study",
        "recipe": recipe.model_dump(mode="json"),
        "recipe_hash": recipe_hash(recipe),
        "data": None,
        "model": None,
        "renderer": None,
        "versions": package_versions(),
        "threads": torch.get_num_threads(),
    }


def forget_other_answers(places: Places, manifest: dict[str, Any]) -> None:
    """In a study that is not complete, answers that were measured for another recipe are to be made again.

    Sections look after themselves: each refuses what was begun with another recipe of its own.

    Raises:
        DirectoryInUse: another process works in it.
    """
    out = places.out
    if not (out / MANIFEST).is_file() or (out / inventory.RESULT).is_file():
        return
    if not differences_of(read_manifest(out), normal(manifest)):
        return
    lock = acquire(out)  # the seals go before the manifest changes: killed between the two, nothing is mixed
    try:
        for seed in places.recipe.study.seeds:
            for arm in places.recipe.arms:
                for path in [path for file in places.exam_files for path in places.measured(arm, seed, file)]:
                    inventory.unseal(path)
    finally:
        lock.release()


def conclude(places: Places, run: Run) -> dict[str, Any]:
    """The report of a study in which all is made and measured; its verdicts and measures."""
    summary = processes.by_first(lambda: reported(places))
    run.complete(summary)
    processes.by_first(lambda: remove_claims(places.out))
    return summary


def reported(places: Places) -> dict[str, Any]:
    """Write the report; its verdicts, measures and whose answers were cut."""
    record = record_of(places)
    analysis = analyse(record)
    write_report(places.out, record, analysis)
    return {
        "arms": {
            name: {metric: measure.value for metric, measure in measures.items()}
            for name, measures in analysis.measures.items()
        },
        "verdicts": analysis.verdicts,
        "warnings": cut_short(analysis.measures),
    }


@dataclass
class Study:
    """A study at work: it trains and measures; what is where is its places' business.

    Attributes:
        places: of the study.
        progress: as of `run_study`.
        interrupts: asked between two updates, two sections and two batches of questions.
        still_ours: raises where another process has taken over; called as often.
    """

    places: Places
    progress: Progress
    interrupts: Interrupts
    still_ours: Callable[[], None] = lambda: None

    def make(self, section: Section, seed: int) -> None:
        """A section's data or model; what is whole is left as it is."""
        self.check_raters(seed)
        recipe: Any = self.places.seeded(section, seed)
        folder = self.places.folder(section.name, seed)
        if isinstance(recipe, ProblemsRecipe):
            self._alone(folder, recipe, lambda at, of: processes.by_first(lambda: write_generated(at, of)))
        elif isinstance(recipe, PairsRecipe):
            self._alone(folder, recipe, lambda at, of: make_pairs(of, at, self._tell))
        elif isinstance(recipe, AnswersRecipe):
            self._alone(folder, recipe, lambda at, of: make_demonstrations(of, at, self._tell))
        elif not isinstance(recipe, BestOfNRecipe):
            self._train(section, recipe, folder, seed)
        gc.collect()
        self._pause(folder)

    def check_raters(self, seed: int) -> None:
        """Raters that an arm was trained against, or on whose pairs, are refused as soon as that is seen."""
        suites = self.places.settings[seed].suites
        if suites is not None and suites.raters:
            arms = [section for section in self.places.recipe.sections if section.recipe.stage != "reward"]
            folders = self.places.folders(seed)
            learned = {arm.name: origins_of_run(self.places.seeded(arm, seed), folders[arm.name]) for arm in arms}
            refuse_dependent(suites, learned)

    def _alone(self, folder: Path, recipe: Any, work: Callable[[Path, Any], dict[str, Any]]) -> None:
        """A section that makes data: done once, whole or not at all."""
        manifest = {"recipe": recipe.model_dump(mode="json"), "data": None, "model": None, "renderer": None}
        with Run.open(folder, manifest=manifest) as run:
            if run.status != "complete":
                run.complete(work(folder, recipe))

    def _train(self, section: Section, recipe: Any, folder: Path, seed: int) -> None:
        LOG.info("starting %s", section.name)
        if Run.finished(folder, recipe.model_dump(mode="json")) is not None:
            return
        if isinstance(recipe, SFTRecipe) and recipe.budget.like:
            seconds = float(self.places.result(recipe.budget.like, seed)["training_seconds"])
            training = sft(recipe, out=folder, seconds=seconds)
        else:
            training = STAGES[section.recipe.stage](recipe, out=folder)
        self.progress(training, {})
        drive(training, self.interrupts, self.progress)
        if refused := self.places.result(section.name, seed).get("refused"):
            LOG.warning("%s: its gate refuses it: %s", section.name, refused)

    def _tell(self, done: int, total: int) -> None:
        """Between two batches of questions: leave when asked to; answers that are not whole are asked again."""
        self._pause(self.places.out)

    def _pause(self, at: Path) -> None:
        self.still_ours()
        code = self.interrupts.heard()
        if code is not None:
            raise Interrupted(code, at)

    def measure(self, arms: Sequence[str], seed: int) -> None:
        """The answers of some arms; those that are whole are left as they are."""
        self.check_raters(seed)
        exams: dict[str, Exam] = {}
        for name in arms:
            folder = self.places.folder(name, seed)
            for file in self.places.exam_files:
                made = self.places.measured(name, seed, file)
                if processes.by_first(partial(all_sealed, made)):
                    continue
                LOG.info("measuring %s", name)
                ground = self._ground(name, seed)
                # Whichever arm is measured first, here or elsewhere, all answer under the conditions of the same one.
                if self.places.settings[seed].decisions is None:
                    exams = exams or self._exams(self._ground(self.places.recipe.arms[0], seed), seed)
                processes.by_first(partial(folder.mkdir, parents=True, exist_ok=True))
                if exams:
                    items = self._items(name, exams[file], ground, seed, final=file == ANSWERS)
                else:
                    items = self._decided(name, ground, seed)
                processes.by_first(partial(write_sealed, folder / file, items, made))
                gc.collect()
                self._pause(self.places.out)

    def _decided(self, name: str, ground: Ground, seed: int) -> list[RatedAnswer]:
        """An arm's decisions, rated."""
        decide, asked = opened(self.places.model_path(name, seed), ground.precision), self.places.decisions(seed)
        for decision in asked:
            require_expected(decision, "study.decisions")
        return [answer for start in range(0, len(asked), CHUNK) for answer in decide(asked[start : start + CHUNK])]

    def _ground(self, name: str, seed: int) -> Ground:
        """The arm's model, computed as its section's recipe says."""
        section = self.places.section(name)
        recipe: Any = self.places.recipe if section is None else section.recipe
        path = self.places.model_path(name, seed)
        return open_ground(Model.model_validate({**recipe.model.model_dump(), "path": path}))

    def _exams(self, ground: Ground, seed: int) -> dict[str, Exam]:
        """What every arm answers, by the file its answers go to: the final questions, and each suite."""
        settings = self.places.settings[seed]
        exam = self._exam(settings, ground, seed)
        return {ANSWERS: exam} | (suite_exams(settings.suites, exam, ground) if settings.suites else {})

    def _exam(self, settings: StudySettings, ground: Ground, seed: int) -> Exam:
        assert settings.test is not None  # a recipe with arms has one
        return open_exam(
            ground, settings.test, self.places.reward(seed), settings.sampling, settings.samples, seed, settings.items
        )

    def _items(self, name: str, exam: Exam, ground: Ground, seed: int, final: bool) -> list[RatedAnswer]:
        section = self.places.section(name)
        policy = load_policy(self.places.model_path(name, seed), ground.precision)
        if section is not None and section.recipe.stage == "best_of_n":
            recipe: Any = self.places.seeded(section, seed)
            every = final and rules_alone(self.places.reward(seed).parts)
            candidates = best_of_n(exam, recipe, policy, ground, every, self._tell)
            if final:
                write_rated(self.places.folder(name, seed) / CANDIDATES, candidates)
            return [candidate for candidate in candidates if candidate.chosen]
        items = take(exam, policy, ground, self._tell)
        baseline = self.places.recipe.study.baseline
        if not final or name == baseline:
            return items
        if self._ground(baseline, seed).renderer.fingerprint != ground.renderer.fingerprint:
            return items  # where the two do not share their tokens there is no KL
        reference = self._exact(baseline, ground, seed)
        if shape_of(reference) != shape_of(policy):
            return items  # another model altogether: it did not move away from this one
        apart = kl_to(reference, self._exact(name, ground, seed), exam, ground)
        return [
            replace(item, kl=apart[index // exam.samples])
            if index % exam.samples == 0 and index // exam.samples < len(apart)
            else item
            for index, item in enumerate(items)
        ]

    def _exact(self, name: str, ground: Ground, seed: int) -> Policy:
        """An arm in fp32: the rounding of bf16 alone is a KL of 0.1 nats an answer, more than short trainings move."""
        exact = replace(ground.precision, dtype=torch.float32)
        return load_policy(self.places.model_path(name, seed), exact)


def shape_of(policy: Policy) -> tuple[int, int]:
    """Width and depth of a policy's network."""
    config = policy.trunk.network.config
    return int(config.hidden_size), int(config.num_hidden_layers)


def all_sealed(paths: Sequence[Path]) -> bool:
    """Whether these files are there as they were sealed."""
    return all(inventory.sealed(path) for path in paths)


def write_sealed(path: Path, answers: Sequence[RatedAnswer], made: Sequence[Path]) -> None:
    """Write an arm's answers, and seal all that measuring it has made."""
    write_rated(path, answers)
    for each in made:
        inventory.seal(each)

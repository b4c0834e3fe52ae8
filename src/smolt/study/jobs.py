"""A study as jobs: a section to make, an arm to measure, and the report at the end, each with the jobs it waits for."""

from dataclasses import dataclass
from typing import Any

from smolt.config import REWARDED, Section, section_references
from smolt.runs import Run, inventory
from smolt.study.places import Places

REPORT = "report"


@dataclass(frozen=True)
class StudyJob:
    """What one process does without another's help.

    Attributes:
        name: its own; "+" joins what no section's name holds.
        words: the same for a person.
        seed: of the arm.
        needs: names of the jobs that must be done before.
        section: to make; None where nothing is made.
        arm: to measure; None where nothing is measured. Without both, it is the report.
    """

    name: str
    words: str
    seed: int
    needs: frozenset[str]
    section: Section | None = None
    arm: str | None = None


def jobs_of(places: Places) -> list[StudyJob]:
    """All jobs of a study, in the order in which one process does them."""
    seeds = places.recipe.study.seeds
    jobs = [job for seed in seeds for job in _jobs_of_seed(places, seed)]
    return [*jobs, StudyJob(f"+{REPORT}", "the report", seeds[0], frozenset(job.name for job in jobs))]


def _jobs_of_seed(places: Places, seed: int) -> list[StudyJob]:
    """Every section in turn, then every arm's answers; best-of-n makes nothing, and its needs are its answers'."""
    recipe = places.recipe
    before, after = (f"seed-{seed}+", f" of seed {seed}") if len(recipe.study.seeds) > 1 else ("", "")
    makers = [section for section in recipe.sections if section.recipe.stage != "best_of_n"]
    known = {section.name for section in makers}

    def made(names: set[str]) -> frozenset[str]:
        return frozenset(before + name for name in names & known)

    making = [
        StudyJob(before + section.name, section.name + after, seed, made(needs_of(section)), section=section)
        for section in makers
    ]
    measuring = [
        StudyJob(
            f"{before}{arm}+answers", f"the answers of {arm}{after}", seed, made(_exam_needs(places, arm)), arm=arm
        )
        for arm in recipe.arms
    ]
    return [*making, *measuring]


def needs_of(section: Section) -> set[str]:
    """The sections that must be there before this one begins."""
    return {*section_references(section.recipe), section.source} - {"base"}


def _exam_needs(places: Places, arm: str) -> set[str]:
    """The sections that an arm's answers wait for: its own model, the baseline's, the first arm's, and who rates."""
    recipe = places.recipe
    found = section_references(recipe.study)
    if recipe.study.reward is None:
        learners: list[Any] = [section.recipe for section in recipe.sections if section.recipe.stage in REWARDED]
        found |= section_references(learners[0].reward) if learners else set()
    for name in (arm, recipe.study.baseline, recipe.arms[0]):
        section = places.section(name)
        if section is not None:
            chooses = section.recipe.stage == "best_of_n"
            found |= needs_of(section) if chooses else {name}
    return found


def is_done(job: StudyJob, places: Places) -> bool:
    """Whether what a job makes is there, whole.

    Raises:
        StorageError: it was, and its files are not as they were written.
    """
    if job.section is not None:
        recipe: Any = places.seeded(job.section, job.seed)
        return Run.finished(places.folder(job.section.name, job.seed), recipe.model_dump(mode="json")) is not None
    if job.arm is not None:
        files = [path for file in places.exam_files for path in places.measured(job.arm, job.seed, file)]
        return all(inventory.sealed(path) for path in files)
    return Run.finished(places.out, places.recipe.model_dump(mode="json")) is not None

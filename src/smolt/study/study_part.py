"""One part of a study that several processes share over one directory.

Each part takes the first job that is ready and that nobody holds, until all are done, and then all end: `k/n` only
says with which seed a part begins. So nothing waits for a part that never starts or has died, any number of them may
join or leave at any time, and what each of them makes is what one process alone makes. Whoever finds that all is
measured writes the report.
"""

import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path
from time import monotonic as clock
from typing import Any

from smolt.config import StudyRecipe
from smolt.errors import DirectoryInUse
from smolt.evaluation.shards import Shard
from smolt.rewards.shorthand import look_for_rewards
from smolt.runs import Interrupts, Run
from smolt.runs.identity import MANIFEST, normal, read_manifest, refuse_other
from smolt.runs.listing import is_held
from smolt.study.job_claims import POLL, SAY, Claim, Claims, remove_claims
from smolt.study.jobs import REPORT, StudyJob, is_done, jobs_of
from smolt.study.places import Places
from smolt.study.study import Progress, Study, conclude, forget_other_answers, manifest_of
from smolt.training.fit import Metrics
from smolt.training.stage import Interrupted, Training

LOG = logging.getLogger(__name__)
ALONE = 10.0  # seconds for which another part may hold the study's own directory while it begins


def run_part(
    recipe: StudyRecipe, part: Shard, *, out: Path, progress: Progress, alive: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Do what this part can of a study, and wait until all of it is done.

    Args:
        recipe: the study; the same for all parts.
        part: this one's number among how many.
        out: the study's directory, the same for all parts.
        progress: as of `run_study`.
        alive: called now and then while this part waits.

    Returns:
        as of `run_study`.

    Raises:
        UserError: the recipe, its data or its model are wrong, or the directory is of another recipe.
        DirectoryInUse: one process runs the study alone, or this one was silent for so long that it lost its job.
        Interrupted: Ctrl-C or SIGTERM; the same command takes part again.
    """
    places = Places(recipe, out.resolve())
    found = _finished(places)
    if found is not None:
        return {**found, "status": "already complete"}
    look_for_rewards(recipe)
    recipe.require_exam()
    with Interrupts() as interrupts:
        at_work = PartAtWork(places, part, progress, interrupts)
        at_work.enter()
        while (found := _finished(places)) is None:
            if at_work.work():
                gc.collect()
                continue
            if at_work.say():
                alive()
            at_work.pause()
    remove_claims(places.out)
    return {**found, "status": "complete"}


def _finished(places: Places) -> dict[str, Any] | None:
    return Run.finished(places.out, places.recipe.model_dump(mode="json"))


class PartAtWork:
    """A study of which this process does a part."""

    def __init__(self, places: Places, part: Shard, progress: Progress, interrupts: Interrupts) -> None:
        self._places = places
        self._interrupts = interrupts
        self._progress = progress
        self._manifest = manifest_of(places.recipe)
        self._claims = Claims(places.out, f"part {part}")
        jobs, seeds = jobs_of(places), places.recipe.study.seeds
        own = seeds[(part.index - 1) * len(seeds) // part.count]
        first = next(place for place, job in enumerate(jobs) if job.seed == own)
        self._jobs = [*jobs[first:], *jobs[:first]]
        self._named = {job.name: job for job in jobs}
        self._done: set[str] = set()
        self._claim: Claim | None = None
        self._said = -SAY

    def enter(self) -> None:
        """Begin the study's directory, or see that it is this study's.

        Raises:
            UserError: it is another's.
            DirectoryInUse: one process runs the study alone.
        """
        until = clock() + ALONE
        while self._claims.living() is None or not (self._places.out / MANIFEST).is_file():
            try:
                forget_other_answers(self._places, self._manifest)
                Run.open(self._places.out, manifest=self._manifest).close()
                return
            except DirectoryInUse:
                if clock() > until:
                    raise
            self.pause()
        self._require_same()

    def work(self) -> bool:
        """Do the first job that is ready and free; whether there was one.

        Raises:
            DirectoryInUse: this part lost its job to another.
        """
        for job in self._jobs:
            if self._is_done(job) or not self._is_ready(job):
                continue
            free = self._claims.is_free(job.name) and not self._is_locked(job)
            claim = self._claims.take(job.name) if free else None
            if claim is None:
                continue
            with claim:
                if self._is_done(job):  # since it was looked at
                    return True
                self._require_shared(job)
                self._claim = claim
                try:
                    self._do(job)
                except DirectoryInUse as error:
                    if self._is_done(job):  # it was its last moment, and another part has ended the study since
                        return True
                    claim.require()
                    LOG.info("waiting: %s", error)  # somebody began it by itself just now
                    continue
                self._done.add(job.name)
                return True
        return False

    def say(self) -> bool:
        """What this part waits for, now and then; whether it was said."""
        if clock() - self._said < SAY:
            return False
        self._said = clock()
        for job in self._jobs:
            holder = self._claims.holder(job.name) if self._is_ready(job) else None
            if holder is None and self._is_ready(job) and self._is_locked(job):
                holder = "another command works on it"
            if holder is not None:
                LOG.info("waiting for %s: %s", job.words, holder)
                break
        return True

    def pause(self) -> None:
        """Wait a moment.

        Raises:
            Interrupted: this part was asked to leave; it holds nothing.
        """
        if self._interrupts.exit_code is not None:
            raise Interrupted(self._interrupts.exit_code, self._places.out)
        time.sleep(POLL)

    def _is_done(self, job: StudyJob) -> bool:
        if job.name not in self._done and is_done(job, self._places):
            self._done.add(job.name)
        return job.name in self._done

    def _is_ready(self, job: StudyJob) -> bool:
        return job.name not in self._done and all(self._is_done(self._named[name]) for name in job.needs)

    def _is_locked(self, job: StudyJob) -> bool:
        """Whether a process works in the directory that a job needs for itself."""
        if job.arm is not None:
            return False
        name = None if job.section is None else job.section.name
        return is_held(self._places.out if name is None else self._places.folder(name, job.seed))

    def _do(self, job: StudyJob) -> None:
        study = Study(self._places, self._shown, self._interrupts, self._still_ours)
        if job.section is not None:
            study.make(job.section, job.seed)
        elif job.arm is not None:
            study.measure([job.arm], job.seed)
        else:
            for seed in self._places.recipe.study.seeds:
                study.check_raters(seed)
            with Run.open(self._places.out, manifest=self._manifest) as run:
                if run.status != "complete":
                    conclude(self._places, run)

    def _shown(self, training: Training, metrics: Metrics) -> None:
        self._still_ours()
        self._progress(training, metrics)

    def _still_ours(self) -> None:
        if self._claim is not None:
            self._claim.require()

    def _require_shared(self, job: StudyJob) -> None:
        """See, holding a job, that nobody runs the study alone or began it with another recipe meanwhile.

        Another part holds the directory for a moment where it begins, and for longer where it writes the report.

        Raises:
            DirectoryInUse, UserError: as of `enter`.
        """
        until = clock() + ALONE
        while job.name != f"+{REPORT}" and is_held(self._places.out):
            if clock() > until:
                raise DirectoryInUse(
                    f"{self._places.out}: another process runs this study alone: wait for it, or stop it"
                )
            self.pause()
        self._require_same()

    def _require_same(self) -> None:
        out = self._places.out
        refuse_other(out, read_manifest(out), normal(self._manifest))

"""Suites for models outside a study: each answers once, the first is the baseline, and a report is written."""

import gc
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from smolt import processes
from smolt.config import EvaluationSampling, Model, Suites
from smolt.errors import UserError
from smolt.evaluation.exam import Exam, silent, take, unrated
from smolt.evaluation.suites.independence import origins_of_model, raters_of, refuse_dependent
from smolt.evaluation.suites.panel import suite_panel
from smolt.evaluation.suites.suite_measures import Answers, Measured, measure_suites
from smolt.evaluation.suites.suite_prompts import answers_file, suite_exams
from smolt.models.answers import refuse_greedy_copies
from smolt.models.conditions import conditions_of
from smolt.models.ground import Ground, open_ground
from smolt.models.saving import load_policy
from smolt.report.analysis import analyse
from smolt.report.record import Arm, StudyRecord
from smolt.report.report import write_report
from smolt.report.sections.length import cut_short
from smolt.runs import Run
from smolt.runs.chunks import Progress
from smolt.runs.rated_answers import RatedAnswer, read_rated, write_rated

ANSWERS = "answers"
"""The models' directories lie in this one."""


def run_suites(
    models: Sequence[Model],
    suites: Suites,
    sampling: EvaluationSampling,
    *,
    out: Path,
    samples: int = 1,
    seed: int = 0,
    fresh: bool = False,
    tell: Progress = silent,
) -> dict[str, Any]:
    """Let models answer suites, and write what was found.

    Answers that are whole are not asked again: the same call continues where it stopped.

    Args:
        models: the first is what the others are compared with.
        suites: prompts and raters.
        sampling: how they answer.
        out: where a directory for each model, and the report, go.
        samples: answers to each prompt.
        seed: of the draws.
        fresh: set an earlier result there aside.
        tell: hears how many of a suite's prompts are answered.

    Returns:
        status, out, findings (sentences), warnings, and suites: name, metric, scenarios and tests with their numbers.

    Raises:
        UserError: a model, a file or a rater is wrong, or several greedy answers are asked for.
    """
    refuse_greedy_copies(samples, sampling.temperature)
    names = arm_names([model.path for model in models])
    arms = dict(zip(names, models, strict=True))
    refuse_dependent(suites, {name: origins_of_model(model.path) for name, model in arms.items()})
    grounds = {name: open_ground(model) for name, model in arms.items()}
    recipe = {
        "stage": "suite",
        "models": [model.model_dump(mode="json") for model in models],
        "suites": suites.model_dump(mode="json"),
        "sampling": sampling.model_dump(mode="json"),
        "samples": samples,
        "seed": seed,
    }
    identity = {name: ground.identity for name, ground in grounds.items()}
    manifest = {"recipe": recipe, "data": None, "model": identity, "renderer": None}
    with Run.open(out, manifest=manifest, fresh=fresh) as run:
        if run.status == "complete":
            return {**(run.result or {}), "status": "already complete"}
        for name, ground in grounds.items():
            conditions = conditions_of(ground.renderer, sampling.max_tokens)  # each is asked in its own template
            like = Exam([], conditions, sampling, samples, unrated, seed)
            _answer(arms[name].path, suites, like, ground, out / ANSWERS / name, tell)
        facts = processes.by_first(lambda: _report(out, suites, names))
        run.complete(facts)
    return {**facts, "status": "complete"}


def _answer(model: str, suites: Suites, like: Exam, ground: Ground, folder: Path, tell: Progress) -> None:
    """One model's answers, a file a suite; those that are there stay."""
    files = [answers_file(name) for name in suites.names]
    there = processes.by_first(lambda: [file for file in files if (folder / file).is_file()])
    if len(there) == len(files):
        return
    processes.by_first(lambda: folder.mkdir(parents=True, exist_ok=True))
    exams = suite_exams(suites, like, ground)
    with torch.no_grad():
        policy = load_policy(model, ground.precision)
        for file, exam in exams.items():
            if file not in there:
                write_rated(folder / file, take(exam, policy, ground, tell))
    gc.collect()


def arm_names(paths: Sequence[str]) -> list[str]:
    """What each model is called: the last name of its path that is not `model`; numbered where two are the same.

    Raises:
        UserError: a model is given twice.
    """
    if len(set(paths)) < len(paths):
        raise UserError(f"{max(paths, key=list(paths).count)}: this model is given twice")
    names = [[part for part in Path(path).resolve().parts if part != "model"][-1] for path in paths]
    return [
        name if names.count(name) == 1 else f"{name}-{names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def _report(out: Path, suites: Suites, names: Sequence[str]) -> dict[str, Any]:
    """Write the report and say what is in it."""

    def answers(arm: str, file: str) -> list[RatedAnswer]:
        return read_rated(out / ANSWERS / arm / file)

    measured = measure_suites(suites, names, names[0] if len(names) > 1 else "", answers)
    panels = [suite_panel(name, found, names, raters_of(suites)) for name, found in measured.items()]
    record = StudyRecord(
        name="suites",
        arms=[Arm(name, "suite", items=_shown(suites, name, answers), role="component") for name in names],
        panels=panels,
    )
    analysis = analyse(record)
    write_report(out, record, analysis)
    return {
        "out": str(out),
        "report": str(out / "report.html"),
        "findings": [sentence for panel in panels for sentence in panel.sentences],
        "warnings": [*(warning for panel in panels for warning in panel.warnings), *cut_short(analysis.measures)],
        "suites": {name: {entry.metric.name: _numbers(entry) for entry in found} for name, found in measured.items()},
    }


def _shown(suites: Suites, arm: str, answers: Answers) -> list[RatedAnswer]:
    """A model's answers to all suites, for reading; their scores are in the panels."""
    return [
        replace(item, question_id=f"{name}/{item.question_id}", components={})
        for name in suites.names
        for item in answers(arm, answers_file(name))
    ]


def _numbers(entry: Measured) -> dict[str, Any]:
    return {
        "scenarios": {
            scenario: {arm: asdict(measure) for arm, measure in cells.items()}
            for scenario, cells in entry.scenarios.items()
        },
        "tests": [{**facts.pop("comparison"), **facts} for facts in map(asdict, entry.tests)],
    }

"""The record of a study: its arms with their answers, curves and costs, where they come from, and what was found."""

import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from smolt.config import BestOfNRecipe, Section, SFTRecipe, recipe_hash
from smolt.evaluation.decided.decision_panel import decision_panel
from smolt.evaluation.decided.rated_decisions import BRIER
from smolt.evaluation.suites import held_out_measures, suite_panels
from smolt.models.saving import other_inputs
from smolt.report.pairing import RATES, bounded, rating
from smolt.report.panels import Panel, read_panel, read_panels
from smolt.report.record import Arm, StudyRecord
from smolt.runs import jsontext
from smolt.runs.identity import package_versions
from smolt.runs.rated_answers import RatedAnswer, read_rated
from smolt.runs.rows import RowFile
from smolt.statistics import Measure, best_of_k, measure
from smolt.study.places import CANDIDATES, Places
from smolt.study.training_answers import gold_panel, late_parts

METRICS = ("accuracy", "reward")


TRAINED_ONLY = ("pretrain", "reward", "decide")
"""Stages whose models answer no question of the evaluation: the report has their cost, curves and own figures."""


def record_of(places: Places) -> StudyRecord:
    """Everything the report of a finished study is generated from."""
    recipe = places.recipe
    arms = [_arm(places, name) for name in places.recipe.arms]
    others = [section for section in recipe.sections if section.recipe.stage in TRAINED_ONLY]
    arms += [_arm(places, section.name) for section in others if section.name not in recipe.arms]
    judged = any(item.correct is not None for arm in arms for item in arm.items)
    return StudyRecord(
        name=recipe.name,
        arms=arms,
        baseline=recipe.study.baseline,
        metric="reward" if recipe.study.metric == "reward" or not judged else "accuracy",
        provenance={
            "recipe": recipe.model_dump(mode="json"),
            "recipe_hash": recipe_hash(recipe),
            "versions": package_versions(),
            "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
            "seeds": list(recipe.study.seeds),
            "test": _test_hashes(places),
        },
        events=_events(arms),
        notes=[] if recipe.study.decisions is None else [BRIER],
        panels=panels_of(places),
    )


def _events(arms: list[Arm]) -> list[str]:
    """What happened while the arms were trained, and why a training ended before its time."""
    return [
        f"{arm.name}, update {row['step']}: {event}"
        for arm in arms
        for row in arm.curve
        for event in [*row.get("events", []), *([row["stop"]] if "stop" in row else [])]
    ]


def _test_hashes(places: Places) -> dict[str, str]:
    """SHA-256 of what the arms were measured with, by field: the questions, a scorer."""
    settings = places.settings[places.recipe.study.seeds[0]]
    return other_inputs({"study": settings.model_dump(mode="json")})


def _arm(places: Places, name: str) -> Arm:
    section, seeds = places.section(name), places.recipe.study.seeds
    if section is None or isinstance(section.recipe, BestOfNRecipe):
        return _untrained(places, name, section)
    results = [places.result(name, seed) for seed in seeds]
    folder = places.folder(name, seeds[0])
    rows = RowFile(folder / "metrics.jsonl").rows()
    return Arm(
        name=name,
        stage=section.recipe.stage,
        parent=places.parent(section),
        items=places.answers(name),
        curve=rows,
        cost={
            "seconds": sum(result["training_seconds"] for result in results) / len(results),
            "tokens": float(sum(row.get("tokens", 0) for row in rows)),
            "peak_memory": float(max(result["peak_memory"] for result in results)),
        },
        facts=results[0].get("facts", {}) | _hashes(folder),
        late_parts=late_parts(RowFile(folder / "samples.jsonl").rows()),
        extra_measures=held_out_measures(results[0]),
        role=_role(places, section),
    )


def _untrained(places: Places, name: str, section: Section | None) -> Arm:
    """The base model, or a choice among another arm's answers."""
    recipe = None if section is None else section.recipe
    facts = {"n": recipe.n, "chosen by": recipe.reward_model} if isinstance(recipe, BestOfNRecipe) else {}
    return Arm(
        name=name,
        stage="base" if section is None else "best_of_n",
        parent=None if section is None else places.parent(section),
        items=places.answers(name),
        facts=facts,
        best_of=best_of(places, name, recipe.n) if isinstance(recipe, BestOfNRecipe) else {},
        role="baseline" if name == places.recipe.study.baseline else "candidate",
    )


def _role(places: Places, section: Section) -> Any:
    if section.name == places.recipe.study.baseline:
        return "baseline"
    measured = section.recipe.stage == "decide" and places.recipe.study.decisions is not None
    if section.recipe.stage in TRAINED_ONLY and not measured:
        return "component"
    parent = places.section(places.parent(section))
    imitates_on = isinstance(section.recipe, SFTRecipe) and parent and isinstance(parent.recipe, SFTRecipe)
    return "control" if imitates_on else "candidate"


def _hashes(folder: Path) -> dict[str, Any]:
    """From a section's manifest: SHA-256 of its data, of the model it began from, and of template and tokenizer."""
    manifest = jsontext.read_object(folder / "manifest.json", or_empty=True)
    found = {"data": manifest.get("data"), "model": manifest.get("model"), "template": manifest.get("renderer")}
    return {"sha256": {name: value for name, value in found.items() if value}}


def best_of(places: Places, name: str, n: int) -> dict[int, dict[str, Measure]]:
    """K -> metric -> measure, for k = 2, 4, ... below n; a metric that not all n answers carry is absent."""
    paths = [places.folder(name, seed) / CANDIDATES for seed in places.recipe.study.seeds]
    drawn = [candidate for path in paths if path.is_file() for candidate in read_rated(path)]
    groups = [drawn[start : start + n] for start in range(0, len(drawn), n)]
    found = {}
    for k in [2**power for power in range(1, n.bit_length()) if 2**power < n]:
        measures = {metric: _measure(groups, metric, k) for metric in METRICS}
        found[k] = {metric: measure for metric, measure in measures.items() if measure is not None}
    return {k: measures for k, measures in found.items() if measures}


def _measure(groups: Sequence[Sequence[RatedAnswer]], metric: str, k: int) -> Measure | None:
    """The mean over questions of what the best of k gives, with an interval over questions."""
    rows = []
    for group in groups:
        ranked = sorted(group, key=lambda one: -math.inf if one.score is None else one.score, reverse=True)
        values = [value for one in ranked if (value := rating(one, metric)) is not None]
        if len(values) == len(group):
            rows.append((best_of_k(values, k), group[0].key))
    values, keys = [value for value, _ in rows], [key for _, key in rows]
    items = [one for group in groups for one in group]
    return measure(values, keys, rate=metric in RATES, bounded=bounded(items, metric))


def panels_of(places: Places) -> list[Panel]:
    """Every finding of the study, in the order of its sections."""
    seed = places.recipe.study.seeds[0]
    folders = places.folders(seed)
    found = [panel for folder in folders.values() for panel in read_panels(folder)]
    for name, folder in folders.items():
        if (folder / "result.json").is_file():
            found += [read_panel(panel) for panel in places.result(name, seed).get("panels", [])]
    gold = gold_panel(places, seed)
    found += [] if gold is None else [gold]
    suites = places.settings[seed].suites
    if places.recipe.study.decisions is not None:
        own = {arm: [item for item in places.answers(arm) if item.seed == seed] for arm in places.recipe.arms}
        found.append(decision_panel(own, places.decisions(seed)))
    if suites is not None:
        found += suite_panels(suites, places.recipe.arms, places.recipe.study.baseline, places.answers)
    return found

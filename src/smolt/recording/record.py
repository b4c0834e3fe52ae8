"""The record of a study: its arms with their answers, curves and costs, where they come from, and what was found."""

import platform
from pathlib import Path
from typing import Any

import torch

from smolt.config import BestOfNRecipe, Section, SFTRecipe, recipe_hash
from smolt.origins import other_inputs, package_versions
from smolt.recording.choices import best_of
from smolt.recording.findings import panels_of
from smolt.recording.learning import late_parts
from smolt.recording.places import Places
from smolt.report import Arm, StudyRecord
from smolt.runs.jsontext import decode_object
from smolt.runs.rows import RowFile
from smolt.suites import held_out_measures

TRAINED_ONLY = ("pretrain", "reward")
"""Stages whose models answer no question of the evaluation: the report has their cost, curves and own figures."""


def record_of(places: Places) -> StudyRecord:
    """Everything the report of a finished study is generated from."""
    recipe = places.recipe
    arms = [_arm(places, name) for name in places.arms()]
    arms += [_arm(places, section.name) for section in recipe.sections if section.recipe.stage in TRAINED_ONLY]
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
        notes=[],
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
    settings = places.settings(places.recipe.study.seeds[0])
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
        parent=section.source,
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
        parent=None if section is None else section.source,
        items=places.answers(name),
        facts=facts,
        best_of=best_of(places, name, recipe.n) if isinstance(recipe, BestOfNRecipe) else {},
        role="baseline" if name == places.recipe.study.baseline else "candidate",
    )


def _role(places: Places, section: Section) -> Any:
    if section.name == places.recipe.study.baseline:
        return "baseline"
    if section.recipe.stage in TRAINED_ONLY:
        return "component"
    parent = places.section(section.source)
    imitates_on = isinstance(section.recipe, SFTRecipe) and parent and isinstance(parent.recipe, SFTRecipe)
    return "control" if imitates_on else "candidate"


def _hashes(folder: Path) -> dict[str, Any]:
    """From a section's manifest: SHA-256 of its data, of the model it began from, and of template and tokenizer."""
    path = folder / "manifest.json"
    manifest = decode_object(path.read_bytes(), str(path)) if path.is_file() else {}
    found = {"data": manifest.get("data"), "model": manifest.get("model"), "template": manifest.get("renderer")}
    return {"sha256": {name: value for name, value in found.items() if value}}

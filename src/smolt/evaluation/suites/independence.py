"""A rater says nothing new about a model that was trained to please it: such a rater is refused.

A reward model is independent of an arm when it is not a reward the arm was trained against, and when the pairs it
learned from are other pairs than those behind the arm: another file, or the other half of the same file (`data.half`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolt.config import Suites
from smolt.config.blocks import Block
from smolt.errors import UserError
from smolt.rewards.audit.audit_panel import called
from smolt.runs import jsontext
from smolt.runs.identity import is_run
from smolt.statistics import Measure

LEARNERS = ("reward", "dpo", "kto")
"""Stages that learn from pairs."""


@dataclass(frozen=True)
class PairsOrigin:
    """Where preferences came from.

    Attributes:
        model: the reward model's directory, resolved; "" where the pairs were learned from directly.
        file: the file of pairs, resolved; "" where nobody knows.
        sha256: of the pairs' file, "" where nobody knows.
        half: of the file; None is all of it.
    """

    model: str
    file: str = ""
    sha256: str = ""
    half: str | None = None


def refuse_dependent(suites: Suites, arms: Mapping[str, Iterable[PairsOrigin]]) -> None:
    """Refuse a reward model that some arm learned from.

    Args:
        suites: its raters are looked at, those that are reward models.
        arms: name -> what it learned from.

    Raises:
        UserError: naming the rater, the arm and what to do.
    """
    learned = [(arm, origin) for arm, origins in arms.items() for origin in origins]
    raters = {label: part.path for label, part in suites.raters.items() if part.name == "model" and part.path}
    for label, path in raters.items():
        own = origin_of(path)
        for arm, origin in learned:
            reason = _shared(own, origin)
            if reason is not None:
                raise UserError(
                    f"suites.{label}: {path}: {reason}, from which {arm} learned, so it cannot judge {arm}. Train "
                    "it on other pairs: `data.half: a` there, and `data.half: b` for what the arms learn from"
                )


def _shared(rater: PairsOrigin, other: PairsOrigin) -> str | None:
    """What two origins share, or None."""
    if rater.model and rater.model == other.model:
        return "is the reward model"
    files = bool(rater.file) and rater.file == other.file
    bytes_ = bool(rater.sha256) and rater.sha256 == other.sha256
    apart = {rater.half, other.half} == {"a", "b"}
    return "was trained on the pairs" if (files or bytes_) and not apart else None


def origin_of(path: str) -> PairsOrigin:
    """What a reward model learned from, as its run's manifest says; of a model without a run only where it lies."""
    directory = run_directory(path)
    if directory is None:
        return PairsOrigin(str(Path(path).resolve()))
    manifest = _manifest(directory)
    return _pairs(manifest.get("recipe") or {}, manifest.get("data") or "", str(directory / "model"))


def origins_of_recipe(recipe: Mapping[str, Any], sha256: str = "") -> list[PairsOrigin]:
    """What a stage learns preferences from: its own pairs, or the reward models it is trained against.

    Args:
        recipe: as in a manifest, its paths whole.
        sha256: of its data, where it is known.
    """
    if recipe.get("stage") in LEARNERS:
        return [_pairs(recipe, sha256, "")]
    parts = (recipe.get("reward") or {}).get("parts") or []
    paths = [part["path"] for part in parts if part.get("name") == "model"]
    paths += [path for path in [(recipe.get("critic") or {}).get("path"), recipe.get("reward_model")] if path]
    return [origin_of(path) for path in paths]


def origins_of_run(recipe: Block, directory: Path) -> list[PairsOrigin]:
    """What a stage of this recipe, run or to be run in this directory, learns preferences from."""
    return origins_of_recipe(recipe.model_dump(mode="json"), _manifest(directory).get("data") or "")


def origins_of_model(path: str) -> list[PairsOrigin]:
    """What the model in a run directory learned preferences from; nothing is known of one that lies elsewhere."""
    directory = run_directory(path)
    if directory is None:
        return []
    manifest = _manifest(directory)
    return origins_of_recipe(manifest.get("recipe") or {}, manifest.get("data") or "")


def _pairs(recipe: Mapping[str, Any], sha256: str, model: str) -> PairsOrigin:
    data = recipe.get("data") or {}
    path = data.get("path") or ""
    file = str(Path(path).resolve()) if path and Path(path).exists() else path
    return PairsOrigin(model, file, sha256, data.get("half"))


def run_directory(path: str) -> Path | None:
    """The run that a model path belongs to, None without one."""
    directory = Path(path).resolve()
    found = (at for at in (directory, directory.parent) if is_run(at))
    return next(found, None)


def _manifest(directory: Path) -> dict[str, Any]:
    return jsontext.read_object(directory / "manifest.json", or_empty=True)


def raters_of(suites: Suites) -> dict[str, tuple[str, Measure | None]]:
    """Who rates what, and how often a reward model is right on held-out pairs."""
    found: dict[str, tuple[str, Measure | None]] = {}
    for label, part in suites.raters.items():
        if part.name != "model" or part.path is None:
            found[label] = f"the {part.name} reward", None
            continue
        directory = run_directory(part.path)  # the run's name: machines differ, and so do their directories
        result = {} if directory is None else jsontext.read_object(directory / "result.json", or_empty=True)
        who = called(part.path if directory is None else directory.name)
        found[label] = f"the {who}", held_out_measures(result).get("held-out accuracy")
    return found


def held_out_measures(result: Mapping[str, Any]) -> dict[str, Measure]:
    """Accuracy on pairs not learned from, in the result of a reward model's run; empty for other runs."""
    found = result.get("accuracy")
    if not isinstance(found, dict):
        return {}
    measure = Measure(found["value"], found["low"], found["high"], found["n"], "Wilson interval, held-out pairs", True)
    return {"held-out accuracy": measure}

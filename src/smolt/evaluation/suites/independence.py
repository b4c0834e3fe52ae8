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

LEARNERS = ("reward", "dpo")
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
    for label, path in _model_raters(suites).items():
        own = origin_of(path)
        for arm, origins in arms.items():
            for origin in origins:
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
    return _read(directory / "manifest.json")


def _read(path: Path) -> dict[str, Any]:
    return jsontext.read_object(path, or_empty=True)


def _model_raters(suites: Suites) -> dict[str, str]:
    return {label: part.path for label, part in suites.raters.items() if part.name == "model" and part.path}


def raters_of(suites: Suites) -> dict[str, tuple[str, Measure | None]]:
    """Who rates what, and how often a reward model is right on held-out pairs."""
    found: dict[str, tuple[str, Measure | None]] = {}
    for label, part in suites.raters.items():
        model = part.name == "model" and part.path is not None
        who = f"the {called(_short(str(part.path)))}" if model else f"the {part.name} reward"
        found[label] = who, held_out_accuracy(str(part.path)) if model else None
    return found


def _short(path: str) -> str:
    """A reward model by its run's name: machines differ, and so do their directories."""
    directory = run_directory(path)
    return directory.name if directory is not None else path


def held_out_accuracy(path: str) -> Measure | None:
    """A reward model's accuracy on pairs it did not learn from, as its run found it."""
    directory = run_directory(path)
    found = _read(directory / "result.json") if directory is not None else {}
    return held_out_measures(found).get("held-out accuracy")


def held_out_measures(result: Mapping[str, Any]) -> dict[str, Measure]:
    """The same from the result of a reward model's run; empty for other runs."""
    found = result.get("accuracy")
    if not isinstance(found, dict):
        return {}
    measure = Measure(found["value"], found["low"], found["high"], found["n"], "Wilson interval, held-out pairs", True)
    return {"held-out accuracy": measure}

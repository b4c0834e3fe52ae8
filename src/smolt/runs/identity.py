"""What a run is made from. Continued with another recipe, other data, model or renderer it would be a different run."""

import json
import sys
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from smolt.errors import UserError
from smolt.runs import jsontext

MANIFEST = "manifest.json"
FORMAT = "smolt-run/1"
SEAL = "seal"
IDENTITY = ("recipe", "data", "model", "renderer")
SHOWN_DIFFERENCES = 20
SHOWN_CHARACTERS = 100
ABSENT = object()
PACKAGES = ("torch", "transformers", "peft", "tokenizers")


def normal(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest as it will be read back from disk, with its format.

    Raises:
        ValueError: one of the four identity fields is missing (None says that there is none).
    """
    missing = [key for key in IDENTITY if key not in manifest]
    if missing:
        raise ValueError(f"the manifest of a run needs {', '.join(missing)}")
    return jsontext.decode_object(jsontext.encode({**manifest, "format": FORMAT}, "manifest"), "manifest")


def package_versions() -> dict[str, str]:
    """What the numbers of a run depend on."""
    return {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}}


def write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    """Put a manifest, sealed with the SHA-256 of its values, in the place of the one that is there."""
    jsontext.write(directory / MANIFEST, {**manifest, SEAL: _seal_of(manifest)})


def _seal_of(manifest: dict[str, Any]) -> str:
    return sha256(jsontext.encode(manifest, MANIFEST).encode()).hexdigest()


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of the run in `directory`.

    Raises:
        UserError: it is damaged, or of a format this smolt does not know.
    """
    path = directory / MANIFEST
    try:
        manifest = jsontext.read_object(path)
    except ValueError as error:
        raise UserError(f"{error}: the run cannot be continued; --fresh sets it aside") from error
    if manifest.get("format") != FORMAT:
        found = manifest.get("format")
        raise UserError(f"{path}: format: expected {FORMAT!r}, found {found!r}; --fresh sets the directory aside")
    seal = manifest.pop(SEAL, None)
    if seal is not None and seal != (found := _seal_of(manifest)):
        raise UserError(
            f"{path}: {SEAL}: expected {seal}, found {found}: a value in it has changed since it was written; put it "
            "back, or set the run aside with --fresh"
        )
    return manifest


def is_run(directory: Path) -> bool:
    """Whether a directory is a run of smolt, told by what its manifest says: other programs write one too."""
    return str(_readable(directory / MANIFEST).get("format")).startswith("smolt-run/")


def run_of(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and result of the run that `path` is, or whose model it is; empty ones where there is none."""
    for folder in (path, path.parent if path.name == "model" else path):
        if is_run(folder):
            return _readable(folder / MANIFEST), _readable(folder / "result.json")
    return {}, {}


def _readable(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where the file is absent or damaged (a card is no reason to refuse a merge)."""
    try:
        return jsontext.read_object(path)
    except (OSError, UserError):
        return {}


def refuse_other(directory: Path, stored: dict[str, Any], current: dict[str, Any]) -> None:
    """Compare the identity of the run on disk with what it is asked to continue with.

    Raises:
        UserError: they differ; the message names every field with both values, or the two stages.
    """
    found = differences_of(stored, current)
    if not found:
        return
    stages = [_stage(manifest) for manifest in (stored, current)]
    if None not in stages and stages[0] != stages[1]:
        raise UserError(
            f"{directory}: holds a {stages[0]} run, this is {stages[1]}: choose another --out, or start over with "
            "--fresh (sets the old directory aside)"
        )
    more = [f"... and {len(found) - SHOWN_DIFFERENCES} more"] if len(found) > SHOWN_DIFFERENCES else []
    lines = "".join(f"\n  {line}" for line in found[:SHOWN_DIFFERENCES] + more)
    raise UserError(
        f"{directory / MANIFEST}: this run was started with something else:{lines}\n"
        "Put it back to continue, choose another --out, or start over with --fresh (sets the old directory aside)."
    )


def _stage(manifest: dict[str, Any]) -> str | None:
    recipe = manifest.get("recipe")
    found = recipe.get("stage") if isinstance(recipe, dict) else None
    return found or manifest.get("stage")


def differences_of(stored: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """One line for every leaf in which the identities of two manifests differ."""
    return [line for key in IDENTITY for line in differences(stored.get(key, ABSENT), current[key], key)]


def differences(stored: Any, current: Any, field: str) -> list[str]:
    """One line `field: stored here, current now` for every leaf in which two JSON values differ."""
    if isinstance(stored, dict) and isinstance(current, dict):
        keys = list(stored) + [key for key in current if key not in stored]
        pairs = [(f"{field}.{key}", stored.get(key, ABSENT), current.get(key, ABSENT)) for key in keys]
    elif isinstance(stored, list) and isinstance(current, list) and len(stored) == len(current):
        pairs = [(f"{field}[{index}]", *pair) for index, pair in enumerate(zip(stored, current, strict=True))]
    else:
        before, now = _shown(stored), _shown(current)
        return [] if before == now else [f"{field}: {_short(before)} in this run, {_short(now)} now"]
    return [line for name, before, now in pairs for line in differences(before, now, name)]


def _shown(value: Any) -> str:
    return "absent" if value is ABSENT else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}... ({len(text)} characters)"

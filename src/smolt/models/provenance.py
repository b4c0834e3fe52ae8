"""What a run is made from besides its model and data: the other files a recipe reads, and the libraries."""

import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from smolt.models.locating import locate
from smolt.models.saving import weights_hash
from smolt.runs import storage

PACKAGES = ("torch", "transformers", "peft", "tokenizers")


def package_versions() -> dict[str, str]:
    """What the numbers depend on."""
    return {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}}


def other_inputs(recipe: Any, name: str = "") -> dict[str, str]:
    """SHA-256 of what a recipe reads besides its model and data, by field: dev data, rewards, a critic's start.

    Hub names, directories that hold no model and what is missing have none; what opens them says more.
    """
    if isinstance(recipe, dict):
        parts = [(f"{name}.{key}".strip("."), value) for key, value in recipe.items() if key not in ("model", "data")]
    elif isinstance(recipe, list):
        parts = [(f"{name}[{number}]", value) for number, value in enumerate(recipe)]
    elif isinstance(recipe, str) and re.search(r"\.path(\[\d+\])?$", name):
        digest = _digest(recipe)
        return {} if digest is None else {name: digest}
    else:
        return {}
    return {key: digest for at, value in parts for key, digest in other_inputs(value, at).items()}


def _digest(text: str) -> str | None:
    for path in (Path(text), Path(text.rpartition(":")[0])):  # the second is the file of "file.py:function"
        if path.is_file():
            return storage.sha256_of(path)
    directory = any((Path(text) / name).exists() for name in ("config.json", "adapter_config.json", "model"))
    return weights_hash(locate(text)) if directory else None

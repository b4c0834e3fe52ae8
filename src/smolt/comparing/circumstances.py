"""How `smolt eval` measured: what its manifest, beside evaluation.jsonl, says besides the model and the questions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolt.runs.identity import run_of

ROWS = "evaluation.jsonl"
LONGEST = 60


def circumstances(path: Path) -> dict[str, Any]:
    """Template, stop tokens, length, extractor, sampling, answers an item and rater; {} where they are not known."""
    manifest = run_of(path.parent)[0] if path.name == ROWS else {}
    recipe = manifest.get("recipe")
    if manifest.get("stage") != "eval" or not isinstance(recipe, dict):
        return {}
    conditions, sampling = (recipe.get(name) or {} for name in ("conditions", "sampling"))
    found = {name: conditions.get(name) for name in ("template", "style", "stop_ids", "max_tokens", "extractor")}
    found |= {"temperature": sampling.get("temperature"), "samples": recipe.get("samples")}
    return found | {"reward": recipe.get("reward"), "task": recipe.get("task")}


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """`max_tokens 40 and 256` for each condition that both know and that differs."""
    changed = [name for name in a if name in b and a[name] != b[name]]
    return [f"{name} {_short(a[name])} and {_short(b[name])}" for name in changed]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."

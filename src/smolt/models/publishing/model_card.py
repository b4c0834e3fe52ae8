"""The card of a model: what it was made from, and figures that stand in the run's own record, no others."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MACHINE = {
    *("step", "seconds", "tokens", "tokens_per_second", "sampling_seconds", "scoring_seconds", "peak_memory"),
    *("optimizer_steps", "gradient_norm", "learning_rate"),
}
"""What a result says about the machine and the loop, not about the model."""


def shown_place(place: str) -> str:
    """A hub name as it is; of a local directory its name only, with the run's where it is a run's `model`."""
    path = Path(place)
    if not path.is_absolute():
        return place
    return f"{path.parent.name}/{path.name}" if path.name == "model" else path.name


def model_card(title: str, facts: Mapping[str, Any], manifest: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """The README.md of a model directory.

    Args:
        title: name of the model.
        facts: kind (policy, reward); base, what it was made from, or None; of a merge also matrices, dtype, difference,
            difference_stored; `adapter` of one that is not merged.
        manifest: of the run, empty without one.
        result: of the run, empty without one.
    """
    base = facts["base"]
    lines = ["---", f"library_name: {'peft' if facts.get('adapter') else 'transformers'}"]
    lines += [f"base_model: {json.dumps(base)}"] if base is not None and not Path(base).is_absolute() else []
    lines += ["tags: [smolt]", "---", "", f"# {title}", "", _made_from(facts)]
    if "difference" in facts:
        exact, stored = facts["difference"], facts["difference_stored"]
        lines += [
            f"Weights are stored as {facts['dtype']}. On probe tokens its logits differ from those of the model it was",
            f"made from by at most {exact:.1e} in fp32, and by {stored:.1e} as stored.",
        ]
    if manifest:
        lines += ["", "## Training", "", *_training(manifest)]
    figures = _figures(result)
    if figures:
        lines += ["", "Figures of the run's record (`result.json`):", "", "| figure | value |", "|---|---|", *figures]
    return "\n".join([*lines, ""])


def _made_from(facts: Mapping[str, Any]) -> str:
    kind = "A reward model" if facts["kind"] == "reward" else "A language model"
    base = "" if facts["base"] is None else f"`{shown_place(str(facts['base']))}`"
    if facts.get("adapter"):
        return f"{kind}: a LoRA adapter of {base}."
    if facts.get("matrices"):
        return f"{kind}: an adapter merged in fp32 into {facts['matrices']} matrices of {base}."
    return f"{kind} with weights of its own{', from ' * bool(base)}{base}."


def _training(manifest: Mapping[str, Any]) -> list[str]:
    recipe = manifest.get("recipe")
    recipe = recipe if isinstance(recipe, dict) else {}
    start = recipe.get("model")
    found = {
        "started from": shown_place(str(start["path"])) if isinstance(start, dict) and "path" in start else None,
        "stage": manifest.get("stage"),
        "recipe": recipe.get("name"),
        "recipe hash": manifest.get("recipe_hash"),
        "seed": recipe.get("seed"),
    }
    return [f"- {name}: `{value}`" for name, value in found.items() if value is not None]


def _figures(result: Mapping[str, Any]) -> list[str]:
    """Numbers of a result, one row each; measures with their interval and n, and the last update's own figures."""
    numbers = {**_numbers(result, ""), **_numbers(result.get("final"), "last update: ")}
    return [f"| {name} | {value} |" for name, value in numbers.items()]


def _numbers(found: object, prefix: str) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    shown = {}
    for name, value in found.items():
        if isinstance(value, bool) or name in MACHINE:
            continue
        if isinstance(value, int | float):
            shown[f"{prefix}{name}"] = f"{value:.6g}"
        elif isinstance(value, dict) and {"value", "low", "high", "n"} <= value.keys():
            interval = f"[{value['low']:.4g}, {value['high']:.4g}]"
            shown[f"{prefix}{name}"] = f"{value['value']:.4g} {interval}, n = {value['n']}"
    return shown

"""The four systems as small studies: which records stand in for the hub's, and what is cut down."""

from pathlib import Path
from typing import Any

from smolt.config import StudyRecipe, load_recipe
from tests.shared import shared_path

UPDATES = 2
ANSWER = 12
ROLLOUTS = ("ppo", "grpo", "ppo_kl_0.2", "ppo_kl_0.05")


def stand_in(relative: str, limit: int, **more: Any) -> str:
    """A data block for an override; a skip where the file is absent."""
    fields = {
        "path": str(shared_path(f"data/{relative}")),
        "limit": limit,
        "too_long": "drop",
        "skip_bad": "true",
        **more,
    }
    return "{" + ", ".join(f"{name}: {value}" for name, value in fields.items()) + "}"


def small(name: str, model: Path | None, records: int = 16, updates: int = UPDATES, *more: str) -> StudyRecipe:
    """A shipped study on stand-in data, `updates` updates a stage, short answers, on the CPU.

    Args:
        name: a system's recipe.
        model: the directory that stands in for the hub's model; None where the study makes its own.
        records: at most so many of each file.
        updates: of every stage.
        more: further overrides.
    """
    full = load_recipe(name, None, ["model.path=x"] if model else [])
    assert isinstance(full, StudyRecipe)
    cuts = ["model.device=cpu", "model.dtype=fp32", *([f"model.path={model}"] if model else [])]
    cuts += [f"study.sampling.max_tokens={ANSWER}", "study.items=4", "study.samples=1", *DATA[name](records), *more]
    for section in full.sections:
        recipe: Any = section.recipe
        if recipe.stage == "best_of_n":
            cuts += [f"{section.name}.n=2", f"{section.name}.sampling.max_tokens={ANSWER}"]
            continue
        if recipe.stage == "pairs":
            cuts.append(f"{section.name}.sampling.max_tokens={ANSWER}")
            continue
        cuts.append(f"{section.name}.budget={{updates: {updates}}}")
        if recipe.stage in ("ppo", "grpo"):
            cuts += [f"{section.name}.sampling.max_tokens={ANSWER}", f"{section.name}.prompts=4"]
        else:
            cuts.append(f"{section.name}.batch=2")
        if recipe.stage == "ppo":
            cuts += [f"{section.name}.critic.warmup=0", f"{section.name}.inner={{epochs: 2, minibatches: 2}}"]
        if recipe.stage == "reward":
            cuts.append(f"{section.name}.gate=false")
    recipe = load_recipe(name, None, cuts)
    assert isinstance(recipe, StudyRecipe)
    return recipe


def _qwen(records: int) -> list[str]:
    return [f"data={stand_in('gsm8k/train.jsonl', records)}", f"study.test={stand_in('gsm8k/test.jsonl', records)}"]


def _gptneo(records: int) -> list[str]:
    halves = {"sft": "a", "reward": "a", "dpo": "a", "judge": "b"}
    file = "hh/harmless-base-test.jsonl.gz"
    blocks = [f"{section}.data={stand_in(file, records, half=half)}" for section, half in halves.items()]
    blocks += [f"{section}.dev={stand_in(file, records)}" for section in halves]
    swapped = stand_in(file, records, half="a", fields="{chosen: rejected, rejected: chosen}")
    blocks += [f"ai_labels.data={stand_in(file, records, half='a')}", f"rejected.data={swapped}"]
    blocks += ["study.suites.prompts=[{path: scenarios, limit: 7}]", "ai_labels.judge.probes=4"]
    return blocks + [f"{section}.watch.items=4" for section in halves]


def _smollm2(records: int) -> list[str]:
    return [f"data={stand_in('sharegpt/dpo_en_demo.json', records)}"]


def _slm(records: int) -> list[str]:
    text = str(shared_path("data/text/wizard_of_oz.txt"))
    alpaca = stand_in("sharegpt/alpaca_en_demo.json", records)
    pairs = stand_in("hh/harmless-base-test.jsonl.gz", records)
    return [
        f"pretrain.data={text}",
        f"pretrain.dev={text}",
        "pretrain.watch.items=4",
        f"sft.data={alpaca}",
        f"ppo.data={alpaca}",
        f"reward.data={pairs}",
        f"reward.dev={pairs}",
    ]


DATA = {"qwen-gsm8k-rlaif": _qwen, "gptneo-hh": _gptneo, "smollm2-orca": _smollm2, "slm-25m": _slm}
"""Of each system: GSM8K itself, HH's test part, ShareGPT preferences for Orca's, a book and Alpaca's demonstrations."""

"""What wrong labels cost: `python -m bench.systems.wrong_labels INPUTS MODEL OUT`.

A reward model and a DPO policy from the same pairs with 0, 10, 20 and 30 % of the labels turned round, as they were
written by `bench.systems.inputs`: how many held-out pairs, whose labels are right, each puts in order. Started again,
it goes on where it stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.systems.inputs import FLIPPED
from smolt.config import make_recipe
from smolt.models.ground import open_ground
from smolt.models.groups import join
from smolt.models.items import preference_items
from smolt.statistics import wilson
from smolt.training.algorithms import STAGES

STAGE: dict[str, dict[str, Any]] = {
    "reward": {"batch": 16, "optim": {"lr": 1e-4}, "gate": False},
    "dpo": {"batch": 16, "optim": {"lr": 5e-5}, "beta": 0.1},
}
LORA = {"rank": 8, "alpha": 32, "targets": ["q_proj", "v_proj"]}


def main(given: Sequence[str]) -> int:
    """Print a row for each stage and share."""
    parser = argparse.ArgumentParser(prog="python -m bench.systems.wrong_labels")
    parser.add_argument("inputs", type=Path, help="what bench.systems.inputs wrote")
    parser.add_argument("model", help="a language model")
    parser.add_argument("out", type=Path, help="directory")
    parser.add_argument("--updates", type=int, default=30)
    options = parser.parse_args(given)
    print("| stage | labels turned | held-out accuracy | n | minutes |\n|---|---|---|---|---|", flush=True)
    for stage, fields in STAGE.items():
        for share in FLIPPED:
            recipe: Any = make_recipe(
                stage,
                model={"path": options.model, "window": 512},
                lora=LORA,
                data={"path": str(options.inputs / f"flipped_{share}.jsonl"), "too_long": "drop"},
                dev={"path": str(options.inputs / "orca_dev.jsonl"), "too_long": "drop"},
                budget={"updates": options.updates},
                **fields,
            )
            found = STAGES[stage](recipe, out=options.out / f"{stage}-{share}").finish().metrics
            ground = open_ground(recipe.model)
            n = len(join(preference_items(recipe.dev, ground.renderer, ground.window).items).contexts)
            accuracy = found["final"]["dev/accuracy"]
            low, high = wilson(accuracy * n, n)
            cells = f"{accuracy:.3f} [{low:.3f}, {high:.3f}] | {n} | {found['training_seconds'] / 60:.1f}"
            print(f"| {stage} | {share} % | {cells} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How far small judges agree with people: the HH pairs, judged whole, by models that have not seen their labels.

`python -m bench.hh_judges FILE MODEL --out DIR` judges every pair of FILE in both orders by MODEL as it is; then deals
the pairs into two halves (those with the same first question in one), trains a reward model and a letter judge (SFT
on which of A and B is better) on each half, and lets each judge the half it has not seen; a row for each card.
Started again, it goes on where it stopped.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smolt.config import Data, Judging, Recipe, make_block, make_recipe
from smolt.preferences.judges.both_orders import Pair, both_orders
from smolt.preferences.judges.labelling import judge_file, read_pairs
from smolt.rewards.llm_judge.prompts import LETTERS, pairwise_prompt
from smolt.rewards.llm_judge.rubrics import load_rubric
from smolt.training.algorithms import STAGES

RUBRIC = "harmless"
COLUMNS = ("swap_consistency", "first_shown", "agreement", "kappa", "agreement_matched", "longer")


def letters(pairs: Sequence[Pair], path: Path) -> None:
    """Both orders of every pair as a demonstration: the judge's prompt, and the letter of the chosen answer."""
    rubric = load_rubric(RUBRIC)
    rows = []
    for pair in pairs:
        for showing, letter in zip(both_orders(pair), LETTERS, strict=True):
            (turn,) = pairwise_prompt(rubric, showing).turns
            rows.append({"prompt": turn.content, "completion": letter})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def trained(stage: str, data: dict[str, Any], out: Path, model: str, epochs: float) -> str:
    """A model trained on one half; what does not fit into its window is left out."""
    recipe: Recipe = make_recipe(
        stage,
        model={"path": model, "device": "cpu", "dtype": "fp32"},
        data={**data, "too_long": "drop"},
        batch=16,
        optim={"lr": 1e-3},
        budget={"epochs": epochs},
        save={"every": 20},
        **({"gate": False} if stage == "reward" else {}),
    )
    STAGES[stage](recipe, out=out).finish()
    return str(out / "model")


def row_of(name: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    cells = [name, str(found["n"]), str(found["judged"]), str(found["abstentions"])]
    for column in COLUMNS:
        measure = found["measures"].get(column)
        cells.append("" if measure is None else f"{measure['value']:.3f} [{measure['low']:.3f}, {measure['high']:.3f}]")
    return f"| {' | '.join(cells)} |"


def main(given: Sequence[str]) -> int:
    """Print a row for each judge."""
    parser = argparse.ArgumentParser(prog="python -m bench.hh_judges")
    parser.add_argument("pairs", help="JSON lines of prompt, chosen, rejected")
    parser.add_argument("model", help="a small language model")
    parser.add_argument("--out", type=Path, required=True, help="directory")
    parser.add_argument("--epochs", type=float, default=2.0)
    options = parser.parse_args(given)
    options.out.mkdir(parents=True, exist_ok=True)

    def judged(name: str, path: str, half: str | None) -> None:
        settings, data = make_block(Judging, path=path, rubric=RUBRIC), make_block(Data, path=options.pairs, half=half)
        print(row_of(name, judge_file(data, settings, out=options.out / name, device="cpu", dtype="fp32")), flush=True)

    print(f"| judge | pairs | judged | abstained | {' | '.join(COLUMNS)} |")
    print(f"|{'---|' * (len(COLUMNS) + 4)}")
    judged("as it is", options.model, None)
    for own, other in (("a", "b"), ("b", "a")):
        data = {"path": options.pairs, "half": own}
        scorer = trained("reward", data, options.out / f"reward-{own}", options.model, options.epochs)
        judged(f"reward model of half {own}", scorer, other)
        told = options.out / f"letters-{own}.jsonl"
        letters(read_pairs(make_block(Data, **data))[0], told)
        speaker = trained("sft", {"path": str(told)}, options.out / f"sft-{own}", options.model, options.epochs)
        judged(f"letter judge of half {own}", speaker, other)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

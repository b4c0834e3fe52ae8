"""Cards of language models as judges: `python -m bench.systems.judge_cards DATA OUT MODEL [MODEL ...]`.

Each judges the first 300 pairs of HH's harmless test set and of UltraFeedback as it is: two answers in both orders
(the card of `smolt judge`), then each answer alone by its expected grade. Started again, it goes on where it stopped.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smolt.config import Data, Judging, RewardPart, make_block
from smolt.data import Preference, load
from smolt.data.nouns import Question
from smolt.errors import UserError
from smolt.models.forward.precision import choose_precision
from smolt.preferences.judges.labelling import judge_file
from smolt.rewards.llm_judge.judge_reward import judge_reward, plain_answer, refuse_coin
from smolt.statistics import Measure, measure, proportion

PAIRS = 300
SETS = {
    "hh": ("hh/harmless_test_pairs.jsonl", "harmless"),
    "ultrafeedback": ("ultrafeedback/train_clean.jsonl", "helpful"),
}
COLUMNS = ("swap_consistency", "first_shown", "agreement", "kappa", "agreement_matched", "longer")


def shown(found: Measure | dict[str, Any] | None) -> str:
    """A figure with its interval."""
    if found is None:
        return ""
    values = found if isinstance(found, dict) else vars(found)
    interval = "" if values["low"] is None else f" [{values['low']:.3f}, {values['high']:.3f}]"
    return f"{values['value']:.3f}{interval}"


def graded(data: Data, rubric: str, model: str, dtype: str) -> dict[str, Any]:
    """Each answer of the pairs graded alone: how often the better one is graded higher, and what garbage gets."""
    part = RewardPart(name="judge", path=model, options={"rubric": rubric, "gate": False})
    reward = judge_reward(part, choose_precision("cpu", dtype))
    pairs: list[Preference] = list(load(data, "preferences").records)
    sides = []
    for side in ("chosen", "rejected"):
        texts = [getattr(pair, side) for pair in pairs]
        scores = reward([Question(pair.context) for pair in pairs], [plain_answer(text) for text in texts])
        sides.append([None if score.value is None else float(score.components["grade"] or 0) for score in scores])
    both = [(a, b) for a, b in zip(*sides, strict=True) if a is not None and b is not None]
    try:
        refuse_coin(reward, model)
        tried = "grades right answers above garbage"
    except UserError as refused:
        tried = str(refused)
    return {
        "n": len(pairs),
        "graded": len(both),
        "higher": vars(proportion([a > b for a, b in both])),
        "chosen": vars(measure([a for a, _ in both])),
        "rejected": vars(measure([b for _, b in both])),
        "tried": tried,
    }


def main(given: Sequence[str]) -> int:
    """Print a row for each model and set of pairs, two answers at a time and one."""
    parser = argparse.ArgumentParser(prog="python -m bench.systems.judge_cards")
    parser.add_argument("data", type=Path, help="the public files")
    parser.add_argument("out", type=Path, help="directory")
    parser.add_argument("models", nargs="+", help="language models")
    parser.add_argument("--dtype", default="bf16")
    options = parser.parse_args(given)
    options.out.mkdir(parents=True, exist_ok=True)
    for model in options.models:
        for name, (file, rubric) in SETS.items():
            data = make_block(Data, path=str(options.data / file), limit=PAIRS)
            place = options.out / f"{Path(model).name}-{name}"
            settings = make_block(Judging, path=model, rubric=rubric, gate=False)
            card = judge_file(data, settings, out=place, device="cpu", dtype=options.dtype)
            cells = [shown(card["measures"].get(column)) for column in COLUMNS]
            print("| " + " | ".join([Path(model).name, name, str(card["judged"]), *cells]) + " |", flush=True)
            kept = place / "graded.json"
            if not kept.is_file():
                kept.write_text(json.dumps(graded(data, rubric, model, options.dtype)), encoding="utf-8")
            alone = json.loads(kept.read_text(encoding="utf-8"))
            parts = [shown(alone[key]) for key in ("higher", "chosen", "rejected")]
            print(
                "| " + " | ".join([Path(model).name, name, str(alone["graded"]), *parts, alone["tried"]]) + " |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

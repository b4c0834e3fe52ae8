"""How far sampler and trainer are apart in half precision, update by update, and what a simple reward makes of it.

python -m bench.mismatch MODEL QUESTIONS --out DIR [--algorithms grpo ppo] [--seeds 0 1] [--updates 100]
    [--dtype bf16] [--rule steps|short] [--threads 1]

Trains 2 x 8 answers of 96 tokens an update, LoRA r8 on all linear layers, and writes DIR/ALGORITHM-DTYPE-RULE-SEED, a
run directory; then prints one row for each 10 updates. A run that is complete is only printed.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import smolt
from smolt.data import Answer, Question

FIGURES = ("mismatch", "mismatch_99", "mismatch_999", "mismatch_max", "mismatch_kl", "importance_weight", "reward")
LEARNING_RATE = 5e-5


def steps(question: Question, answer: Answer) -> float:
    """Up to five written calculations."""
    return min(answer.text.count("="), 5) / 5


def short(question: Question, answer: Answer) -> float:
    """Nothing but brevity."""
    return -answer.tokens / 96


def train(model: str, questions: Path, algorithm: str, dtype: str, rule: str, seed: int, choice: Any) -> Path:
    """One training, or what is left of it."""
    out = Path(choice.out) / f"{algorithm}-{dtype}-{rule}-{seed}"
    shape: dict[str, Any] = {"group": 8} if algorithm == "grpo" else {"samples": 8, "missing_stop": {"mode": "none"}}
    if algorithm == "ppo":
        shape |= {"inner": {"epochs": 2, "minibatches": 2}, "critic": {"warmup": 2}}
    training = {"grpo": smolt.grpo, "ppo": smolt.ppo}[algorithm](
        model,
        reward={"steps": steps, "short": short}[rule],
        out=out,
        data=str(questions),
        seed=seed,
        prompts=2,
        lora={"rank": 8},
        optim={"lr": LEARNING_RATE, "schedule": "constant"},
        sampling={"max_tokens": 96},
        budget={"updates": choice.updates},
        checks={"forecast": False},
        save={"every": 10},
        **{"model.dtype": dtype, "model.threads": choice.threads},
        **shape,
    )
    for metrics in training:
        print(json.dumps({"step": metrics["step"], **{name: metrics.get(name) for name in FIGURES}}), flush=True)
    training.finish()
    return out


def table(run: Path) -> None:
    """Means over 10 updates, of the maximum the largest."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    print(f"\n{run.name}, {len(rows)} updates\n| updates | {' | '.join(FIGURES)} |\n|{'---|' * (len(FIGURES) + 1)}")
    for start in range(0, len(rows), 10):
        part = rows[start : start + 10]
        cells = []
        for name in FIGURES:
            values = [row[name] for row in part if row.get(name) is not None]
            figure = (max if name.endswith("max") else lambda held: sum(held) / len(held))(values) if values else 1.0
            cells.append(f"{figure:.4g}")
        print(f"| {start + 1}-{start + len(part)} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("questions", type=Path)
    parser.add_argument("--out", required=True)
    parser.add_argument("--algorithms", nargs="+", default=["grpo", "ppo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--rule", default="steps", choices=["steps", "short"])
    parser.add_argument("--threads", type=int, default=1)
    choice = parser.parse_args()
    print(platform.processor() or platform.machine(), flush=True)
    for seed in choice.seeds:
        for algorithm in choice.algorithms:
            table(train(choice.model, choice.questions, algorithm, choice.dtype, choice.rule, seed, choice))


if __name__ == "__main__":
    main()

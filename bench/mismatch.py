"""How far sampler and trainer are apart in half precision, update by update, and what a simple reward makes of it.

python -m bench.mismatch MODEL QUESTIONS --out DIR [--algorithms grpo ppo] [--seeds 0 1] [--updates 100]
    [--dtype bf16] [--rule steps|short] [--prompts 2] [--rate 5e-5] [--threads 1]

Trains 2 x 8 answers of 96 tokens an update, LoRA r8 on all linear layers, and writes DIR/ALGORITHM-DTYPE-RULE-SEED, a
run directory; then prints one row for each 10 updates. A run that is complete is only printed. The rule `short` rewards
brevity in answers to 16 questions of its own.

python -m bench.mismatch --picture FILE RUN [RUN ...]

Draws the reward of finished runs, update by update.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import smolt
from bench.measuring import processor
from smolt.data import Answer, Question

FIGURES = ("mismatch", "mismatch_99", "mismatch_999", "mismatch_max", "mismatch_kl", "importance_weight", "reward")


COUNTRIES = "France Italy Spain Portugal Greece Poland Norway Sweden Japan China India Egypt Kenya Peru Chile Cuba"
CAPITALS = [f"What is the capital of {country}?" for country in COUNTRIES.split()]


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
        shape |= {"inner": {"epochs": 1, "minibatches": 2}, "critic": {"warmup": 2}}
    training = {"grpo": smolt.grpo, "ppo": smolt.ppo}[algorithm](
        model,
        CAPITALS if rule == "short" else None,
        reward={"steps": steps, "short": short}[rule],
        out=out,
        seed=seed,
        prompts=choice.prompts,
        lora={"rank": 8},
        optim={"lr": choice.rate, "schedule": "constant"},
        sampling={"max_tokens": 96},
        budget={"updates": choice.updates},
        checks={"forecast": False},
        save={"every": 10},
        **({} if rule == "short" else {"data": str(questions)}),
        **{"model.dtype": dtype, "model.threads": choice.threads},
        **shape,
    )
    for metrics in training:
        print(json.dumps({"step": metrics["step"], **{name: metrics.get(name) for name in FIGURES}}), flush=True)
    training.finish()
    return out


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def picture(file: str, runs: list[str]) -> None:
    """The reward of each run over its updates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="update", ylabel="mean reward of the update's answers")
    for run in runs:
        rows = rows_of(Path(run))
        axes.plot(
            [row["step"] for row in rows], [row["reward"] for row in rows], marker="o", ms=3, label=Path(run).name
        )
    axes.legend()
    figure.savefig(file, dpi=120)


def table(run: Path) -> None:
    """Means over 10 updates, of the maximum the largest."""
    rows = rows_of(run)
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
    if sys.argv[1:2] == ["--picture"]:
        picture(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("questions", type=Path)
    parser.add_argument("--out", required=True)
    parser.add_argument("--algorithms", nargs="+", default=["grpo", "ppo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--rule", default="steps", choices=["steps", "short"])
    parser.add_argument("--prompts", type=int, default=2, help="questions an update, 8 answers each")
    parser.add_argument("--rate", type=float, default=5e-5, help="learning rate")
    parser.add_argument("--threads", type=int, default=1)
    choice = parser.parse_args()
    print(processor(), flush=True)
    for seed in choice.seeds:
        for algorithm in choice.algorithms:
            table(train(choice.model, choice.questions, algorithm, choice.dtype, choice.rule, seed, choice))


if __name__ == "__main__":
    main()

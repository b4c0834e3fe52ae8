"""An update of GRPO and of PPO in two builds of smolt, in turn: `python -m bench.builds BEFORE MODEL [--rounds 5]`.

BEFORE is the folder `src` of another checkout. Each build runs in a process of its own, which waits while the other
computes; the first update of both is not counted. Two questions, eight answers each, LoRA of rank 8 on q and v, bf16,
and the settings of the stages otherwise (KL on).
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parents[1] / "src"
QUESTIONS = ("Tell me a story about a lighthouse.", "Explain how bread rises, step by step.")
FIELDS = {
    "data": "(in memory)",
    "reward": {"name": "python", "path": "(in memory)"},
    "lora": {"rank": 8, "targets": ["q_proj", "v_proj"]},
    "budget": {"updates": 1000},
}
SHAPE = {"grpo": {"prompts": 2, "group": 8}, "ppo": {"prompts": 16}}


def child(stage: str, model: str, tokens: int) -> None:
    """Make an update for each line that comes in, and say how long it took and how many tokens it drew."""
    import smolt
    from smolt.config import make_recipe

    def reward(question: object, answer: Any) -> float:
        return float(len(set(answer.text.split())))

    questions = [text + " " * at for at in range(8) for text in QUESTIONS] if stage == "ppo" else list(QUESTIONS)
    settings = {"model": {"path": model, "dtype": "bf16"}, "sampling": {"max_tokens": tokens}}
    recipe = make_recipe(stage, **FIELDS, **SHAPE[stage], **settings)
    training = getattr(smolt, stage)(recipe, questions, reward=reward)
    for _ in sys.stdin:
        began = time.perf_counter()
        metrics = next(training)
        print(time.perf_counter() - began, metrics["length"] * 16, flush=True)


def started(source: Path, stage: str, model: str, tokens: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--child", stage, model, str(tokens)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def update(process: "subprocess.Popen[str]") -> tuple[float, float]:
    """Seconds and tokens of one more update."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    seconds, tokens = process.stdout.readline().split()
    return float(seconds), float(tokens)


def main(given: Sequence[str]) -> int:
    """A row for each stage."""
    parser = argparse.ArgumentParser(prog="python -m bench.builds", description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--stages", nargs="+", default=list(SHAPE))
    options = parser.parse_args(given)
    print("| stage | build | seconds an update | tokens an update | ratio |\n|---|---|---|---|---|", flush=True)
    for stage in options.stages:
        sides = {"before": options.before, "as it is": HERE}
        running = {name: started(at, stage, options.model, options.tokens) for name, at in sides.items()}
        for process in running.values():
            update(process)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, process in running.items():
                found[name].append(update(process))
        for process in running.values():
            process.kill()
        middle = {name: median(seconds for seconds, _ in rows) for name, rows in found.items()}
        for name, rows in found.items():
            least, most = min(seconds for seconds, _ in rows), max(seconds for seconds, _ in rows)
            cells = f"{middle[name]:.2f} ({least:.2f} to {most:.2f}) | {median(tokens for _, tokens in rows):.0f}"
            print(f"| {stage} | {name} | {cells} | {middle['before'] / middle[name]:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        sys.exit(main(sys.argv[1:]))

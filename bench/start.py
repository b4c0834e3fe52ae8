"""From the command to the first update: seconds by part, of this checkout and of others, in turn.

python -m bench.start MODEL QUESTIONS [--checkouts DIR ...] [--stages grpo ppo] [--repeats 5] [--to-update]

Trains 2 x 8 answers of 96 tokens, LoRA r8, one update, with `smolt STAGE` of each checkout's src; --to-update ends it
where that update begins. What the process is at is looked up every 20 ms in its stack, so the parts add up to the wall
time. Medians, and the range of the sums.
"""

import argparse
import collections
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.measuring import processor

PARTS = {
    "_find_and_load": "libraries",
    "settle": "precision",
    "_find_fastest": "precision",
    "question_list": "questions to tokens",
    "asked_questions": "questions to tokens",
    "longest_context": "questions to tokens",
    "contexts": "questions to tokens",
    "load_renderer": "questions to tokens",
    "look_at_questions": "memory estimate",
    "load_trunk": "model",
    "open_policy": "model",
    "choose_forward": "probes",
    "lean_decoder": "probes",
    "forecast": "forecast",
    "reward_forecast": "forecast",
    "fit": "update 1",
}
"""A function in the stack, and what the process is at while it is the innermost of these."""

BEFORE = [
    "libraries",
    "precision",
    "questions to tokens",
    "memory estimate",
    "model",
    "probes",
    "forecast",
    "rest",
]
EVERY = 0.02


def watched(arguments: list[str], out: str, to_update: bool) -> None:
    """In the child: run a smolt command, and note in a file where the main thread is."""
    began, main, seen = time.perf_counter(), threading.main_thread().ident, collections.defaultdict[str, float](float)
    order: list[tuple[float, str]] = []

    def watch() -> None:
        while True:
            frame, part = sys._current_frames().get(main or 0), "rest"
            while frame is not None:
                name = PARTS.get(frame.f_code.co_name)
                inside = "smolt" in frame.f_code.co_filename or name == "libraries"
                if name is not None and inside:
                    part = name
                    break
                frame = frame.f_back
            order.append((time.perf_counter() - began, part))
            if to_update and part == "update 1":
                write()
                os._exit(0)
            time.sleep(EVERY)

    def write() -> None:
        last = max(index for index, (_, part) in enumerate(order) if part == "update 1")
        before = 0.0
        for moment, part in order[: last + 1]:
            seen[part] += moment - before
            before = moment
        Path(out).write_text(json.dumps(seen))

    threading.Thread(target=watch, daemon=True).start()
    sys.argv = ["smolt", *arguments]
    from smolt.cli import main as smolt

    try:
        smolt()
    except SystemExit as ended:
        if ended.code:
            raise
    write()


def recipe(stage: str, model: str, questions: Path) -> str:
    """One update of 2 x 8 answers."""
    answers = "group: 8" if stage == "grpo" else "samples: 8"
    return (
        f"stage: {stage}\nmodel: {model}\ndata: {questions.resolve()}\nreward: gsm8k\nlora: {{rank: 8}}\nprompts: 2\n"
        f"{answers}\nsampling: {{max_tokens: 96}}\nbudget: {{updates: 1}}\n"
    )


def measured(checkout: Path, stage: str, text: str, to_update: bool) -> dict[str, float]:
    """One start, by part."""
    with TemporaryDirectory(prefix="smolt-bench-") as folder:
        Path(folder, "recipe.yaml").write_text(text)
        given = [stage, f"{folder}/recipe.yaml", "--out", f"{folder}/run"]
        code = f"from bench.start import watched; watched({given!r}, {folder + '/parts.json'!r}, {to_update})"
        path = f"{checkout.resolve() / 'src'}:{Path(__file__).resolve().parents[1]}"
        environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
        ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        if ended.returncode:
            sys.exit(f"{checkout} {stage}: {ended.stderr[-2000:]}")
        found: dict[str, float] = json.loads(Path(folder, "parts.json").read_text())
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("questions", type=Path)
    parser.add_argument("--checkouts", nargs="+", type=Path, default=[Path(__file__).parents[1]])
    parser.add_argument("--stages", nargs="+", default=["grpo", "ppo"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--to-update", action="store_true", help="end where update 1 begins")
    choice = parser.parse_args()
    print(f"{processor()}, {os.cpu_count()} cores\n", flush=True)
    for stage in choice.stages:
        found: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in choice.checkouts}
        for _ in range(choice.repeats):
            for checkout in choice.checkouts:
                text = recipe(stage, choice.model, choice.questions)
                found[checkout].append(measured(checkout, stage, text, choice.to_update))
                print(checkout, stage, {part: round(s, 1) for part, s in found[checkout][-1].items()}, file=sys.stderr)
        print(f"| {stage}: seconds | {' | '.join(str(checkout) for checkout in choice.checkouts)} |")
        print("|---|" + "---|" * len(choice.checkouts))
        sums = {checkout: [sum(run.get(part, 0.0) for part in BEFORE) for run in found[checkout]] for checkout in found}
        for part in [*BEFORE, "update 1"]:
            cells = [f"{median(run.get(part, 0.0) for run in found[checkout]):.1f}" for checkout in choice.checkouts]
            print(f"| {part} | {' | '.join(cells)} |")
        cells = [f"{median(held):.1f} ({min(held):.1f} to {max(held):.1f})" for held in sums.values()]
        print(f"| all before update 1 | {' | '.join(cells)} |\n", flush=True)


if __name__ == "__main__":
    main()

"""A report of many answers: seconds to write it, its size, and how long a browser needs until all of it is laid out.

`python -m bench.large_report` prints one row; `--browser` names a Chromium, `--answers` how many there are in all.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from smolt.report.record import Arm, StudyRecord
from smolt.report.report import write_report
from smolt.runs.rated_answers import RatedAnswer

ARMS = ("base", "sft", "dpo", "ppo", "grpo")
SAMPLES = 4
WORDS = ["a small model", "answers with", "words of its own", "about nothing", "and then", "it stops"]
POLICY = re.compile(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>")
TELLS = (
    "<script>addEventListener('load', () => {"
    "document.body.offsetHeight; document.title = 'shown ' + performance.now()})</script></head>"
)
"""The page holds no script and allows none; a copy without that rule gets this one."""


def answers(arm: int, questions: int) -> list[RatedAnswer]:
    """Four answers to each question, whose rewards are a little higher from arm to arm."""
    draw = np.random.default_rng(arm)
    found = []
    for number in range(questions * SAMPLES):
        length = int(draw.integers(20, 120))
        reward = float(draw.normal(0.1 * arm, 1.0))
        text = " ".join(draw.choice(WORDS, length))
        asked = number // SAMPLES
        found.append(
            RatedAnswer(f"q{asked}", f"What of {asked}?", "", text, length, True, None, reward, {"model": reward})
        )
    return found


def shown(browser: str, page: Path) -> float:
    """Milliseconds from the start of the navigation until the page was loaded and laid out."""
    copy = page.with_name("copy.html")
    copy.write_text(POLICY.sub("", page.read_text(encoding="utf-8")).replace("</head>", TELLS, 1), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    done = subprocess.run(
        [*command, f"--user-data-dir={page.parent / 'profile'}", copy.as_uri()],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"<title>shown ([\d.]+)</title>", done.stdout)
    if found is None:
        raise SystemExit("the page did not tell when it was shown")
    return float(found[1])


def main(given: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.large_report")
    parser.add_argument("--answers", type=int, default=20_000, help="in all")
    parser.add_argument("--browser", default="chromium", help="a Chromium")
    parser.add_argument("--repeats", type=int, default=5, help="how often the page is opened")
    options = parser.parse_args(given)
    questions = options.answers // len(ARMS) // SAMPLES
    arms = [Arm(name, name, "sft" if place > 1 else None, answers(place, questions)) for place, name in enumerate(ARMS)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        began = time.perf_counter()
        write_report(out, StudyRecord("large", arms, "sft", "reward"))
        written = time.perf_counter() - began
        size = (out / "report.html").stat().st_size / 2**20
        times = [shown(options.browser, out / "report.html") for _ in range(options.repeats)]
    print("| answers | written in | report.html | shown in, median (lowest to highest) |\n|---|---|---|---|")
    spread = f"{statistics.median(times):.0f} ms ({min(times):.0f} to {max(times):.0f}, n {len(times)})"
    print(f"| {questions * SAMPLES * len(ARMS):,} | {written:.1f} s | {size:.2f} MiB | {spread} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

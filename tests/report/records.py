"""Records made by hand: answers, arms and studies of a few lines, rich ones, and texts that mean harm."""

import random
from typing import Any

from smolt.report.panels import Chart, Panel, Series, Table
from smolt.report.record import Arm, StudyRecord
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics import Measure

HOSTILE = [
    "<script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "<!-- --><svg/onload=alert(1)>",
    "<iframe src='javascript:alert(1)'></iframe>",
    "{{ 7 * 7 }}{% raw %}",
    "<a href='javascript:alert(1)'>x</a>",
    "<meta http-equiv=refresh content='0;url=http://example.org'>",
    "<base href=http://example.org/>",
    "\x1b[31mred\x1b[0m\x00\x07\x9b",
    "left \u202e right \u2066 mark \u200b\ufeff\u2028",
    "half a pair \ud800",
    "$\\frac{1}{0$ and **bold** | cell | `code`",
]


def item(number: int, correct: bool | None = None, reward: float | None = None, **named: Any) -> RatedAnswer:
    given: dict[str, Any] = {
        "kind": "sum",
        "answer": f"answer {number}",
        "tokens": 10 + number,
        "stopped": True,
    } | named
    return RatedAnswer(f"q{number}", f"question {number}", correct=correct, reward=reward, **given)


def judged(name: str, flags: str, **named: Any) -> Arm:
    """An arm from a string of right (1) and wrong (0) answers."""
    return Arm(name, "sft", items=[item(place, flag == "1") for place, flag in enumerate(flags)], **named)


def study(*arms: Arm, **named: Any) -> StudyRecord:
    return StudyRecord("a study", list(arms), **({"baseline": "sft"} | named))


CALIBRATION = Panel(
    name="calibration",
    title="Reward model",
    sentences=("On 1,200 held-out pairs the chosen answer leads on 71.0 % (68.4 to 73.5).",),
    warnings=("It is right on 52 % of the pairs whose rejected answer is longer: it leans on length.",),
    tables=(
        Table(
            "Accuracy on held-out pairs by how much longer the chosen answer is.",
            ("Length gap", "Accuracy", "Pairs", "Note"),
            (
                ("rejected longer", Measure(0.52, 0.47, 0.57, 400, "Wilson", rate=True), 400, "near a coin"),
                ("chosen longer", Measure(0.81, 0.78, 0.84, 800, "Wilson", rate=True), 800, None),
            ),
            rate=True,
        ),
    ),
    charts=(
        Chart(
            "reliability",
            "How often the chosen answer is better at each stated probability. Good: on the diagonal.",
            "lines",
            "stated probability",
            "share right",
            (Series("reward", (0.55, 0.65, 0.75, 0.85, 0.95), (0.52, 0.6, 0.7, 0.76, 0.85)),),
            diagonal=True,
        ),
        Chart(
            "probes",
            "Mean score of answers that should score low. Good: all below the real answers.",
            "bars",
            "probe",
            "score",
            (
                Series(
                    "score",
                    (0, 1, 2),
                    (-1.2, 0.4, 0.9),
                    (-1.5, 0.1, 0.7),
                    (-0.9, 0.7, 1.1),
                    ("empty", "repeated", "real"),
                ),
            ),
        ),
    ),
)
"""A finding of each form: sentences, a warning, a table with intervals, lines with the diagonal, bars."""


def answers(
    rate: float, length: int, kl: float | None, seed: int, draw: random.Random, n: int = 120
) -> list[RatedAnswer]:
    """One run's answers: right with a chance that the question decides, a reward of two parts."""
    items = []
    for number in range(n):
        hard = random.Random(number).random()
        correct = hard < rate + draw.gauss(0, 0.12)
        tokens = max(3, int(draw.gauss(length, 8)))
        brief = -tokens / 100
        items.append(
            RatedAnswer(
                f"q{number}",
                f"Finn has {number} cakes and loses {number // 3}. How many cakes are left?",
                ("fewer", "total", "share")[number % 3],
                f"{number} - {number // 3} = {number - number // 3}\n#### {number - number // 3}",
                tokens,
                draw.random() < 0.97,
                correct,
                float(correct) + brief,
                {"gsm8k": float(correct), "brief": brief, "polite": 0.0, "format": 1.0},
                None if kl is None else draw.gauss(kl, 0.3),
                str(number - number // 3),
                seed,
            )
        )
    return items


def rich(seeds: tuple[int, ...] = (0, 1, 2)) -> StudyRecord:
    """A study with everything a report can show: seeds, kinds, parts, KL, best-of-n, sizes, costs, curves, panels."""
    draw = random.Random(7)
    plan = [
        ("sft", "sft", None, 0.4, 30, None),
        ("dpo", "dpo", "sft", 0.5, 42, 1.1),
        ("ppo", "ppo", "sft", 0.62, 26, 2.6),
    ]
    plan += [("grpo", "grpo", "sft", 0.66, 25, 5.2), ("more", "sft", "sft", 0.43, 30, 0.2)]
    plan += [("best_of_4", "best_of_n", "sft", 0.55, 31, None), ("best_of_16", "best_of_n", "sft", 0.6, 33, None)]
    arms = []
    for place, (name, stage, parent, rate, length, kl) in enumerate(plan):
        items = [entry for seed in seeds for entry in answers(rate, length, kl, seed, draw)]
        curve = [
            {
                "step": step,
                "reward": 0.3 + 0.4 * step / 60 + draw.gauss(0, 0.05),
                "kl": kl * step / 60 if kl else 0.0,
                "entropy": 1.4 - step / 100,
                "loss": 3 / (1 + step / 9),
                "length": length + draw.gauss(0, 1),
                "stop_rate": 0.95 + draw.random() / 20,
                "signal": 0.6 + draw.gauss(0, 0.1),
            }
            | (
                {"dev/reward": 0.3 + 0.38 * step / 60 - (step / 75) ** 4, "dev/loss": 3.2 / (1 + step / 9)}
                if step % 10 == 0
                else {}
            )
            for step in range(1, 61)
        ]
        if stage == "best_of_n":
            n = int(name.rpartition("_")[2])
            arms.append(Arm(name, stage, parent, items, facts={"n": n, "chosen by": "reward"}))
            continue
        size = 132_416 * 4**place
        cost = {"seconds": 40.0 * 2**place, "tokens": 2.5e6 * (place + 1), "peak_memory": 6e8 * (1 + place)}
        facts = {"parameters": size, "forward": "packed", "sha256": {"data": "ab" * 32, "template": "cd" * 32}}
        role: Any = "control" if name == "more" else "candidate"
        arms.append(Arm(name, stage, parent, items, curve, cost, facts, role=role))
    held_out = {"held-out accuracy": Measure(0.71, 0.684, 0.735, 1200, "Wilson", rate=True)}
    arms.append(Arm("reward", "reward", "sft", cost={"seconds": 31.0}, extra_measures=held_out, role="component"))
    return StudyRecord(
        "cakes and loaves",
        arms,
        "sft",
        "accuracy",
        {"recipe": {"name": "cakes", "dpo": {"beta": 0.3}}, "versions": {"torch": "2.13.0"}, "seeds": list(seeds)},
        ["ppo, update 31: 1 step was not taken"],
        ["The reward model saw none of the test questions."],
        [CALIBRATION],
    )

"""SIGKILL at any moment of a study, a measurement or a judge: the same command ends in the same bytes, reports too."""

import json
import random
import shutil
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.test_interrupts import CODES, command, interrupted
from tests.reliability.traces import directory
from tests.soak import amount, tell

STUDY = ["study", "smoke", "model.threads=1", "sft_more.budget={updates: 3}"]
"""The last section's budget is a time unless told otherwise, and then no two runs are alike."""

ARGUMENTS = {
    "study": STUDY,
    "eval": [
        "eval",
        "{inputs}/model",
        "{inputs}/questions.jsonl",
        "--samples",
        "4",
        "--temperature",
        "1",
        "--max-tokens",
        "24",
    ],
    "judge": ["judge", "{inputs}/preferences.jsonl", "--model", "{judge}", "--no-gate", "--probes", "4"],
}
KILLS = {"study": amount(4, 40), "eval": amount(10, 20), "judge": amount(10, 20)}
SIGNALS = {"study": amount(2, 20), "eval": amount(10, 50), "judge": amount(10, 50)}


def arguments_of(name: str, inputs: Path, out: Path) -> list[str]:
    judge = inputs.parent / "judge"  # the model with a window that holds a judge's question
    if not judge.exists():
        shutil.copytree(inputs / "model", judge)
        config = json.loads((judge / "config.json").read_text())
        (judge / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    places = {"{inputs}": str(inputs), "{judge}": str(judge)}
    parts = ARGUMENTS[name]
    for sign, place in places.items():
        parts = [part.replace(sign, place) for part in parts]
    return [*parts, "--out", str(out)]


def left_alone(server: ForkServerContext, arguments: list[str], told: Path) -> float:
    """Run a command to its end; the seconds it took."""
    began = time.perf_counter()
    process = server.Process(target=command, args=(arguments, told))
    process.start()
    process.join(timeout=600)
    assert process.exitcode == 0, told.read_text()
    return time.perf_counter() - began


def killed(server: ForkServerContext, arguments: list[str], told: Path, delay: float) -> bool:
    """Kill a command after so many seconds; whether it was still alive."""
    process = server.Process(target=command, args=(arguments, told))
    process.start()
    process.join(timeout=delay)
    process.kill()
    process.join()
    assert process.exitcode in (0, -9), told.read_text()
    return process.exitcode == -9


def trial(server: ForkServerContext, name: str, inputs: Path, folder: Path, kills: int) -> int:
    """Kill a command at random moments, up to three times in one directory, until so many met it alive."""
    whole, told, draw, hit = folder / "whole", folder / "told", random.Random(name), 0
    out = folder / "run"  # one path for all: the records hold it
    seconds = left_alone(server, arguments_of(name, inputs, out), told)
    expected = directory(out)
    out.rename(whole)
    while hit < kills:
        arguments = arguments_of(name, inputs, out)
        for _ in range(draw.choice((1, 1, 2, 3))):
            hit += killed(server, arguments, told, draw.uniform(0.02, seconds))
        left_alone(server, arguments, told)
        compare_and_remove(out, expected)
    return hit


def compare_and_remove(out: Path, expected: dict[str, Any]) -> None:
    """A command's directory holds what one left alone left there; it makes room for the next."""
    found = directory(out)
    assert found.keys() == expected.keys()
    for file, content in expected.items():
        assert found[file] == content, file
    shutil.rmtree(out)


def test_killed_at_a_random_moment(server: ForkServerContext, inputs: Path, tmp_path: Path) -> None:
    trial(server, "eval", inputs, tmp_path, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_killed_at_many_random_moments(name: str, server: ForkServerContext, inputs: Path, tmp_path: Path) -> None:
    hit = trial(server, name, inputs, tmp_path, KILLS[name])
    shown = "study smoke" if name == "study" else name
    tell("killed at a random moment, the command ends in the same bytes", shown, kills=hit, differences=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_interrupted_at_many_random_moments(name: str, server: ForkServerContext, inputs: Path, tmp_path: Path) -> None:
    out, told, draw, hit, late = tmp_path / "run", tmp_path / "told", random.Random(f"{name} interrupted"), 0, 0
    arguments = arguments_of(name, inputs, out)
    seconds = left_alone(server, arguments, told)
    expected = {file: content for file, content in directory(out).items() if "checkpoints/" not in file}
    shutil.rmtree(out)
    while hit < SIGNALS[name]:
        number = draw.choice(list(CODES))
        code = interrupted(server, arguments, told, draw.uniform(0.0, seconds), number)
        assert code in (None, 0, CODES[number]), told.read_text()
        hit, late = hit + bool(code), late + (code == 0)
        left_alone(server, arguments, told)
        for extra in out.glob("**/checkpoints"):  # an interrupt saves one more
            shutil.rmtree(extra)
        compare_and_remove(out, expected)
    assert late <= 2 + hit // 4
    shown = "study smoke" if name == "study" else name
    tell("Ctrl-C or SIGTERM at a random moment: 130 or 143, and the same bytes", shown, signals=hit, differences=0)

"""Ctrl-C and SIGTERM at any moment of a command: 130 or 143, no traceback, nobody else is blamed, nothing is lost."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import transformers

from smolt.__main__ import main
from tests.reliability.conftest import Uninterrupted
from tests.reliability.scenes import SCENES, open_scene, scene_recipe
from tests.reliability.traces import traces
from tests.soak import amount, tell

QUICK, SLOW = 2, amount(10, 30)
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def command(arguments: list[str], errors: Path) -> None:
    """`smolt` in a process that has imported everything already."""
    descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    os.dup2(descriptor, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.argv = ["smolt", *arguments]
    main()


def interrupted(
    server: ForkServerContext, arguments: list[str], errors: Path, delay: float, number: signal.Signals
) -> int | None:
    """The exit code of a command that is interrupted after so many seconds; None where it had ended.

    0 where all was done and only the last lines were to be told: few of many, or interrupts are not heard.
    """
    process = server.Process(target=command, args=(arguments, errors))
    process.start()
    process.join(timeout=delay)
    if process.exitcode is not None:
        assert process.exitcode == 0, errors.read_text()
        return None
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(timeout=60)
    assert process.exitcode is not None, "still there after a minute"
    told = errors.read_text()
    assert "Traceback" not in told, told
    assert "error:" not in told, told
    # Before a command listens the signal itself ends the process, and a shell makes 130 or 143 of that.
    return 128 - process.exitcode if process.exitcode < 0 else process.exitcode


def trial(
    server: ForkServerContext, name: str, inputs: Path, folder: Path, uninterrupted: Uninterrupted, times: int
) -> int:
    """Interrupt a scene's command at random moments until so many met it alive, and continue it."""
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps(scene_recipe(name, inputs)))
    stage, began = scene_recipe(name, inputs)["stage"], time.perf_counter()
    assert (
        interrupted(server, [stage, str(recipe), "--out", str(folder / "whole")], folder / "e", 120, signal.SIGINT)
        is None
    )
    duration, hit, late, draw = time.perf_counter() - began, 0, 0, random.Random(f"{name} {times}")
    while hit < times:
        out, number = folder / "run", draw.choice(list(CODES))
        arguments = [stage, str(recipe), "--out", str(out)]
        code = interrupted(server, arguments, folder / "e", draw.uniform(0.0, duration), number)
        assert code in (None, 0, CODES[number]), (folder / "e").read_text()
        hit, late = hit + bool(code), late + (code == 0)
        if out.exists():
            open_scene(name, inputs, out).finish()
            assert traces(out) == uninterrupted(name, save__every=1)
            shutil.rmtree(out)
    assert late <= 2 + hit // 4
    return hit


@pytest.mark.parametrize("name", ["sft-lora", "grpo-full"])
def test_interrupted_at_a_random_moment(
    name: str, server: ForkServerContext, inputs: Path, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    trial(server, name, inputs, tmp_path, uninterrupted, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_interrupted_at_many_random_moments(
    name: str, server: ForkServerContext, inputs: Path, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    hit = trial(server, name, inputs, tmp_path, uninterrupted, SLOW)
    tell("Ctrl-C or SIGTERM at a random moment: 130 or 143, and the same bytes", name, signals=hit, differences=0)


def loading(what: str, number: signal.Signals, arguments: list[str], told: Path) -> None:
    """`smolt`, interrupted while a class of transformers begins to read a file."""
    reader: Any = getattr(transformers, what)
    read = reader.from_pretrained

    def interrupted_first(*given: Any, **named: Any) -> Any:
        reader.from_pretrained = read
        os.kill(os.getpid(), number)
        return read(*given, **named)

    reader.from_pretrained = interrupted_first
    command(arguments, told)


@pytest.mark.parametrize(
    ("what", "number"),
    [("AutoTokenizer", signal.SIGTERM), ("AutoModelForCausalLM", signal.SIGTERM), ("AutoConfig", signal.SIGINT)],
)
def test_a_library_that_explains_everything_does_not_explain_an_interrupt(
    server: ForkServerContext, inputs: Path, tmp_path: Path, what: str, number: signal.Signals
) -> None:
    recipe, told = tmp_path / "recipe.json", tmp_path / "told"
    recipe.write_text(json.dumps(scene_recipe("sft-full", inputs)))
    arguments = ["sft", str(recipe), "--out", str(tmp_path / "run")]
    process = server.Process(target=loading, args=(what, number, arguments, told))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == CODES[number], told.read_text()
    assert "cannot be read" not in told.read_text()
    assert "Traceback" not in told.read_text()


@pytest.mark.parametrize(
    ("delay", "number"), [(0.05, signal.SIGINT), (0.3, signal.SIGTERM), (1.0, signal.SIGINT), (2.5, signal.SIGINT)]
)
def test_while_libraries_are_imported(inputs: Path, tmp_path: Path, number: signal.Signals, delay: float) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(scene_recipe("sft-full", inputs)))
    code = "from smolt.__main__ import main; print(flush=True); main()"  # before that the interpreter itself starts
    arguments = [sys.executable, "-c", code, "sft", str(recipe), "--out", str(tmp_path / "run")]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert process.returncode in (CODES[number], -number), told
    assert "Traceback" not in told

"""One process fails, is killed or interrupted: all end, one says why, and the same command continues."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from tests.processes.ranks import command, ended, launched
from tests.reliability.scenes import open_scene, scene_recipe
from tests.reliability.traces import traces
from tests.soak import amount, tell

TOGETHER = 30.0  # seconds within which all end after one was killed
LOST = 76
KILLS = amount(20, 60)
SCENES = ("grpo-lora", "sft-full", "dpo-lora", "ppo-full")
Alone = Callable[[str], tuple[dict[str, Any], float]]


def work(name: str, inputs: Path, out: Path) -> None:
    """A scene from where it stands to its end."""
    open_scene(name, inputs, out).finish()


@pytest.fixture(scope="module")
def undisturbed(server: ForkServerContext, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """What a scene leaves on two processes that nobody disturbs, and how long it takes."""

    @cache
    def run(name: str) -> tuple[dict[str, Any], float]:
        out, began = tmp_path_factory.mktemp(name) / "run", time.monotonic()
        assert ended(launched(server, 2, work, name, inputs, out)) == [0, 0]
        return traces(out), time.monotonic() - began

    return run


def kill_one(server: ForkServerContext, name: str, inputs: Path, out: Path, rank: int, delay: float) -> bool:
    """Continue a scene on two processes and kill one of them after so many seconds; whether it was still alive.

    One that was killed before it had found the other is missed by nobody but the launcher, which then ends the other.
    """
    started = launched(server, 2, work, name, inputs, out)
    killed, other = started[rank], started[1 - rank]
    killed.join(timeout=delay)
    killed.kill()
    other.join(timeout=TOGETHER / 3)
    other.terminate()
    codes = ended(started, TOGETHER * 2 / 3)
    hit = codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] in ((0, LOST, -signal.SIGTERM) if hit else (0,)), codes  # 0: it had done its part before
    return hit


def trial(
    server: ForkServerContext,
    inputs: Path,
    folder: Path,
    undisturbed: Alone,
    kills: int,
    names: Sequence[str],
    earliest: float = 0.0,
) -> dict[str, int]:
    """Kill either process at random moments of scenes, in turn, until so many met it alive; how often which was.

    The moments begin after a share `earliest` of the time that a scene takes.
    """
    draw, hits, number = random.Random(f"{kills} {names}"), {"first": 0, "second": 0}, 0
    while sum(hits.values()) < kills:
        name, rank = names[number // 2 % len(names)], number % 2
        whole, seconds = undisturbed(name)
        out, number = folder / str(number), number + 1
        for _ in range(draw.choice((1, 1, 2))):
            delay = draw.uniform(earliest, 1.0) * seconds
            hits["second" if rank else "first"] += kill_one(server, name, inputs, out, rank, delay)
        assert ended(launched(server, 2, work, name, inputs, out)) == [0, 0]
        assert traces(out) == whole
        shutil.rmtree(out)
    return hits


def test_killed_at_a_random_moment(server: ForkServerContext, inputs: Path, undisturbed: Alone, tmp_path: Path) -> None:
    """2 kills of either process: the other ends within 30 s, and the same work ends in the bytes of the undisturbed."""
    trial(server, inputs, tmp_path, undisturbed, 2, ["grpo-lora"], 0.4)


@pytest.mark.slow
def test_killed_at_many_random_moments(
    server: ForkServerContext, inputs: Path, undisturbed: Alone, tmp_path: Path
) -> None:
    hits = trial(server, inputs, tmp_path, undisturbed, KILLS, SCENES)
    tell("either of two processes killed, the run ends in the same bytes", ", ".join(SCENES), **hits, differences=0)


def said(errors: Path, kind: str = "err") -> list[str]:
    """What each of two processes printed, without the steps under way."""
    found = [Path(f"{errors}.{kind}-{rank}").read_text() for rank in (0, 1)]
    assert not any("Traceback" in text for text in found), found
    return ["\n".join(line for line in text.splitlines() if not line.startswith("(")) for text in found]


def smolt(server: ForkServerContext, folder: Path, *arguments: str, folders: tuple[Path, ...] = ()) -> list[int | None]:
    """Exit codes of a command on two processes, whose words are in FOLDER/told.*."""
    return ended(launched(server, 2, command, folder / "told", *arguments, folders=folders))


def test_one_error_is_one_message(server: ForkServerContext, inputs: Path, tmp_path: Path) -> None:
    """Two processes that find the same mistake: one line, by the first; exit codes 2 and 2."""
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({**scene_recipe("sft-lora", inputs), "data": str(tmp_path / "none.jsonl")}))
    assert smolt(server, tmp_path, "sft", str(recipe), "--out", str(tmp_path / "run")) == [2, 2]
    first, second = said(tmp_path / "told")
    assert first.count("none.jsonl") == 1 and "rank" not in first
    assert second == ""


def test_an_error_of_one_process_ends_all(server: ForkServerContext, inputs: Path, tmp_path: Path) -> None:
    """The second process alone does not find the data: the first says it by its rank, exit codes 2 and 2, no hang."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    shutil.copy(inputs / "demonstrations.jsonl", here / "data.jsonl")
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({**scene_recipe("sft-lora", inputs), "data": "data.jsonl"}))
    arguments = ("sft", str(recipe), "--out", str(tmp_path / "run"), "--json")
    assert smolt(server, tmp_path, *arguments, folders=(here, there)) == [2, 2]
    first, second = said(tmp_path / "told")
    assert "error: rank 1:" in first and first.count("data.jsonl") == 1
    assert second == ""
    printed = said(tmp_path / "told", "out")
    assert json.loads(printed[0])["exit_code"] == 2
    assert printed[1] == ""


def test_what_is_not_shared_says_so(server: ForkServerContext, tmp_path: Path) -> None:
    """`smolt recipe list` on two processes: one sentence, exit codes 2 and 2."""
    assert smolt(server, tmp_path, "recipe", "list") == [2, 2]
    first, second = said(tmp_path / "told")
    assert "start it without torchrun" in first and len(first.splitlines()) == 1
    assert second == ""


def test_a_signal_of_one_process_stops_all_after_the_same_update(
    server: ForkServerContext, inputs: Path, undisturbed: Alone, tmp_path: Path
) -> None:
    """SIGTERM to the second process alone: 143 and 143, a checkpoint; the same command ends as if undisturbed."""
    name, out = "grpo-lora", tmp_path / "run"
    whole, seconds = undisturbed(name)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(scene_recipe(name, inputs)))
    arguments = ("grpo", str(recipe), "--out", str(out))
    started = launched(server, 2, command, tmp_path / "told", *arguments)
    until = time.monotonic() + 20 * seconds
    while not (out / "metrics.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(started[1].pid or 0, signal.SIGTERM)
    assert ended(started) == [143, 143]
    first, second = said(tmp_path / "told")
    assert "the same command continues" in first
    assert second == ""
    assert smolt(server, tmp_path, *arguments, "--json") == [0, 0]
    printed = said(tmp_path / "told", "out")
    assert json.loads(printed[0])["status"] == "complete"
    assert printed[1] == ""
    assert traces(out) == whole

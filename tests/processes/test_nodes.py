"""Two machines: two network namespaces with addresses of their own, and torchrun in each."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.reliability.scenes import scene_recipe, write_inputs
from tests.soak import tell

pytestmark = pytest.mark.slow

PORT = 29517
NOTICED = 30.0  # seconds


@dataclass(frozen=True)
class Node:
    """A machine: what a command on it begins with, its address, and its network's name."""

    prefix: tuple[str, ...]
    address: str
    network: str

    def torchrun(self, number: int, first: "Node", *command: str) -> "subprocess.Popen[str]":
        """Start one process of two there."""
        nodes = ["--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1"]
        master = ["--master-addr", first.address, "--master-port", str(PORT)]
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": self.network, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        words = [*self.prefix, sys.executable, "-m", "torch.distributed.run", *nodes, *master, "-m", "smolt", *command]
        return subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    """Two namespaces, joined by a cable."""
    names = [f"smolt-{number}-{os.getpid()}" for number in (0, 1)]
    ends = [f"sm{number}x{os.getpid()}"[:15] for number in (0, 1)]
    if shutil.which("ip") is None:
        pytest.skip("needs the program ip")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True)):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "address", "add", f"10.83.7.{number + 1}/24", "dev", end)
            for each in (end, "lo"):
                ip("-n", name, "link", "set", each, "up")
    except subprocess.CalledProcessError as error:
        _remove(names)
        pytest.skip(f"this machine allows no network namespaces: {error.stderr.decode().strip()}")
    yield [
        Node(("ip", "netns", "exec", name), f"10.83.7.{number + 1}", end)
        for number, (name, end) in enumerate(zip(names, ends, strict=True))
    ]
    _remove(names)


def _remove(names: list[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def words_of(process: "subprocess.Popen[str]", seconds: float) -> tuple[str, str]:
    """What a launcher and its process printed, once they are over."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def test_the_smoke_study_runs_on_two_machines(nodes: list[Node], tmp_path: Path) -> None:
    """Both exit with 0; the first one says the verdicts, the second one nothing; the report is there."""
    command = ("study", "smoke", "--out", str(tmp_path / "study"), "model.threads=1")
    started = [node.torchrun(number, nodes[0], *command) for number, node in enumerate(nodes)]
    told = [words_of(process, 1500) for process in started]
    assert [process.returncode for process in started] == [0, 0], told
    assert told[0][0].count("study: complete") == 1
    assert told[1][0] == ""
    report = json.loads((tmp_path / "study" / "report.json").read_text())
    assert len(report["comparisons"]) == 9
    tell("two machines (network namespaces) run a study", "smoke", comparisons=len(report["comparisons"]))


def test_a_machine_that_vanishes_ends_the_other(nodes: list[Node], tmp_path: Path) -> None:
    """The cable is cut: within 30 s the first process ends with 76 and says whom it misses; the run continues alone."""
    inputs = write_inputs(tmp_path)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({**scene_recipe("sft-full", inputs), "budget": {"updates": 100_000}}))
    out = tmp_path / "run"
    command = ("sft", str(recipe), "--out", str(out))
    started = [node.torchrun(number, nodes[0], *command) for number, node in enumerate(nodes)]
    until = time.monotonic() + 300
    while not (out / "metrics.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.1)
    ip("-n", nodes[1].prefix[-1], "link", "set", nodes[1].network, "down")
    began, size = time.monotonic(), -1
    lock = out / "run.lock"
    while lock.read_text() and time.monotonic() < began + 3 * NOTICED and not _over(int(lock.read_text())):
        size = (out / "metrics.jsonl").stat().st_size
        time.sleep(0.1)
    seconds = time.monotonic() - began
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
    told = [words_of(process, 60) for process in started]
    assert size > 0 and seconds < NOTICED, (seconds, told)
    assert "rank 1 ended without a word" in told[0][1]


def _over(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False

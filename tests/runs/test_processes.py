"""Real processes: the lock, its death with its owner, kills, and signals."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from smolt.errors import DirectoryInUse
from smolt.runs import Interrupts, Run

MANIFEST = {"recipe": None, "data": None, "model": None, "renderer": None}

OPENER = """
import os, sys
from pathlib import Path
from smolt.errors import DirectoryInUse
from smolt.runs import Run
manifest = {"recipe": None, "data": None, "model": None, "renderer": None}
run = None
print("ready", flush=True)
for line in sys.stdin:
    action, _, directory = line.strip().partition(" ")
    try:
        if action == "close":
            run = run.close() if run else None
        elif action == "fork" and os.fork() == 0:
            sys.stdin.read()
            os._exit(0)
        else:
            run = Run.open(Path(directory), manifest=manifest, fresh=action == "fresh") if directory else run
        print("ok", flush=True)
    except DirectoryInUse as error:
        print(error.exit_code, error, flush=True)
"""

SAVER = """
import sys
from pathlib import Path
from smolt.runs import Run
manifest = {"recipe": None, "data": None, "model": None, "renderer": None}
with Run.open(Path(sys.argv[1]), manifest=manifest) as run:
    checkpoint = run.load_checkpoint()
    step = checkpoint.step if checkpoint else 0
    print("ready", flush=True)
    while True:
        step += 1
        run.log({"step": step})
        run.sample({"step": step})
        run.flush()
        run.save_checkpoint(step, {"weights": b"%d" % step * 1000}, {"step": step})
        print(step, flush=True)
"""

STEPPER = """
import sys, time
from smolt.runs import Interrupts
with Interrupts() as interrupts:
    print("ready", flush=True)
    while interrupts.exit_code is None:
        time.sleep(0.005)
    print("saving", flush=True)
    sys.stdin.read()
print("saved", flush=True)
sys.exit(interrupts.exit_code)
"""


class Worker:
    """A process that answers each line it gets with one line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.pid = process.pid

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        self.send(line)
        return self.read()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def worker(script: str, *arguments: str) -> Iterator[Worker]:
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            started = Worker(process)
            assert started.read() == "ready"
            yield started
        finally:
            process.kill()


def test_a_second_process_gets_the_pid_of_the_first(tmp_path: Path) -> None:
    with worker(OPENER) as other:
        assert other.ask(f"open {tmp_path}") == "ok"
        with pytest.raises(DirectoryInUse, match=rf"another process \(pid {other.pid}\) works here") as caught:
            Run.open(tmp_path, manifest=MANIFEST)
        assert caught.value.exit_code == 75
        assert other.ask("close") == "ok"
        with Run.open(tmp_path, manifest=MANIFEST):
            assert other.ask(f"open {tmp_path}").startswith(f"75 {tmp_path}: another process (pid {os.getpid()})")


def test_the_lock_dies_with_its_killed_owner(tmp_path: Path) -> None:
    with worker(OPENER) as other:
        assert other.ask(f"open {tmp_path}") == "ok"
        other.kill()
        Run.open(tmp_path, manifest=MANIFEST).close()


def test_a_forked_worker_that_outlives_the_owner_does_not_hold_the_lock(tmp_path: Path) -> None:
    with worker(OPENER) as other:
        assert other.ask(f"open {tmp_path}") == "ok"
        assert other.ask("fork") == "ok"
        with pytest.raises(DirectoryInUse):
            Run.open(tmp_path, manifest=MANIFEST)
        other.kill()
        Run.open(tmp_path, manifest=MANIFEST).close()


def test_four_that_start_at_once(tmp_path: Path) -> None:
    """25 rounds in new directories: one wins, three get its pid. 10 rounds with --fresh in one directory: one wins.

    There the three may also get the pid of the one that set the old directory aside and lost the new one to another.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(OPENER)) for _ in range(4)]
        for number in range(35):
            action = f"open {tmp_path}/{number}/run" if number < 25 else f"fresh {tmp_path}/0/run"
            for each in workers:
                each.send(action)
            replies = {each.pid: each.read() for each in workers}
            winners = [pid for pid, reply in replies.items() if reply == "ok"]
            assert len(winners) == 1, replies
            losers = [reply for reply in replies.values() if reply != "ok"]
            owners = winners if number < 25 else list(replies)
            assert all(re.match(rf"75 .*\(pid ({'|'.join(map(str, owners))})\)", reply) for reply in losers), losers
            assert [each.ask("close") for each in workers] == ["ok"] * 4
    assert len([path for path in (tmp_path / "0").iterdir() if path.name != "run"]) == 10


def test_sigkill_at_12_moments_of_a_run_that_saves_all_the_time(tmp_path: Path) -> None:
    """After each kill: the last checkpoint it reported, or a later one; the rows up to it, and no others."""
    reached = 0
    for round_number in range(12):
        with worker(SAVER, str(tmp_path)) as saver:
            for _ in range(1 + round_number % 3):
                reported = int(saver.read())
            saver.kill()
        with Run.open(tmp_path, manifest=MANIFEST) as run:
            checkpoint = run.load_checkpoint()
            assert checkpoint is not None
            assert checkpoint.step >= reported > reached
            assert checkpoint.read("weights") == b"%d" % checkpoint.step * 1000
            assert run.warnings == []
            for name in ("metrics.jsonl", "samples.jsonl"):
                lines = (tmp_path / name).read_text().splitlines()
                assert [json.loads(line)["step"] for line in lines] == list(range(1, checkpoint.step + 1))
            reached = checkpoint.step


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_saves_and_exits_with_128_plus_its_number(number: signal.Signals, code: int) -> None:
    with worker(STEPPER) as stepper:
        stepper.process.send_signal(number)
        assert stepper.read() == "saving"
        assert stepper.process.stdin is not None
        stepper.process.stdin.close()
        assert stepper.read() == "saved"
        assert stepper.process.wait() == code


def test_the_second_sigterm_leaves_at_once() -> None:
    """It ends by the signal itself, which shells report as 128 + its number, before anything is saved."""
    with worker(STEPPER) as stepper:
        stepper.process.send_signal(signal.SIGINT)
        assert stepper.read() == "saving"
        stepper.process.send_signal(signal.SIGTERM)
        assert stepper.process.wait() == -signal.SIGTERM
        assert stepper.read() == ""


SAVED = """
import sys, time
from pathlib import Path
from smolt.runs import Interrupts, checkpoints
folder = Path(sys.argv[1])
if folder.name == "run":
    checkpoints.save(folder / "checkpoints", 12, {"weights": b"x"}, {})
sys.argv = ["/bin/smolt", "grpo", "my recipe.yaml", "--fresh", "--out", str(folder)]
with Interrupts() as interrupts:
    if folder.name != "study":
        interrupts.directory, interrupts.seconds = folder, 3.6
    print("ready", flush=True)
    while interrupts.exit_code is None:
        pass
    print("saving", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("run", "all up to update 12 is kept in {}; the same command continues"),
        ("empty", "there is no checkpoint yet; the same command begins anew"),
        ("study", "what has ended is kept; the same command continues"),
    ],
)
def test_the_second_ctrl_c_leaves_at_once_with_a_word(name: str, kept: str, tmp_path: Path) -> None:
    """What is kept and what continues, whatever the process is at; --fresh would set aside what is kept."""
    folder = tmp_path / name
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", SAVED, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for word in ("ready", "saving"):
            assert process.stdout.readline() == f"{word}\n"
            process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    update = "" if name == "study" else " (updates take about 4 s)"
    assert told.splitlines() == [
        "",
        f"stopping when this update is done{update};",
        "once more to stop at once and lose all since the last checkpoint",
        "",
        f"left at once; {kept.format(folder)}: smolt grpo 'my recipe.yaml' --out {folder}",
    ]


def test_handlers_are_put_back(capfd: pytest.CaptureFixture[str]) -> None:
    """The first signal says what a second one would do, and what it would cost."""
    before = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
    with Interrupts() as interrupts:
        assert interrupts.exit_code is None
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.exit_code == 143
    assert [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)] == before
    said = ["stopping when this update is done;", "once more to stop at once and lose all since the last checkpoint"]
    assert capfd.readouterr().err.split("\n") == ["", *said, ""]


def test_outside_the_main_thread_nothing_is_caught() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def enter() -> None:
        with Interrupts() as interrupts:
            seen.extend([interrupts.exit_code is not None, signal.getsignal(signal.SIGINT) == before])

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [False, True]

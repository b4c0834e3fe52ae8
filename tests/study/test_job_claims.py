"""Claims on jobs: one holder at a time, dead holders of this machine and of others, holders that were silent."""

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smolt.errors import DirectoryInUse
from smolt.runs.locks import is_locked
from smolt.study import job_claims
from smolt.study.job_claims import BEAT, GIVEN_UP, LEASE, Claim, Claims, refuse_parts, remove_claims

ELSEWHERE = {"who": "part 2/2", "host": "node7", "pid": 41, "machine": "another kernel"}


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        monkeypatch.setattr(job_claims, "now", lambda: self.seconds)


def taken(claims: Claims, job: str) -> Claim:
    claim = claims.take(job)
    assert claim is not None
    return claim


def elsewhere(out: Path, job: str, beat: int, number: int = 1) -> Path:
    """A claim as a process on another machine writes it, whose lock is not seen here."""
    path = out / "claims" / f"{job}.{number}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**ELSEWHERE, "beat": f"{beat:012d}"}))
    return path


def test_times_leave_room() -> None:
    """A holder gives up before anybody else may begin, and by more than two signs of life."""
    assert GIVEN_UP + 2 * BEAT < LEASE


def test_one_of_many_takes_a_job(tmp_path: Path) -> None:
    """16 at once: one gets it. Given back, it is the next one's under the next number; another job is free."""
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: Claims(tmp_path, f"part {number}").take("sft"), range(16)))
    held = [claim for claim in found if claim is not None]
    assert len(held) == 1
    claims = Claims(tmp_path, "part 1/2")
    assert claims.take("sft") is None
    assert claims.take("sft+answers") is not None
    with held[0]:
        held[0].require()
    with taken(claims, "sft"):
        assert sorted(path.name for path in (tmp_path / "claims").iterdir()) == ["sft+answers.1", "sft.1", "sft.2"]
        assert (claims.holder("sft") or "").startswith("part 1/2 on ")
    assert claims.holder("sft") is None


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_process_of_this_machine_holds_nothing(how: signal.Signals, tmp_path: Path) -> None:
    """However it ends, its job is free at once; while it lived, it was not."""
    code = (
        "import sys, time; from pathlib import Path; from smolt.study.job_claims import Claims\n"
        "claim = Claims(Path(sys.argv[1]), 'part 2/2').take('sft')\n"
        "print(claim is not None, flush=True); time.sleep(60)"
    )
    claims = Claims(tmp_path, "part 1/2")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert claims.take("sft") is None
        holder, certain = claims.living() or ("", False)
        assert certain
        assert re.fullmatch(rf"part 2/2 on \S+ \(process {process.pid}\)", holder)
        process.send_signal(how)
    assert claims.living() is None
    with taken(claims, "sft"):
        pass


def test_a_dead_machine_holds_a_job_for_as_long_as_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """120 s after this process first saw its last sign of life, and each new one begins the wait anew."""
    clock, claims = Clock(monkeypatch), Claims(tmp_path, "part 1/2")
    for beat in (1, 2):
        elsewhere(tmp_path, "sft", beat)
        assert claims.take("sft") is None
        clock.seconds += LEASE
        assert claims.take("sft") is None
    assert claims.holder("sft") == f"part 2/2 on node7 (process 41), silent for {LEASE:.0f} s of {LEASE:.0f}"
    clock.seconds += 1
    with taken(claims, "sft"):
        assert (tmp_path / "claims" / "sft.2").is_file()


def test_a_claim_that_is_being_written_is_nobodys_to_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file, of a process that was killed there too, is like one of another machine."""
    clock, claims = Clock(monkeypatch), Claims(tmp_path, "part 1/2")
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "sft.1").touch()
    assert claims.take("sft") is None
    assert claims.holder("sft") == "a process on a machine (process ?)"
    clock.seconds += LEASE + 1
    with taken(claims, "sft"):
        pass


@pytest.mark.parametrize("happened", ["silent", "claimed anew", "set aside"])
def test_a_holder_that_lost_its_job_stops(happened: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 90 s without a sign of life, when somebody took over, or when the directory went: exit code 75."""
    clock, out = Clock(monkeypatch), tmp_path / "study"
    out.mkdir()
    with taken(Claims(out, "part 1/2"), "sft") as claim:
        claim.require()
        clock.seconds += GIVEN_UP
        claim.require()
        if happened == "silent":
            clock.seconds += 1
        elif happened == "claimed anew":
            elsewhere(out, "sft", 1, number=2)
        else:
            out.rename(tmp_path / "study.old-1")
        with pytest.raises(DirectoryInUse, match="sft: this process showed no sign of life for too long") as error:
            claim.require()
    assert error.value.exit_code == 75


def test_a_sign_of_life_every_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file changes while the job is held, and is as long each time."""
    monkeypatch.setattr(job_claims, "BEAT", 0.01)
    path = tmp_path / "claims" / "sft.1"
    with taken(Claims(tmp_path, "part 1/2"), "sft"):
        first = found = path.read_bytes()
        while json.loads(found)["beat"] < "000000000004":
            found = path.read_bytes() or found
    assert len(found) == len(first)
    assert json.loads(path.read_bytes()) == {"free": True}


def test_no_forked_worker_keeps_a_job(tmp_path: Path) -> None:
    """Reward functions run in forked workers, which may outlive their parent."""
    (reader, ready), (waiting, leave) = os.pipe(), os.pipe()
    with taken(Claims(tmp_path, "part 1/2"), "sft"):
        child = os.fork()
        if child == 0:
            os.close(leave)
            os.write(ready, b"x")
            os.read(waiting, 1)
            os._exit(0)
        assert os.read(reader, 1) == b"x"
    assert not is_locked(tmp_path / "claims" / "sft.1")
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.close(leave)
    os.waitpid(child, 0)
    for descriptor in (reader, ready, waiting):
        os.close(descriptor)


def test_one_process_alone_is_refused_beside_parts(tmp_path: Path) -> None:
    """While one holds a job; afterwards nothing is left of them."""
    refuse_parts(tmp_path)
    told = r"part 1/2 on .* works on a part of this study: wait for it, stop it"
    with taken(Claims(tmp_path, "part 1/2"), "sft"), pytest.raises(DirectoryInUse, match=told):
        refuse_parts(tmp_path)
    refuse_parts(tmp_path)
    remove_claims(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lives", [False, True])
def test_one_process_alone_waits_for_a_machine_that_may_be_dead(
    lives: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For its lease and a look, with words every 5 s; a sign of life ends the wait, and a job here before it begins."""
    clock = Clock(monkeypatch)
    elsewhere(tmp_path, "dpo", 1)

    def sleep(seconds: float) -> None:
        clock.seconds += seconds
        if lives and clock.seconds == 1020.0:
            elsewhere(tmp_path, "dpo", 2)

    monkeypatch.setattr("smolt.study.job_claims.time.sleep", sleep)
    with caplog.at_level("INFO", "smolt"):
        if lives:
            with pytest.raises(DirectoryInUse, match=r"part 2/2 on node7 \(process 41\) works on a part"):
                refuse_parts(tmp_path)
        else:
            refuse_parts(tmp_path)
    waited = 20.0 if lives else LEASE + job_claims.POLL
    assert clock.seconds == 1000.0 + waited
    assert len(caplog.records) == waited // job_claims.SAY + (not lives)
    with taken(Claims(tmp_path, "part 1/2"), "sft"), pytest.raises(DirectoryInUse, match=r"part 1/2 on"):
        refuse_parts(tmp_path)

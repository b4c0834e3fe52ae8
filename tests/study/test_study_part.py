"""One study by several processes: the report of one process, whoever starts, stops, dies or comes twice."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from smolt.cli.train import _own_part
from smolt.config import StudyRecipe, load_recipe
from smolt.errors import UserError
from smolt.evaluation.shards import parse_shard
from smolt.runs import Interrupts, Run
from smolt.study import job_claims, study_part
from smolt.study.job_claims import Claims
from smolt.study.jobs import jobs_of
from smolt.study.places import Places
from smolt.study.study import manifest_of
from smolt.study.study_part import PartAtWork
from smolt.training.stage import Interrupted
from tests.study.conftest import SMALL, smolt

CLOCK = {"sft_more"}
"""The arm that trains for as many seconds as another took."""

TIMES = ("seconds", "tokens_per_second", "peak_memory", "budget", "machine")


def small(*more: str) -> StudyRecipe:
    recipe = load_recipe("smoke", "study", [*SMALL, *more])
    assert isinstance(recipe, StudyRecipe)
    return recipe


def part(text: str, out: Path, *more: str) -> "subprocess.Popen[str]":
    """A real process that takes part."""
    command = [sys.executable, "-m", "smolt", "study", "smoke", *SMALL, *more, "--out", str(out), "--part", text]
    return subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def without_times(value: Any, out: Path) -> Any:
    """A report without what a clock, a memory counter or the directory's name says, and without arms of the clock."""
    if isinstance(value, dict):
        kept = {name: found for name, found in value.items() if name not in {*TIMES, *CLOCK}}
        return {name: without_times(found, out) for name, found in kept.items()}
    if isinstance(value, list):
        return [without_times(found, out) for found in value if not names_one(found)]
    return value.replace(str(out), "OUT") if isinstance(value, str) else value


def names_one(entry: Any) -> bool:
    """Whether an entry of a list is about an arm of the clock."""
    return re.search(r"\bsft_more\b", json.dumps(entry)) is not None


def report(out: Path) -> Any:
    return without_times(json.loads((out / "report.json").read_text()), out)


def same_work(out: Path, other: Path) -> None:
    """Models, answers and the report are those of another study of the same recipe."""
    for name in ("pretrain", "sft", "reward", "dpo", "ppo", "grpo"):
        model = Path(name) / "model" / "model.safetensors"
        assert (out / model).read_bytes() == (other / model).read_bytes(), name
    for name in ("sft", "dpo", "ppo", "grpo", "best_of_n"):
        answers = Path(name) / "evaluation.jsonl"
        assert (out / answers).read_bytes() == (other / answers).read_bytes(), name
    assert report(out) == report(other)


def trained(words: str) -> list[str]:
    """The sections whose training began here."""
    return re.findall(r"^(\w+): memory: ", words, re.MULTILINE)


def test_two_parts_make_what_one_process_makes(finished: Path, tmp_path: Path) -> None:
    """Both end with 0 and the same verdicts; both trained something, and nothing was trained twice."""
    out = tmp_path / "shared"
    with part("2/2", out) as other:
        while not (out / "claims").exists():
            assert other.poll() is None
            time.sleep(0.01)
        done = smolt("study", "smoke", *SMALL, "--out", out, "--part", "1/2", "--json")
        stdout, stderr = other.communicate(timeout=120)
    assert (done.exit_code, other.returncode) == (0, 0), done.output + stderr
    said = [json.loads(stdout), json.loads(done.stdout)]
    assert said[0]["arms"] == said[1]["arms"]
    same_work(out, finished)
    own, others = trained(done.stderr), trained(stderr)
    assert own and others
    assert sorted(own + others) == ["dpo", "grpo", "ppo", "pretrain", "reward", "sft", "sft_more"]
    assert not (out / "claims").exists()


def test_one_part_does_what_dead_ones_leave(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is killed while ppo trains, one vanished with its machine and its job, one never starts: the fourth does all.

    It takes the killed one's job at once, after ppo's last checkpoint, and the vanished one's after its lease.
    """
    out = tmp_path / "killed"
    with part("2/4", out, "ppo.save.every=1") as process:
        deadline = time.monotonic() + 120
        while not list((out / "ppo" / "checkpoints").glob("step-*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    assert not (out / "result.json").exists()
    foreign = {"who": "part 3/4", "host": "node7", "pid": 41, "machine": "another kernel", "beat": "000000000001"}
    (out / "claims" / "grpo.1").write_text(json.dumps(foreign))
    monkeypatch.setattr(job_claims, "LEASE", 2.0)
    done = smolt("study", "smoke", *SMALL, "ppo.save.every=1", "--out", out, "--part", "1/4", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["status"] == "complete"
    assert "ppo: continued after update" in done.stderr
    assert report(out)["arms"] == report(finished)["arms"]
    assert not (out / "claims").exists()


def test_the_jobs_of_a_study_wait_for_what_they_need(tmp_path: Path) -> None:
    """In the file's order; best_of_n has no job of its own, its answers need its policy and its reward model."""
    jobs = {job.name: job for job in jobs_of(Places(small(), tmp_path))}
    sections = ["problems", "pretrain", "sft", "pairs", "reward", "dpo", "ppo", "grpo", "sft_more"]
    arms = ["sft", "dpo", "ppo", "grpo", "sft_more", "best_of_n"]
    assert list(jobs) == [*sections, *(f"{name}+answers" for name in arms), "+report"]
    assert jobs["problems"].needs == set()
    assert jobs["sft"].needs == {"problems", "pretrain"}
    assert jobs["ppo"].needs == {"problems", "sft", "reward"}
    assert jobs["sft_more"].needs == {"problems", "sft", "grpo"}
    assert jobs["dpo+answers"].needs == {"dpo", "sft", "problems"}
    assert jobs["best_of_n+answers"].needs == {"sft", "reward", "problems"}
    assert jobs["+report"].needs == set(jobs) - {"+report"}


def test_each_seed_has_its_jobs(tmp_path: Path) -> None:
    """Of two seeds no job needs another seed's; part 2/2 looks at the second seed's first."""
    places = Places(small("study.seeds=[0,3]"), tmp_path)
    jobs = jobs_of(places)
    for job in jobs[:-1]:
        before = f"seed-{job.seed}+"
        assert job.name.startswith(before)
        assert all(name.startswith(before) for name in job.needs)
    assert [job.words for job in jobs[:: len(jobs) // 2]] == ["problems of seed 0", "problems of seed 3", "the report"]
    for text, first in (("1/2", "seed-0+problems"), ("2/2", "seed-3+problems"), ("3/3", "seed-3+problems")):
        at_work = PartAtWork(places, parse_shard(text), lambda *given: None, Interrupts())
        assert at_work._jobs[0].name == first
        assert sorted(job.name for job in at_work._jobs) == sorted(job.name for job in jobs)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "2", "a/b", "1/2/3", "-1/2", "1.5/2", ""])
def test_a_part_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    """Exit 2 before anything is written, naming the form."""
    done = smolt("study", "smoke", *SMALL, "--out", tmp_path / "out", "--part", text)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"--part: {text!r} is not of the form 2/4, the second of four" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_parts_share_no_new_start_and_no_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--fresh would set the directory aside below the others; torchrun's processes share every job already."""
    done = smolt("study", "smoke", "--out", tmp_path / "out", "--part", "1/2", "--fresh")
    assert (done.exit_code, "--fresh: parts share one directory" in done.stderr) == (2, True)
    launched = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="--part: the processes of torchrun share every job"):
        _own_part("1/2", fresh=False)
    assert list(tmp_path.iterdir()) == []


def test_one_process_alone_and_parts_keep_off_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 75 for whoever comes second, with and without --fresh; what the first has is left as it is."""
    out = tmp_path / "out"
    Run.open(out, manifest=manifest_of(small())).close()
    with Claims(out, "part 1/2").take("problems") or pytest.fail("it is free"):
        for more in ([], ["--fresh"]):
            done = smolt("study", "smoke", *SMALL, "--out", out, *more)
            assert (done.exit_code, done.stdout) == (75, "")
            assert "works on a part of this study: wait for it, stop it, or join it with --part" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    monkeypatch.setattr(study_part, "ALONE", 0.1)
    with Run.open(out, manifest=manifest_of(small())):
        done = smolt("study", "smoke", *SMALL, "--out", out, "--part", "1/2")
        assert (done.exit_code, done.stdout) == (75, "")
        assert not (out / "problems").exists()


def test_parts_of_another_recipe_are_refused(tmp_path: Path) -> None:
    """While a part works, another one with one field changed ends with 2, and names it."""
    out = tmp_path / "out"
    Run.open(out, manifest=manifest_of(small())).close()
    before = (out / "manifest.json").read_bytes()
    with Claims(out, "part 1/2").take("problems") or pytest.fail("it is free"):
        done = smolt("study", "smoke", *SMALL, "study.items=23", "--out", out, "--part", "2/2")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "recipe.study.items: 24 in this run, 23 now" in done.stderr
    assert (out / "manifest.json").read_bytes() == before
    assert not (out / "problems").exists()


def test_a_waiting_part_says_so_at_most_every_five_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked 20 times within 10 s by its clock, it says 2 times what it waits for and who does it."""
    places, clock = Places(small(), tmp_path), [0.0]
    monkeypatch.setattr(study_part, "clock", lambda: clock[0])
    at_work = PartAtWork(places, parse_shard("1/2"), lambda *given: None, Interrupts())
    with Claims(tmp_path, "part 2/2").take("problems") or pytest.fail("it is free"), caplog.at_level("INFO", "smolt"):
        for _ in range(20):
            assert not at_work.work()
            at_work.say()
            clock[0] += 0.5
    words = [record.getMessage() for record in caplog.records]
    assert len(words) == 2
    assert all(re.fullmatch(r"waiting for problems: part 2/2 on \S+ \(process \d+\)", line) for line in words)


def test_a_section_that_another_command_runs_is_left_to_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A part waits for it with words, and claims nothing meanwhile."""
    places = Places(small(), tmp_path)
    Run.open(tmp_path, manifest=manifest_of(small())).close()
    at_work = PartAtWork(places, parse_shard("1/1"), lambda *given: None, Interrupts())
    with (
        Run.open(tmp_path / "problems", manifest=dict.fromkeys(("recipe", "data", "model", "renderer"))),
        caplog.at_level("INFO", "smolt"),
    ):
        assert not at_work.work()
        assert at_work.say()
    assert [record.getMessage() for record in caplog.records] == ["waiting for problems: another command works on it"]
    assert not (tmp_path / "claims").exists()


def test_a_part_that_waits_can_be_stopped(tmp_path: Path) -> None:
    """The first signal ends it with its exit code: it holds nothing."""
    interrupts = Interrupts()
    at_work = PartAtWork(Places(small(), tmp_path), parse_shard("1/2"), lambda *given: None, interrupts)
    interrupts.exit_code = 143
    with pytest.raises(Interrupted) as stop:
        at_work.pause()
    assert stop.value.exit_code == 143

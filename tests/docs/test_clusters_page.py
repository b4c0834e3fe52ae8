"""The page on clusters: its scripts start the parts they should, and two parts run through submitit."""

import json
import os
import re
import runpy
import subprocess
from pathlib import Path

import pytest
import yaml

from smolt.study import job_claims
from tests.docs.workshop import ROOT, blocks

PAGE = ROOT / "docs" / "guides" / "clusters.md"

SBATCH = {
    *("job-name", "array", "ntasks", "cpus-per-task", "gres", "time", "signal", "requeue", "open-mode", "output"),
}
"""Options of sbatch's manual that take these forms: --name=value or --name."""

SKYPILOT = {"name", "num_nodes", "resources", "workdir", "volumes", "setup", "run"}
"""Fields of SkyPilot's task YAML."""

SMALLEST = """
model: {path: my-model, device: cpu, threads: 1}
study: {test: questions.jsonl, items: 4, reward: gsm8k, sampling: {max_tokens: 4}}
problems: {train: 8, dev: 0, test: 0, demonstrations: 8}
"""


def started(script: str, folder: Path, name: str, **environment: str) -> list[str]:
    """The words with which a script starts a program, found by one of that name that only writes them down."""
    (folder / "bin").mkdir()
    program = folder / "bin" / name
    program.write_text('#!/bin/bash\nprintf "%s\\n" "$@" > words\n')
    program.chmod(0o755)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    subprocess.run(["bash", "-eu"], input=script, text=True, check=True, cwd=folder, env={"PATH": path, **environment})
    return (folder / "words").read_text().splitlines()


def test_the_slurm_script_starts_a_part_for_each_task(tmp_path: Path) -> None:
    """An array from 1 on, plain options of sbatch, and task 3 of 8 is part 3/8."""
    (script,) = (block.text for block in blocks(PAGE, "bash"))
    options = re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", script, re.MULTILINE)
    assert len(options) == script.count("#SBATCH")
    assert {name for name, _ in options} <= SBATCH
    assert dict(options)["array"] == "1-8"
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").touch()
    here = script.replace("/shared/my-study", str(tmp_path))
    words = started(here, tmp_path, "srun", SLURM_ARRAY_TASK_ID="3", SLURM_ARRAY_TASK_COUNT="8")
    assert words == ["smolt", "study", "my-study.yaml", "--out", "runs/my-study", "--part", "3/8"]


def test_the_skypilot_file_starts_a_part_for_each_node(tmp_path: Path) -> None:
    """Fields that SkyPilot knows; node 0 of 4 is part 1/4, and all write into the volume."""
    (text,) = (block.text for block in blocks(PAGE, "yaml"))
    task = yaml.safe_load(text)
    assert set(task) <= SKYPILOT
    words = started(task["run"], tmp_path, "smolt", SKYPILOT_NODE_RANK="0", SKYPILOT_NUM_NODES=str(task["num_nodes"]))
    assert words == ["study", "my-study.yaml", "--out", "/shared/my-study", "--part", "1/4"]
    assert words[3].startswith(tuple(task["volumes"]))


def test_the_seconds_of_the_page_are_the_programs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "after two minutes in which its claim did not change" in text
    assert f"stood still for more than {job_claims.GIVEN_UP:.0f} seconds" in text
    assert (job_claims.LEASE, job_claims.BEAT) == (120, 10)


def test_two_parts_run_through_submitit(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both jobs of its local executor end with the study's last words."""
    pytest.importorskip("submitit", reason="needs the package submitit, of the extra dev")
    (program,) = (block.text for block in blocks(PAGE, "python"))
    (workshop / "my-study.yaml").write_text(SMALLEST)
    (workshop / "program.py").write_text(program)
    runpy.run_path("program.py")
    said = f"study: complete; the report is {Path('runs') / 'my-study' / 'report.html'}"
    assert capsys.readouterr().out.splitlines()[-1] == str([said, said])
    assert json.loads((workshop / "runs" / "my-study" / "report.json").read_text())["arms"]["base"]["reward"]["n"] == 4

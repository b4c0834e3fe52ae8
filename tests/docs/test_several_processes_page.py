"""The page on several processes: its first command runs under torchrun, the second is one that torchrun understands."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from torch.distributed.run import parse_args

from smolt.processes import lifeline
from tests.docs.workshop import ROOT, blocks

PAGE = ROOT / "docs" / "guides" / "several-processes.md"
RECIPE = """
model: {path: my-model, device: cpu, threads: 1}
data: demonstrations.jsonl
batch: 6
budget: {updates: 2}
"""


def test_two_processes_of_torchrun_train_one_model(workshop: Path) -> None:
    """Exit code 0; the stage's last words once, and 2 processes in the manifest."""
    (text,) = (block.text for block in blocks(PAGE, "sh"))
    launcher, *rest = shlex.split(text)
    assert launcher == "torchrun"
    (workshop / "my-recipe.yaml").write_text(RECIPE)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *rest],
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sft: complete") == 1
    assert done.stderr.count("sft: 2 processes of 1 threads") == 1
    assert json.loads((workshop / "runs" / "shared" / "manifest.json").read_text())["processes"] == 2


def test_the_command_of_two_machines_is_torchruns() -> None:
    (text,) = (block.text for block in blocks(PAGE, "bash"))
    launcher, *words = shlex.split(text.replace("$NODE", "1").replace("$FIRST", "10.0.0.1"))
    found = parse_args(words)
    assert launcher == "torchrun"
    assert (found.nnodes, found.node_rank, found.master_addr, found.master_port) == ("2", 1, "10.0.0.1", 29500)
    assert (found.module, found.training_script, found.training_script_args[:1]) == (True, "smolt", ["study"])


def test_the_numbers_of_the_page_are_the_programs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"notice within {lifeline.LOST} seconds" in text
    assert f"with {lifeline.ProcessLost.exit_code} and one sentence" in text

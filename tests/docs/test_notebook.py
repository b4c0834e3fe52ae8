"""The notebook of the pages: its cells run in small, whole in a kernel, and what stands below them is from one run."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from tests.docs.test_commands import run
from tests.docs.workshop import ROOT

NOTEBOOK = ROOT / "docs" / "start" / "notebook.ipynb"
CELLS = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
SMALL = {"pretrain": 1, "sft": 20, "dpo": 1, "grpo": 1}


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def in_small(text: str) -> str:
    """With fewer updates and questions, and without the lines that only a notebook understands."""
    text = re.sub(r"^UPDATES = .*", f"UPDATES = {SMALL}", text, flags=re.MULTILINE)
    text = re.sub(r"^QUESTIONS = .*", "QUESTIONS = 8", text, flags=re.MULTILINE)
    return re.sub(r"^( *)[%!].*", r"\1pass", text, flags=re.MULTILINE)


def test_its_cells_run_in_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    """One after the other: three measures of 8 answers, an update of GRPO, two comparisons; its chat answers."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    matplotlib.use("Agg")
    space: dict[str, Any] = {}
    for cell in CELLS:
        exec(compile(in_small(source(cell)), NOTEBOOK.name, "exec"), space)
    printed = capsys.readouterr().out
    assert [len(found.rows) for found in space["measured"].values()] == [8, 8, 8]
    assert [row["step"] for row in space["history"]] == [1]
    assert sum(" against start, reward: " in line for line in printed.splitlines()) == 2
    (chat,) = re.findall(r"^!echo .* \| (smolt chat .*)", source(CELLS[-1]), re.MULTILINE)
    assert run(chat.format(**space)).stdout


def test_what_stands_below_its_cells_is_from_one_run() -> None:
    """Every cell was run, in its order; none ended with an error, wrote a warning, or names a place of one machine."""
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    outputs = [output for cell in CELLS for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert {output["name"] for output in outputs if "name" in output} == {"stdout"}
    said = "".join("".join(output.get("text", "")) for output in outputs)
    assert "grpo has higher reward than start" in said
    assert not re.search(r"/(home|root|work|Users)/", said)


@pytest.mark.slow
def test_it_runs_whole_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, from nothing; the last word is the model's."""
    nbformat = pytest.importorskip("nbformat", reason="the extra dev is not installed")
    from nbclient import NotebookClient

    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, startup_timeout=300, coalesce_streams=True, resources=place).execute()
    said = "".join(output.text for output in notebook.cells[-2].outputs)
    assert [line.partition(" ")[0] for line in said.splitlines()].count("Hello") == 1

"""The commands of docs/guides/labels.md and data-audit.md run as written; labelling says that it needs a terminal."""

import json
import shlex
from pathlib import Path

from typer.testing import CliRunner

from smolt.cli import app
from tests.docs.test_commands import lines, run
from tests.docs.workshop import ROOT

ENOUGH = 120  # pairs for a learning curve
RECIPE = "stage: reward\nmodel: my-model\ndata: enough.jsonl\nbatch: 4\nbudget: {updates: 1}\n"


def test_the_commands_of_the_labels_page_run(workshop: Path) -> None:
    """Import, statistics and both exports with exit code 0; the labelling without a terminal with 2."""
    interactive, *rest = lines(ROOT / "docs" / "guides" / "labels.md")
    refused = CliRunner().invoke(app, shlex.split(interactive)[1:])
    assert (refused.exit_code, "needs a terminal" in refused.output) == (2, True)
    assert [shlex.split(command)[2] for command in rest] == ["import", "stats", "export", "export"]
    for command in rest:
        run(command)
    before = (workshop / "human.jsonl").read_bytes()
    again = CliRunner().invoke(app, [*shlex.split(rest[2])[1:], "--ties", "drop"])
    assert again.exit_code == 2 and "human.jsonl: is there already" in again.output
    assert (workshop / "human.jsonl").read_bytes() == before
    run(f"{rest[2]} --replace")


def test_the_commands_of_the_audit_page_run(workshop: Path) -> None:
    rows = [{"prompt": f"What is {n}?", "chosen": "yes", "rejected": "no"} for n in range(ENOUGH)]
    (workshop / "enough.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (workshop / "reward.yaml").write_text(RECIPE, encoding="utf-8")
    refused = CliRunner().invoke(app, ["data", "audit", "enough.jsonl", "--out", "reward.yaml"])
    assert refused.exit_code == 2 and "reward.yaml: is a file, not a directory" in refused.output
    commands = lines(ROOT / "docs" / "guides" / "data-audit.md")
    assert [shlex.split(command)[2] for command in commands] == ["audit", "pilot"]
    for command in commands:
        run(command)
    assert {path.name for path in (workshop / "audit").iterdir()} >= {"audit.json", "audit.md"}
    assert (workshop / "pilot" / "pilot.md").is_file()


def test_the_formats_of_the_page_are_those_of_the_command() -> None:
    """docs/reference/data.md and `smolt data formats` list the same formats in the same order."""
    page = (ROOT / "docs" / "reference" / "data.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("| `")]
    found = json.loads(CliRunner().invoke(app, ["data", "formats", "--json"]).stdout)["formats"]
    assert [form["name"] for form in found] == rows[: len(found)]
    assert found[11] == {
        "name": "prompt_completion",
        "required": ["prompt", "completion"],
        "optional": ["system", "history", "label", "id", "kind"],
        "gives": ["demonstrations", "questions", "text"],
    }
    assert "alpaca               instruction, output, [input]" in CliRunner().invoke(app, ["data", "formats"]).stdout

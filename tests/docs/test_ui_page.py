"""The page on the browser face: its commands start what it says, its tables are the face's own."""

import gc
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("gradio", reason="the extra ui is not installed")

import smolt.ui.server
from smolt.cli import app
from smolt.preferences.people import LabelStore
from smolt.ui.environment import Face
from smolt.ui.face import KEYS, QUEUE, make_page
from smolt.ui.guard import LARGEST_BODY
from smolt.ui.sign_in import FREE_TRIES
from smolt.ui.tabs.runs_tab import EVERY
from tests.docs.test_commands import lines, options_of
from tests.docs.workshop import ROOT, table
from tests.preferences.test_arena import voted

PAGE = ROOT / "docs" / "guides" / "ui.md"


def test_its_commands_run(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two open a face on what they name; votes export and train."""
    first, second, export, train = lines(PAGE)
    opened: list[Face] = []
    monkeypatch.setattr(smolt.ui.server, "serve_face", lambda face, ready: opened.append(face))
    for command in (first, second):
        done = CliRunner().invoke(app, command.split()[1:])
        assert done.exit_code == 0, done.output
    assert [face.models for face in opened] == [("my-model",), ("base=my-model", "tuned=my-merged-model")]
    assert (opened[0].host, opened[0].store, opened[1].pairs) == (
        "127.0.0.1",
        Path("runs/labels.sqlite"),
        "preferences.jsonl",
    )
    store = export.split()[-1]
    with LabelStore(workshop / store) as votes:
        for number in range(4):
            votes.record_vote(*voted(number, True))
    done = CliRunner().invoke(app, export.split()[1:])
    assert done.exit_code == 0, done.output
    (workshop / "votes.yaml").write_text("stage: dpo\nmodel: my-model\ndata: votes.jsonl\nbatch: 4\n")
    done = CliRunner().invoke(app, [*train.replace("RECIPE", "votes.yaml").split()[1:], "--out", "runs/votes"])
    assert done.exit_code == 0, done.output


def test_its_tables_are_the_faces(workshop: Path) -> None:
    """The tabs in their order, every option and no other, the keys of keys.js."""
    with make_page(Face((), workshop / "runs", workshop / "labels.sqlite")) as page:
        tabs = [block.label for block in page.blocks.values() if type(block).__name__ == "Tab"]
    gc.collect()  # as in tests/ui/conftest.py
    assert [row[0] for row in table(PAGE, "tab")] == tabs
    known = options_of("ui")
    written = {name: row[1] for row in table(PAGE, "option") for name in re.findall(r"--[\w-]+", row[0])}
    assert set(written) == set(known)
    for name in ("--runs", "--host", "--device", "--dtype"):
        assert written[name] == str(known[name])
    letters = {name for row in table(PAGE, "key") for name in re.findall(r"(?<![\w-])\w(?!\w)", row[0])}
    assert letters - {"l"} <= set(re.findall(r"(\w): \"", KEYS))


def test_its_numbers_are_the_faces() -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"At most {QUEUE} requests wait" in text
    assert LARGEST_BODY == 1_000_000 and "a body over one megabyte (413)" in text
    assert FREE_TRIES == 3 and "After three wrong passwords" in text
    assert EVERY == 2 and "looks every two seconds" in text

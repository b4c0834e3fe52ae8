"""The page on export: its commands run, and the versions it names are those that are tested."""

import re
from pathlib import Path

import gguf
from typer.testing import CliRunner

from smolt.cli import app
from smolt.models.gguf.destination import KINDS
from smolt.models.gguf.pretokenizers import WRITTEN, WRITTEN_WHOLE
from tests.docs.test_commands import lines, run
from tests.docs.workshop import ROOT, table

PAGE = ROOT / "docs" / "guides" / "export.md"


def test_its_commands_run(workshop: Path) -> None:
    """Both files are there, and the second has its Modelfile beside it."""
    commands = lines(PAGE)
    assert len(commands) == 2
    for command in commands:
        run(command)
    stored = {tensor.tensor_type.name for tensor in gguf.GGUFReader(workshop / "my-model.gguf").tensors}
    assert (workshop / "my-model-f16.gguf").is_file() and stored == {"F32", "F16", "Q8_0"}
    assert (workshop / "my-model.Modelfile").read_text().startswith("FROM ./my-model.gguf\n")


def test_its_options_and_names_are_those_of_the_program() -> None:
    """The table has each option with its default; every type and every pre-tokenizer that is written is named."""
    shown = CliRunner().invoke(app, ["export", "--help"], terminal_width=200, color=False).stdout
    options = {row[0]: row[1] for row in table(PAGE, "option")}
    assert all(option in shown for option in options) and options["--type"] == "f16"
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in (*KINDS, *WRITTEN.values(), *WRITTEN_WHOLE.values()))


def test_its_versions_are_those_of_the_lock() -> None:
    locked = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    named = re.findall(r"\b(xllamacpp|transformers) ([\d.]*\d)", PAGE.read_text(encoding="utf-8"))
    assert {name for name, _ in named} == {"xllamacpp", "transformers"}
    assert all(re.search(rf"^{name}=={re.escape(version)}", locked, re.MULTILINE) for name, version in named)


def test_the_page_on_push(workshop: Path) -> None:
    """What is shown is shown without a network; the line that sends says so by its option alone."""
    shown, sent = lines(ROOT / "docs" / "guides" / "push.md")
    assert sent == f"{shown} --yes"
    assert "nothing was sent; --yes uploads this to someone/my-model" in run(shown).stdout
    assert "README.md" not in {file.name for file in (workshop / "my-model").iterdir()}

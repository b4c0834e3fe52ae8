"""The page on serving: its program and its commands run as written against a server, its tables are the command's."""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.serving import bodies
from smolt.serving.address import Address
from smolt.serving.engine import Engine
from tests.docs.test_commands import lines, options_of
from tests.docs.test_feedback_pages import widen
from tests.docs.workshop import ROOT, blocks, table
from tests.serving.conftest import serving

PAGE = ROOT / "docs" / "guides" / "serve.md"
ADDRESS = "http://127.0.0.1:8000/v1"


@pytest.fixture
def url(workshop: Path) -> Iterator[str]:
    """A server of the workshop's model."""
    widen(workshop / "my-model")
    engine = Engine({"my-model": "my-model"})
    with serving(engine) as base:
        yield base
    engine.close()


def test_its_program_runs(url: str, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints an answer and a stream of pieces."""
    (program,) = (block.text for block in blocks(PAGE, "python"))
    assert ADDRESS in program
    (workshop / "ask.py").write_text(program.replace(ADDRESS, url), encoding="utf-8")
    runpy.run_path(str(workshop / "ask.py"))
    assert len(capsys.readouterr().out) > 20


def test_its_commands_run(url: str, workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first would serve `my-model` at the page's address; the judge behind one leaves its verdicts."""
    serve, judge = lines(PAGE)
    asked: list[tuple[list[str], Address, int]] = []

    def record(engine: Engine, address: Address, longest: int, ready: object) -> None:
        asked.append((engine.names, address, longest))
        engine.close()

    monkeypatch.setattr("smolt.serving.listening.serve", record)
    monkeypatch.delenv("SMOLT_API_KEY", raising=False)
    assert CliRunner().invoke(app, serve.split()[1:]).exit_code == 0
    assert asked == [(["my-model"], Address("127.0.0.1", 8000), 1024)]
    done = CliRunner().invoke(app, [*judge.replace(ADDRESS, url).split()[1:], "--probes", "0", "--no-gate"])
    assert done.exit_code == 0, done.output
    assert (workshop / "runs" / "remote" / "verdicts.jsonl").is_file()


def test_its_table_of_options_is_the_commands() -> None:
    """Every option and no other; the defaults that are numbers and addresses are the command's."""
    options = options_of("serve")
    shown: dict[str, str] = {}
    for names, default, _ in table(PAGE, "option"):
        found = re.findall(r"--[\w-]+", names)
        values = default.split(", ")
        shown |= dict(zip(found, values if len(values) == len(found) else [default] * len(found), strict=True))
    assert set(shown) == set(options)
    for name in ("--host", "--port", "--slots", "--queue", "--max-tokens", "--device", "--dtype"):
        assert shown[name] == str(options[name])


def test_its_table_of_fields_is_what_is_taken() -> None:
    """Every field of a request that does something, but the model's name, is in the table, and no other."""
    known = {*bodies.ChatBody.model_fields, *bodies.CompletionBody.model_fields} - {"model"}
    said = {name for row in table(PAGE, "field")[:-2] for name in re.findall(r"[a-z_]+", row[0])}
    assert known <= said
    assert said - known == {"include_usage"}

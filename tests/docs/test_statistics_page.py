"""docs/why/statistics.md: every program prints what stands below it, and the command its verdict."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.evaluation.grading import RULES
from tests.docs.workshop import ROOT, table

PAGE = ROOT / "docs" / "why" / "statistics.md"
_BLOCK = re.compile(r"^```(python|sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_worked_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks in their order in one folder: a text block is what the block before it printed, or begins so."""
    monkeypatch.chdir(tmp_path)
    printed, checked = "", 0
    for number, (language, text) in enumerate(_BLOCK.findall(PAGE.read_text(encoding="utf-8"))):
        if language == "python":
            program = tmp_path / f"{number}.py"
            program.write_text(text, encoding="utf-8")
            runpy.run_path(str(program))
            printed = capsys.readouterr().out
        elif language == "sh":
            results = [CliRunner().invoke(app, shlex.split(line)[1:]) for line in text.splitlines()]
            assert [result.exit_code for result in results] == [0] * len(results)
            printed = results[-1].output
        else:
            assert printed.startswith(text)
            checked += 1
    assert checked == 11


def test_the_numbers_said_in_words(tmp_path: Path) -> None:
    """The retest's 4 of 200 and the coverage figures, which the bench's results hold too."""
    text = PAGE.read_text(encoding="utf-8")
    recorded = (ROOT / "bench" / "results" / "2026-11-25-statistics.md").read_text(encoding="utf-8")
    for n, share in (("20", "90.6"), ("50", "93.0"), ("200", "94.5"), ("1,000", "95.3")):
        assert f"{share} %" in text
        assert f"{float(re.findall(rf'exponential, n = {n} . ([0-9.]+) %', recorded)[0]):.1f}" == share
    assert sum(place % 50 == 3 for place in range(200)) == 4


def test_the_rules_are_those_there_are() -> None:
    assert {row[0] for row in table(PAGE, "rule")} == {*RULES, "regex:PATTERN", "file.py:function"}

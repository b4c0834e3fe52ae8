"""A wrong reward, wherever it stands in a study, is found before anything is trained."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.config.blocks import REWARDS
from smolt.rewards import build
from smolt.study.study import run_study
from tests.config.test_study_recipe import study

LAST = """\
model: start
study.test: "{{problems}}/test.jsonl"
problems: {{train: 10}}
sft: {{data: "{{problems}}/demonstrations.jsonl"}}
grpo: {{data: "{{problems}}/train.jsonl", reward: {reward}}}
"""
FILE = """\
from math import sqrt as root

def brief(question, answer):
    return -len(answer.text)

later = lambda question, answer: 1.0
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("brief.py").write_text(FILE)
    return tmp_path


def written(reward: str) -> None:
    Path("s.yaml").write_text(LAST.format(reward=reward))


def check(command: list[str]) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*command, "s.yaml", "--json"])
    return done.exit_code, json.loads(done.stdout).get("error", done.stdout)


def test_the_names_are_those_that_can_be_built() -> None:
    assert sorted(REWARDS) == sorted([*build.RULES, *build.LOADED, "python"])


@pytest.mark.parametrize("command", [["recipe", "check"], ["doctor"], ["study"]])
def test_a_misspelt_name(command: list[str], place: Path) -> None:
    """Line 4 of the file; the nearest name."""
    written("[gsm8k, {name: pyhton, path: brief.py:brief}]")
    code, error = check(command)
    assert code == 2
    assert re.search(r"""^s.yaml:5: grpo.reward\S*: 'pyhton' is unknown; did you mean "python"\?$""", error), error


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("brief.py:breif", """brief.py: there is no function 'breif'; did you mean "brief"?"""),
        ("breif.py:brief", "path: breif.py: no such file; nearest in .: brief.py"),
        ("brief.py", """path: 'brief.py' is not of the form "file.py:function\""""),
    ],
)
def test_a_misspelt_function(path: str, message: str, place: Path) -> None:
    """By `recipe check`, by `doctor`, and by the study before its first section, which leaves nothing behind."""
    written(f"[gsm8k, {{name: python, path: '{path}'}}]")
    expected = f"grpo.reward: reward python: {message}"
    assert check(["recipe", "check"]) == (2, expected)
    done = CliRunner().invoke(app, ["doctor", "s.yaml", "--json"])
    found = [(entry["what"], entry["ok"], entry["found"]) for entry in json.loads(done.stdout)["checks"]]
    assert (done.exit_code, found[1]) == (2, ("reward functions", False, expected))
    with pytest.raises(ValueError, match=re.escape(expected)):
        run_study(study(place, Path("s.yaml").read_text()), out=place / "run")
    assert not (place / "run").exists()


def test_a_file_that_is_no_python(place: Path) -> None:
    Path("brief.py").write_text("def brief(\n")
    written("{name: python, path: 'brief.py:brief'}")
    assert check(["recipe", "check"]) == (
        2,
        "grpo.reward: reward python: brief.py: is not valid Python: '(' was never closed (brief.py, line 1)",
    )


@pytest.mark.parametrize("name", ["brief", "later", "root"])
def test_what_a_file_defines_assigns_or_imports_is_there(name: str, place: Path) -> None:
    written(f"{{name: python, path: 'brief.py:{name}'}}")
    assert check(["recipe", "check"])[0] == 0


def test_the_file_is_not_run(place: Path) -> None:
    Path("brief.py").write_text("open('ran', 'w')\n" + FILE)
    written("{name: python, path: 'brief.py:brief'}")
    assert check(["recipe", "check"])[0] == 0
    assert not Path("ran").exists()

"""A wrong reward, wherever it stands in a study, is found before anything is trained."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.config.blocks import REWARDS
from smolt.errors import UserError
from smolt.rewards import build
from smolt.rewards.shorthand import RULES, asked_reward
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
    assert sorted(REWARDS) == sorted([*RULES, *build.LOADED, "python"])


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
    assert (done.exit_code, found[1]) == (2, ("rewards", False, expected))
    with pytest.raises(ValueError, match=re.escape(expected)):
        run_study(study(place, Path("s.yaml").read_text()), out=place / "run")
    assert not (place / "run").exists()


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("{name: length, options: {targt: 40}}", 'length: options.targt: unknown option; did you mean "target"?'),
        ("{name: length, options: {target: forty}}", "length: options.target: must be a whole number, not 'forty'"),
        ("{name: length}", "length: options.target: is missing"),
        ("{name: format, options: {weights: {stepz: 1}}}", "format: weights: unknown hint 'stepz'; there are steps"),
        ("{name: confidence, options: {floor: low}}", "confidence: options.floor: must be a number, not 'low'"),
        ("{name: gsm8k, path: x}", "gsm8k: path: is not used by this reward; remove it"),
        (
            "{name: python, path: 'brief.py:brief', options: {foo: 1}}",
            "options.foo: the function takes no such argument",
        ),
        ("{name: model, path: start, options: {refusd: true}}", "model: options.refusd: unknown option; there are ref"),
        ("{name: ensemble, options: {path: [a, b], combine: meen}}", "options.combine: must be mean, min or uncertain"),
        ("{name: judge, path: start, options: {rubrik: helpful}}", "rubrik: unknown field; did you mean"),
        ("{name: decision, path: start, options: {instruction: x}}", "options.instruction: unknown option; there are"),
    ],
)
def test_a_wrong_option(reward: str, message: str, place: Path) -> None:
    """Of a stage's reward and of the study's own, by `recipe check`, `doctor`, and before the study begins."""
    written(reward)
    text = Path("s.yaml").read_text()
    whole = text.replace(f"reward: {reward}", "reward: gsm8k").replace("study.test: ", "study: {test: ")
    whole = whole.replace('test.jsonl"', f'test.jsonl", reward: {reward}}}', 1)
    for field, recipe in (("grpo.reward", text), ("study.reward", whole)):
        Path("s.yaml").write_text(recipe)
        code, error = check(["recipe", "check"])
        assert (code, error.partition(":")[0]) == (2, field) and message in error
        done = CliRunner().invoke(app, ["doctor", "s.yaml", "--json"])
        wrong = [entry["found"] for entry in json.loads(done.stdout)["checks"] if entry["what"] == "rewards"]
        assert (done.exit_code, wrong) == (2, [error])
        with pytest.raises(ValueError, match=re.escape(error)):
            run_study(study(place, Path("s.yaml").read_text()), out=place / "run")
    assert not (place / "run").exists()


def test_doctor_tries_what_the_arms_are_measured_by(place: Path) -> None:
    """Test questions that cannot be read, a function that fails on them, a judge that is nowhere."""
    Path("start").mkdir()
    Path("q.jsonl").write_text('{"prompt": "what is 6 times 7?", "solution": "42"}\n')
    Path("brief.py").write_text("def broken(question, answer):\n    return 1 / 0\n")

    def problems(test: str, reward: str) -> list[str]:
        Path("s.yaml").write_text(f"model: start\nstudy: {{test: {test}, reward: {reward}}}\nsft: {{data: d.jsonl}}\n")
        done = CliRunner().invoke(app, ["doctor", "s.yaml", "--json"])
        assert done.exit_code == 2
        return [f"{entry['what']}: {entry['found']}" for entry in json.loads(done.stdout)["checks"] if not entry["ok"]]

    assert problems("gone.jsonl", "gsm8k")[-1].startswith("data gone.jsonl: gone.jsonl: no such file")
    found = problems("q.jsonl", "{name: python, path: 'brief.py:broken'}")[-1]
    assert found.startswith("reward python of study: reward brief.py:broken: 1 of 1 answers got no score")
    assert problems("q.jsonl", "{name: judge, path: ./nojudge}")[-1].startswith("reward judge of study: reward judge: ")


def test_a_file_without_its_function(place: Path) -> None:
    """The file is there: what is missing is which of its functions."""
    with pytest.raises(UserError, match=r"^reward: brief.py: say which of its functions rates: brief.py:FUNCTION$"):
        asked_reward("brief.py")


def test_what_is_taken_for_a_name_on_the_hub_is_said(place: Path) -> None:
    """A judge that is misspelt may be one of the hub's."""
    Path("start").mkdir()
    Path("start/config.json").write_text("{}")
    written("{name: judge, path: nojudge}")
    done = CliRunner().invoke(app, ["recipe", "check", "s.yaml"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1:] == ["not here, so taken for names of models on the hub: nojudge"]
    assert json.loads(CliRunner().invoke(app, ["recipe", "check", "s.yaml", "--json"]).stdout)["hub"] == ["nojudge"]


def test_a_format_that_is_none(place: Path) -> None:
    """Named by `recipe check` before the file is read."""
    Path("d.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    Path("r.yaml").write_text("stage: sft\nmodel: owner/name\ndata: {path: d.jsonl, format: alpacca}\n")
    done = CliRunner().invoke(app, ["recipe", "check", "r.yaml", "--json"])
    error = json.loads(done.stdout)["error"]
    assert done.exit_code == 2 and error.startswith("data: format: 'alpacca' is unknown; did you mean alpaca?")


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

"""A user's own mistake is named before torch and its company are loaded, which takes seconds; with the nearest name."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.config import find_recipe
from smolt.config.complaints import beside
from smolt.errors import UserError
from tests.architecture.test_floors import COMPUTING

PROGRAM = """
import json, sys
import huggingface_hub
from huggingface_hub.errors import RepositoryNotFoundError
from typer.testing import CliRunner
from smolt.cli import app

def model_info(self, name, timeout):
    raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

huggingface_hub.HfApi.model_info = model_info
huggingface_hub.try_to_load_from_cache = lambda name, file: None
for arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, arguments)
    heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    print(json.dumps([done.exit_code, done.stderr, heavy]))
"""

SIBLING = "smollm2-135m-instruct"
FUNCTION = """brief.py: there is no function 'breif'; did you mean "brief"?"""
DATA = "data.path: dd.jsonl: no such file or directory; nearest in .: d.jsonl"
MODEL = "no such directory here, not in the hub's cache, and the hub has no such model (or it is gated and you are not"
HERE = f"nearest in .: {SIBLING}"
MISTAKES: list[tuple[list[str], list[str]]] = [
    (["sft", "r.yaml", "optim.rl=1"], ["optim.rl: unknown field"]),
    (["sft", "r.yml"], ["r.yml: no such recipe file", "nearest in .: r.yaml"]),
    (["study", "quikstart"], ['did you mean "quickstart"?']),
    (["sft", "r.yaml", "data=dd.jsonl"], [DATA]),
    (["sft", "r.yaml", "dev=dd.jsonl"], ["dev.path: dd.jsonl: no such file or directory"]),
    (["sft", "r.yaml", "model.path=smolm2-135m-instruct"], ["model.path: smolm2-135m-instruct: " + MODEL, HERE]),
    (["sft", "r.yaml", "model.path=./gone/model"], ["model.path: ./gone/model: no such directory, and not a hub name"]),
    (
        ["export", "~nobody-of-this-name/m", "--gguf"],
        ["model.path: ~nobody-of-this-name/m: no such directory, and not a"],
    ),
    (["sft", "r.yaml", "model.path=d.jsonl"], ["model.path: d.jsonl: is a file and no GGUF"]),
    (["sft", "r.yaml", "model.path=empty"], ["model.path: empty: holds neither config.json nor adapter_config.json"]),
    (["sft", "r.yaml", "--out", "d.jsonl"], ["d.jsonl: is a file, not a directory"]),
    (["sft", "r.yaml", "--out", "d.jsonl/run"], ["d.jsonl is a file, not a directory; choose another --out"]),
    (["sft", "r.yaml", "--out", "foreign"], ["foreign: holds 'mine.txt' and no manifest.json of smolt's"]),
    (["study", "s.yaml"], [f"grpo.reward: reward python: {FUNCTION}"]),
    (["study", "s.yaml", "grpo.reward={name: model, path: ./rm/model}"], ["grpo.reward.path: ./rm/model: no such"]),
    (["study", "s.yaml", "grpo.reward=gsm8k", "study.test=dd.jsonl"], ["study.test.path: dd.jsonl: no such file"]),
    (["eval", SIBLING, "d.jsonl", "--task", "gsm8"], ["gsm8"]),
    (["eval", SIBLING, "d.jsonl", "--reward", "gsm8"], ['did you mean "gsm8k"?']),
    (["eval", SIBLING, "d.jsonl", "--reward", "brief.py:breif"], [FUNCTION]),
    (["eval", SIBLING, "d.jsonl", "--reward", "breif.py:brief"], ["breif.py: no such file; nearest in .: brief.py"]),
    (["eval", SIBLING, "dd.jsonl"], [DATA]),
    (["sample", SIBLING, "dd.jsonl", "--out", "out"], [DATA]),
    (["chat", "smolm2-135m-instruct"], [HERE]),
    (["judge", "dd.jsonl", "--rule", "longer", "--out", "out"], [DATA]),
    (["judge", "d.jsonl", "--model", "./gone", "--out", "out"], ["path: ./gone: no such directory"]),
    (["judge", "d.jsonl", "--model", SIBLING, "--rubric", "helpfull", "--out", "out"], ['did you mean "helpful"?']),
    (["audit", SIBLING, "dd.jsonl"], [DATA]),
    (["merge", "smolm2-135m-instruct", "--out", "out"], [HERE]),
    (["suite", SIBLING, "./gone", "--out", "out"], ["model.path: ./gone: no such directory"]),
    (["data", "pilot", "p.yaml", "data=dd.jsonl"], [DATA]),
    (["reward-check", "g.yaml", "data=dd.jsonl"], [DATA]),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the mistakes stand beside; the model is never opened."""
    folder = tmp_path_factory.mktemp("early")
    (folder / "d.jsonl").write_text('{"prompt": "hi", "completion": "ho"}\n')
    (folder / "brief.py").write_text("def brief(question, answer):\n    return 1.0\n")
    (folder / "r.yaml").write_text(f"stage: sft\nmodel: {SIBLING}\ndata: d.jsonl\n")
    (folder / "p.yaml").write_text(f"stage: reward\nmodel: {SIBLING}\ndata: d.jsonl\n")
    (folder / "g.yaml").write_text(f"stage: grpo\nmodel: {SIBLING}\ndata: d.jsonl\nreward: gsm8k\n")
    study = f"model: {SIBLING}\ndata: d.jsonl\nsft: {{}}\n"
    (folder / "s.yaml").write_text(study + "grpo: {reward: {name: python, path: 'brief.py:breif'}}\n")
    for name in (SIBLING, "empty", "foreign"):
        (folder / name).mkdir()
    (folder / SIBLING / "config.json").write_text("{}")
    (folder / "foreign" / "mine.txt").write_text("mine")
    return folder


@pytest.fixture(scope="module")
def found(place: Path) -> list[list[Any]]:
    """Exit code, message and heavy packages loaded so far, of each mistake in turn in one process."""
    given = json.dumps([arguments for arguments, _ in MISTAKES]), json.dumps(COMPUTING)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *given], cwd=place, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("index", range(len(MISTAKES)), ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_named_before_libraries_are_loaded(index: int, found: list[list[Any]]) -> None:
    code, message, heavy = found[index]
    assert [part for part in MISTAKES[index][1] if part not in message] == [], message
    assert (code, heavy) == (2, [])


def test_a_directory_that_cannot_be_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2 and the directory's name, before the run is made; on a read-only file system it is 74."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    done = CliRunner().invoke(app, ["sft", "r.yaml", "--out", "deep/run"])
    assert (done.exit_code, done.stderr) == (2, f"error: {place.resolve()}: Permission denied\n")
    monkeypatch.setattr("os.statvfs", lambda path: type("Flags", (), {"f_flag": 1}))
    done = CliRunner().invoke(app, ["sft", "r.yaml", "--out", "deep/run"])
    assert (done.exit_code, done.stderr) == (74, f"error: {place.resolve()}: Read-only file system\n")


def test_a_recipe_beside_the_one_that_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path names its neighbours, a name the shipped recipes, a name with an ending both."""
    (tmp_path / "support.yaml").write_text("stage: sft\n")
    with pytest.raises(UserError, match=f"nearest in {tmp_path}: support.yaml"):
        find_recipe(str(tmp_path / "suport.yaml"))
    (tmp_path / "mkdocs.yml").write_text("site_name: another program's\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r'; nearest in .: .*mkdocs\.yml; did you mean "smoke"'):
        find_recipe("smok.yaml")
    assert beside(tmp_path / "wholly-different") == ""


def test_a_check_names_all_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong reward, two files and a model at once; not what a section makes, nor a name that the hub may know."""
    monkeypatch.chdir(tmp_path)
    Path("d.jsonl").touch()
    Path("brief.py").write_text("def brief(answer): return 1.0\n")
    Path("late.yaml").write_text(
        "{model: owner/name, data: d.jsonl, study: {test: d.jsonl}, sft: {}, "
        "pairs: {stage: pairs, from: sft, judge: {rule: longer}}, dpo: {from: sft, data: '{pairs}/preferences.jsonl'}, "
        "grpo: {from: sft, reward: {name: python, path: 'brief.py:brief'}}}"
    )

    def check(*overrides: str) -> tuple[int, list[str]]:
        done = CliRunner().invoke(app, ["recipe", "check", "late.yaml", *overrides, "--stage", "study", "--json"])
        return done.exit_code, json.loads(done.stdout).get("error", "").splitlines()

    assert check() == (0, [])
    wrong = ["sft.data=e/dx.jsonl", "study.test=dd.jsonl", "model=./gone", "grpo.reward.path=brief.py:breif"]
    code, lines = check(*wrong)
    assert code == 2
    assert sorted(lines) == [
        f"grpo.reward: reward python: {FUNCTION}",
        "model.path: ./gone: no such directory, and not a hub name (owner/name)",
        "sft.data.path: e/dx.jsonl: no such file or directory",
        f"study.test.{DATA.removeprefix('data.')}",
    ]

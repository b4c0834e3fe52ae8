"""The package as it is handed over: what the wheel holds, what it is called, and that it works far from the source."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from typer.testing import CliRunner

import smolt
from smolt.cli import app
from tests.study.conftest import SMALL
from tests.tiny import tiny_model

ROOT = Path(__file__).resolve().parents[1]
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DATED = {"RECORD", "METADATA", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}
"""What lies in a wheel beside the package."""


@pytest.mark.parametrize(
    ("given", "rounds"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")],
    ids=["nothing said", "rounds", "policy"],
)
def test_threads_wait_for_each_other_briefly(given: dict[str, str], rounds: str) -> None:
    """Two threads of an OpenMP team on one core must not use it up by waiting; what the user says stands."""
    told = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    asked = "import os, sys, smolt; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, env=told | given)
    assert done.stdout.split() == [rounds, "False"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy without tests and without git, in this environment."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "src" / "smolt", copy / "src" / "smolt", ignore=shutil.ignore_patterns("__pycache__"))
    program = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = (copy / "dist").iterdir()
    return found


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every file of src/smolt, recipes, templates and scripts included, and its own six: no tests, no benchmarks."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    own = {name for name in names if not name.startswith("smolt/")}
    source = ROOT / "src" / "smolt"
    files = [path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert names - own == {f"smolt/{path.relative_to(source).as_posix()}" for path in files}
    assert {name.partition(".dist-info/")[2] for name in own} == DATED


def test_its_name_and_version_without_git(wheel: Path) -> None:
    """A source tree without git builds: smolt-align, in the version that pyproject.toml falls back on."""
    found = metadata(wheel)
    expected = SETTINGS["tool"]["setuptools_scm"]["fallback_version"]
    assert (found["Name"], found["Version"]) == ("smolt-align", expected)
    assert {"ui", "serve", "lm-eval"} <= set(found.get_all("Provides-Extra", []))


def test_the_version_is_the_installed_ones() -> None:
    """`smolt --version` and `smolt.__version__` say what was installed."""
    assert smolt.__version__ == version("smolt-align")
    assert CliRunner().invoke(app, ["--version"]).stdout == f"smolt {smolt.__version__}\n"


def test_uninstalled_it_has_no_version(tmp_path: Path) -> None:
    """The bare source on a path imports, and says that its version is unknown."""
    program = "import smolt; print(smolt.__version__)"
    command = [sys.executable, "-S", "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    (tmp_path / "smolt").symlink_to(ROOT / "src" / "smolt")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("0+unknown\n", 0), done.stderr


def test_windows_is_refused_in_a_sentence() -> None:
    program = "import sys; sys.platform = 'win32'; import smolt"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("ImportError: smolt needs a POSIX system such as Linux")


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel, and of this one's packages all but the installed smolt."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    command = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth is searched last, and the .pth files in it (the editable smolt is one) are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "smolt"


def environment_of(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "XDG_CACHE_HOME": str(folder / "cache")}


def ran(program: Path, *arguments: str, cwd: Path) -> str:
    command = [str(program), *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment_of(cwd), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def listening(program: Path, *arguments: str, cwd: Path) -> Iterator[str]:
    """While entered, a server answers at the address that is given."""
    command = [str(program), *arguments, "--port", "0"]
    process = subprocess.Popen(command, cwd=cwd, env=environment_of(cwd), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        yield found[0]
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.slow
def test_the_wheel_works_far_from_its_source(bare: Path, tmp_path: Path) -> None:
    """A study with its report, a GGUF file, an answer over HTTP and the page in the browser."""
    where = ran(bare.with_name("python"), "-c", "import smolt; print(smolt.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(bare.parents[1])
    assert " study " in ran(bare, "--help", cwd=tmp_path)
    ran(bare, "study", "smoke", *SMALL, "--out", "study", cwd=tmp_path)
    assert (tmp_path / "study" / "report.html").stat().st_size > 100_000
    tiny_model(tmp_path / "my-model")
    ran(bare, "export", "my-model", "--gguf", "--out", "my-model.gguf", cwd=tmp_path)
    assert (tmp_path / "my-model.gguf").read_bytes()[:4] == b"GGUF"
    question = {"model": "my-model", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 4}
    with listening(bare, "serve", "my-model", cwd=tmp_path) as url:
        asked = Request(f"{url}/chat/completions", json.dumps(question).encode(), {"Content-Type": "application/json"})
        with urlopen(asked) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] <= 4
    with listening(bare, "ui", "my-model", "--runs", ".", cwd=tmp_path) as url, urlopen(url) as page:
        assert '"title":"smolt"' in page.read().decode()

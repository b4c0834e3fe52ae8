"""Rules of the source that no linter setting states: sizes, names, and what must not be written at all."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import smolt
from tests.architecture.tree import ROOT, calls, dotted, imports, modules, place, syntax

FILES = [path for folder in ("src", "tests", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]
LONGEST_FILE = 400
LONGEST_METHOD = 120
FORBIDDEN_NAMES = {
    *("util", "utils", "helper", "helpers", "common", "core", "base", "manager", "managers", "misc"),
    *("experimental", "legacy", "dev", "old", "new"),
}
PICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
EXECUTING = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
OPTIONAL = {"gradio", "starlette", "uvicorn", "trl"}
"""Third-party packages of the extras: a module that needs one may fail to import where it is not installed."""


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_over_400_lines() -> None:
    lines = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: count for path, count in lines.items() if count > LONGEST_FILE} == {}


def test_an_algorithm_is_read_in_one_sitting() -> None:
    """0 files of training/algorithms over 120 lines: what several share, or what has a name of its own, lies beside."""
    found = {
        path.name: path.read_text(encoding="utf-8").count("\n") for path in FILES if path.parent.name == "algorithms"
    }
    assert len(found) > 10 and {name: count for name, count in found.items() if count > LONGEST_METHOD} == {}


def test_names_say_what_is_inside() -> None:
    """0 modules or packages named utils, helpers, common, core, base, manager, experimental, legacy ..."""
    assert [module for module in modules() if not FORBIDDEN_NAMES.isdisjoint(module.split("."))] == []


@pytest.mark.parametrize("module", modules())
def test_every_module_imports(module: str) -> None:
    """Undefined names at module level, missing dependencies and misspelt imports end here."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if (missing.name or "").split(".")[0] in OPTIONAL:
            pytest.skip(f"needs the extra package {missing.name}")
        raise


LISTING = [
    name
    for name, path in modules().items()
    if name != "smolt" and re.search(r"^__all__\b", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("module", LISTING)
def test_all_is_true(module: str) -> None:
    """Every name in `__all__` exists, is named once, and is sorted or at least not repeated."""
    loaded = vars(importlib.import_module(module))
    names = loaded["__all__"]
    assert len(names) == len(set(names))
    assert [name for name in names if name not in loaded] == []


@pytest.mark.parametrize("name", smolt.__all__)
def test_every_public_name_of_smolt_exists(name: str) -> None:
    """`smolt.NAME` works for every name that `smolt.__all__` offers."""
    assert getattr(smolt, name) is not None


def test_an_unknown_name_of_smolt_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'grop'"):
        smolt.grop  # noqa: B018  (reading the attribute is the test)


def test_no_pickle() -> None:
    """0 imports of a serializer that runs code when it reads."""
    found = [(module, entry.target) for module in modules() for entry in imports(module)]
    assert [(module, target) for module, target in found if target.split(".")[0] in PICKLING] == []


def loaders(module: str) -> set[str]:
    """Classes of a module that derive from a YAML SafeLoader, so that `yaml.load` with one is safe."""
    return {
        node.name
        for node in ast.walk(syntax(module))
        if isinstance(node, ast.ClassDef) and any("SafeLoader" in dotted(base) for base in node.bases)
    }


def dangerous(module: str) -> Iterator[str]:
    """Calls that run code found in data, or that reach into somebody else's."""
    for name, call in calls(module):
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        loader = named.get("Loader")
        safe_yaml = loader is not None and dotted(loader) in loaders(module)
        if name in EXECUTING or name in {"torch.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all"}:
            yield f"{place(module, call)}: {name}"
        if name == "yaml.load" and not safe_yaml:
            yield f"{place(module, call)}: yaml.load without a SafeLoader of this file"
        for switch in ("trust_remote_code", "allow_pickle", "shell"):
            value = named.get(switch)
            if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
                yield f"{place(module, call)}: {switch} is not a plain False"
        if re.search(r"(^|\.)Auto[A-Z]\w*\.from_", name) and "trust_remote_code" not in named:
            yield f"{place(module, call)}: {name} without trust_remote_code=False"


def test_nothing_runs_code_found_in_data() -> None:
    """0 of eval, exec, torch.load, unsafe yaml.load, trust_remote_code=True, allow_pickle=True, shell=True."""
    assert [call for module in modules() for call in dangerous(module)] == []


def broad(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches everything and does not end by raising it again."""
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or dotted(kind) in {"Exception", "BaseException"} for kind in kinds)


BROAD_EXCEPTS: dict[str, str] = {
    "smolt.models.forward.quiet": "around a library that reads a model's files: what it raised becomes a message",
    "smolt.models.publishing.hub": "uploads to the hub, whose client raises errors of other packages",
    "smolt.data.inputs": "asks the hub, whose client raises errors of other packages, more with every release",
    "smolt.runs.trackers": "runs another program's client, whose faults end no training",
    "smolt.rewards.python": "runs the user's reward function and records whatever it raised",
}
"""Module -> why it may catch everything (it runs somebody else's function and records what that did)."""


def test_no_broad_excepts() -> None:
    """0 handlers of Exception, BaseException or everything: an error that nobody expected ends the run."""
    handlers = [
        (module, node)
        for module in modules()
        if module not in BROAD_EXCEPTS
        for node in ast.walk(syntax(module))
        if isinstance(node, ast.ExceptHandler)
    ]
    assert [place(module, node) for module, node in handlers if broad(node)] == []


def test_silenced_checks_say_which_and_why() -> None:
    """Every `noqa` and `type: ignore` names its rule and gives a reason after it."""
    bare = [
        f"{relative(path)}:{number}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"#\s*(noqa|type:\s*ignore)\b", line)
        and not re.search(r"#\s*(noqa:\s*[A-Z]+\d+|type:\s*ignore\[[\w-]+\])(,\s*[A-Z]+\d+)*\s+\S", line)
    ]
    assert bare == []


def test_the_linter_is_told_the_limits() -> None:
    """Complexity 10, lines of 120, undefined names (F821) never ignored, mypy strict, warnings are errors."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    lint = settings["ruff"]["lint"]
    ignored = [*lint["ignore"], *(rule for rules in lint["per-file-ignores"].values() for rule in rules)]
    assert settings["ruff"]["line-length"] == 120
    assert lint["mccabe"]["max-complexity"] == 10
    assert {"F", "C90"} <= set(lint["select"])
    assert not {"F", "F8", "F82", "F821", "C90", "C901"} & set(ignored)
    assert settings["mypy"]["strict"] is True
    assert settings["pytest"]["ini_options"]["filterwarnings"][0] == "error"


def test_the_lock_names_no_host_and_no_path() -> None:
    """constraints.txt holds `name==version` lines only, torch without a local version."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    assert "torch==2.13.0" in lines

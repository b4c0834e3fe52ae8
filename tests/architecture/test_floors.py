"""The floors of the house: a room imports from lower floors only, a room of its own floor included.

The reasons for the layout, and for what is not as strict as it could be, are docs/decisions/0008-rooms-and-floors.md.
The only imports that wait until they are needed: the bodies of command-line functions and `smolt/__init__`, so that
`smolt --help` stays quick.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.architecture.tree import (
    SOURCE,
    Import,
    bench_imports,
    imports,
    modules,
    own,
    part,
    syntax,
)

FLOORS: dict[str, int] = {
    "errors": 1,
    "randomness": 1,
    "processes": 1,
    "config": 2,
    "runs": 2,
    "statistics": 2,
    "data": 3,
    "report": 3,
    "models": 4,
    "rewards": 5,
    "training": 6,
    "preferences": 6,
    "evaluation": 6,
    "study": 7,
    "serving": 8,
    "ui": 9,
    "cli": 10,
}
"""Room of the house -> floor. Rooms of one floor stand side by side and do not know each other."""

LOOSE = {"__init__", "__main__", "errors", "randomness"}
"""The modules that lie in no room."""

WITHOUT_CODE = {"recipes"}
"""Folders of the package that hold no module: YAML, rubrics, prompts."""

LAZY = {"", "__main__", "cli"}
"""Rooms whose function bodies may import: `smolt/__init__`, `smolt/__main__` and the command line."""

UNBOUND = {"", "__main__"}
"""Outside the house: the package's own `__init__` and `python -m smolt`."""

LIGHT_FLOORS = (1, 2, 3)
"""Settings, text, numbers and reports: they say what was asked and what was found, and compute no model."""

HEAVY = ("torch", "transformers", "peft", "matplotlib", "tokenizers", "safetensors", "gradio", "accelerate")
"""What makes a command slow to start."""

COMPUTING = ("torch", "transformers", "peft", "tokenizers", "safetensors", "accelerate")
"""What the light floors never load. matplotlib may: a report is drawn on floor 3."""

FEW = 15
"""Entries of a folder, its `__init__` aside: more than that nobody takes in at a glance."""

ARITHMETIC = ("smolt.models.groups", "smolt.models.forward.logprobs", "smolt.training.objectives")

FOLDERS = sorted({path.parent for path in modules().values()} - {SOURCE / "smolt"})
"""All of them but the package itself, whose entries are named above."""

LIGHT = [name for name in modules() if FLOORS.get(part(name)) in LIGHT_FLOORS]


def own_imports(module: str) -> list[tuple[Import, str]]:
    """The imports of a module that come from smolt, with the module each comes from (itself left out)."""
    found = [(entry, own(entry.target)) for entry in imports(module)]
    return [(entry, target) for entry, target in found if target is not None and target != module]


def test_every_module_lies_in_a_room() -> None:
    """A new room is entered in FLOORS by hand: where it stands is a decision."""
    assert {part(module) for module in modules()} - set(FLOORS) - UNBOUND == set()


def test_no_loose_modules() -> None:
    """Beside the rooms lie the four modules that belong to none, and no folder that is not one of the house."""
    entries = [path for path in (SOURCE / "smolt").iterdir() if path.name != "__pycache__"]
    assert {path.stem for path in entries if path.suffix == ".py"} == LOOSE
    assert {path.name for path in entries if path.is_dir()} == (set(FLOORS) - LOOSE) | WITHOUT_CODE


def upward(module: str) -> Iterator[str]:
    """The imports of a module that are not from a lower floor or its own room."""
    for entry, target in own_imports(module):
        where = f"{module}:{entry.line} imports {entry.target}"
        if target == "smolt":
            if entry.target != "smolt.__version__":
                yield f"{where}: import from the module that defines it"
        elif part(target) != part(module) and FLOORS[part(target)] >= FLOORS[part(module)]:
            yield f"{where}: not on a lower floor"


def test_imports_only_from_lower_floors() -> None:
    """0 imports from a higher floor or from another room of the same one; nobody inside imports smolt itself."""
    assert [found for module in modules() if part(module) not in UNBOUND for found in upward(module)] == []


def test_no_deferred_own_imports() -> None:
    """0 imports of smolt inside a function, outside the command line."""
    deferred = [
        f"{module}:{entry.line} imports {entry.target}"
        for module in modules()
        if part(module) not in LAZY
        for entry, _ in own_imports(module)
        if entry.deferred
    ]
    assert deferred == []


def test_a_folder_is_taken_in_at_a_glance() -> None:
    """At most 15 modules and folders beside `__init__`."""
    entries = {folder: {path.name for path in folder.iterdir()} - {"__init__.py", "__pycache__"} for folder in FOLDERS}
    assert {folder: sorted(names) for folder, names in entries.items() if len(names) > FEW} == {}


def test_no_file_name_twice() -> None:
    """A file is spoken of by its name; `__init__` and `nouns` are of their folder."""
    places: dict[str, list[str]] = {}
    for module, path in modules().items():
        places.setdefault(path.stem, []).append(module)
    twice = {name: found for name, found in places.items() if len(found) > 1 and name not in ("__init__", "nouns")}
    assert twice == {}


def test_no_class_name_twice() -> None:
    """A class is spoken of by its name."""
    places: dict[str, list[str]] = {}
    for module in modules():
        for node in ast.walk(syntax(module)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_private_names_stay_at_home() -> None:
    """0 imports of a name, or from a module, that begins with an underscore (`__version__` and its like aside)."""
    private = [
        f"{module}:{entry.line} imports {entry.target}"
        for module in modules()
        for entry, _ in own_imports(module)
        if any(name.startswith("_") and not name.startswith("__") for name in entry.target.split("."))
    ]
    assert private == []


def circle(edges: dict[str, set[str]]) -> list[str]:
    """One circle of a directed graph as the names along it, or an empty list."""
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for target in sorted(edges.get(node, ())):
            found = visit(target, [*trail, node])
            if found:
                return found
        done.add(node)
        return []

    for start in sorted(edges):
        found = visit(start, [])
        if found:
            return found
    return []


def test_circle_finds_a_circle() -> None:
    """a -> b -> c -> b has the circle b, c, b; a -> b, a -> c, b -> c has none."""
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_import_circles_among_modules() -> None:
    """No module reaches itself through top-level imports."""
    edges = {name: {target for entry, target in own_imports(name) if not entry.deferred} for name in modules()}
    assert circle(edges) == []


def test_no_import_circles_in_the_benchmarks() -> None:
    """No module of bench/ reaches itself either."""
    edges: dict[str, set[str]] = {}
    for entry in bench_imports():
        edges.setdefault(entry.module, set()).add(entry.target)
    assert len(edges) > 1
    assert circle(edges) == []


def test_light_floors_name_nothing_that_computes() -> None:
    """0 imports of torch, transformers or peft on floors 1 to 3, not even deferred."""
    found = [(module, entry) for module in LIGHT for entry in imports(module)]
    assert [f"{module}:{entry.line}" for module, entry in found if entry.target.split(".")[0] in COMPUTING] == []


def loaded(program: str, packages: tuple[str, ...]) -> list[str]:
    """Run a program in a fresh interpreter; which of the packages it had loaded at its end."""
    report = f"\nimport sys\nprint([name for name in {packages!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program + report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = ast.literal_eval(done.stderr.splitlines()[-1])
    return found


def test_light_floors_load_nothing_that_computes() -> None:
    """Importing smolt and all of floors 1 to 3 leaves torch and its company out of sys.modules."""
    assert loaded("\n".join(f"import {name}" for name in ["smolt", *LIGHT]), COMPUTING) == []


@pytest.mark.parametrize(
    "room", ["smolt.rewards", "smolt.evaluation.grading", "smolt.preferences.people", "smolt.data"]
)
def test_what_needs_no_model_loads_none(room: str) -> None:
    """Rules, grading, labelling and data stand in rooms beside what loads models, and are as quick as they look."""
    assert loaded(f"import {room}", COMPUTING) == []


def test_help_loads_nothing_heavy() -> None:
    """`smolt --help` leaves 0 heavy packages in sys.modules and exits 0."""
    program = """
import sys
from smolt.cli import main
sys.argv = ["smolt", "--help"]
try:
    code = main()
except SystemExit as end:
    code = end.code
if code:
    sys.exit(code)
"""
    assert loaded(program, HEAVY) == []


@pytest.mark.parametrize(
    "module", ["smolt.models.groups", "smolt.training.objectives", "smolt.models.forward.logprobs"]
)
def test_arithmetic_needs_torch_only(module: str) -> None:
    """Groups and losses are pure tensor code: 0 imports of transformers or peft."""
    assert [entry.target for entry in imports(module) if entry.target.split(".")[0] in ("transformers", "peft")] == []


def test_algorithms_do_not_import_one_another() -> None:
    """0 imports of a sibling among the algorithm files, the package's own `__init__` aside."""
    home = "smolt.training.algorithms"
    siblings = [
        f"{name}:{entry.line} imports {entry.target}"
        for name in modules()
        if name.startswith(f"{home}.")
        for entry, target in own_imports(name)
        if target.startswith(home)
    ]
    assert siblings == []


def test_the_tree_is_read() -> None:
    """The checks above look at something: smolt.errors is a module and its syntax tree has UserError."""
    names = [node.name for node in syntax("smolt.errors").body if isinstance(node, ast.ClassDef)]
    assert "UserError" in names

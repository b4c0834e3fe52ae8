"""The floors of the house (docs: the table below is the plan): a module imports only from lower floors or its own.

Exceptions, and the only ones: the bodies of command-line functions and `smolt/__init__` import their stage when called,
so that `smolt --help` stays quick.
"""

import ast
import subprocess
import sys

import pytest

from tests.architecture.tree import Import, imports, modules, own, part, syntax

FLOORS: dict[str, int] = {
    "errors": 0,
    "config": 0,
    "records": 0,
    "runs": 0,
    "statistics": 0,
    "problems": 0,
    "tickets": 0,
    "generated": 0,
    "counters": 0,
    "memory": 0,
    "footprint": 0,
    "directories": 0,
    "cards": 0,
    "panels": 0,
    "groups": 1,
    "numerics": 1,
    "logprobs": 1,
    "tensorfile": 1,
    "rendering": 2,
    "decoding": 2,
    "lean": 2,
    "checkpointing": 2,
    "probing": 2,
    "fused": 2,
    "lowrank": 2,
    "attention": 2,
    "models": 2,
    "trunk": 2,
    "machine": 2,
    "saving": 2,
    "sampling": 3,
    "checks": 3,
    "fitting": 3,
    "preparation": 3,
    "origins": 3,
    "pace": 3,
    "shapes": 3,
    "scaling": 3,
    "rewards": 4,
    "judges": 4,
    "streams": 4,
    "rollouts": 4,
    "imitation": 4,
    "learned": 4,
    "forecast": 4,
    "conditions": 4,
    "reward_audit": 4,
    "grading": 4,
    "training": 4,
    "foresight": 4,
    "prospect": 4,
    "algorithms": 5,
    "answers": 4,
    "answer_file": 6,
    "conversation": 4,
    "token_budget": 2,
    "items": 3,
    "stage_input": 3,
    "chunks": 6,
    "data_audit": 6,
    "judging": 6,
    "evaluation": 6,
    "labels": 6,
    "pairs": 6,
    "report": 6,
    "comparing": 6,
    "suites": 6,
    "overoptimisation": 6,
    "recording": 6,
    "study": 7,
    "cli": 7,
    "chat": 7,
    "merge": 7,
    "harness": 7,
    "ui": 7,
}
"""Part of the house -> floor."""

LAZY = {"", "cli"}
"""Parts whose function bodies may import: `smolt/__init__` and the command line."""

UNBOUND = {"", "__main__"}
"""Parts outside the house: the package's own `__init__` and `python -m smolt`."""

HEAVY = ("torch", "transformers", "peft", "matplotlib", "tokenizers", "safetensors", "gradio", "accelerate")
"""What the ground floor must not load."""

GROUND = [name for name in modules() if FLOORS.get(part(name)) == 0]


def own_imports(module: str) -> list[tuple[Import, str]]:
    """The imports of a module that come from smolt, with the module each comes from (itself left out)."""
    found = [(entry, own(entry.target)) for entry in imports(module)]
    return [(entry, target) for entry, target in found if target is not None and target != module]


@pytest.mark.parametrize("module", modules())
def test_every_module_has_a_floor(module: str) -> None:
    """A new part of the house is entered in FLOORS by hand: where it stands is a decision."""
    assert part(module) in FLOORS or part(module) in UNBOUND, f"{module}: enter {part(module)!r} in FLOORS"


@pytest.mark.parametrize("module", [name for name in modules() if part(name) not in UNBOUND])
def test_imports_only_from_lower_floors(module: str) -> None:
    """0 imports from a higher floor; code outside the house (smolt itself) is imported by nobody inside."""
    for entry, target in own_imports(module):
        if entry.deferred and part(module) in LAZY:
            continue
        where = f"{module}:{entry.line} imports {entry.target}"
        if target == "smolt":
            assert entry.target == "smolt.__version__", f"{where}: import from the module that defines it"
            continue
        assert FLOORS[part(target)] <= FLOORS[part(module)], f"{where}: a higher floor"


@pytest.mark.parametrize("module", [name for name in modules() if part(name) not in LAZY])
def test_no_deferred_own_imports(module: str) -> None:
    """0 imports of smolt inside a function, outside the command line."""
    deferred = [f"{module}:{entry.line} imports {entry.target}" for entry, _ in own_imports(module) if entry.deferred]
    assert deferred == []


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


def test_no_import_circles_among_parts() -> None:
    """No part of the house reaches itself through another part, even where the files would allow it."""
    edges: dict[str, set[str]] = {}
    for name in modules():
        if part(name) in UNBOUND:
            continue
        targets = {part(target) for entry, target in own_imports(name) if not entry.deferred}
        edges.setdefault(part(name), set()).update(targets - {part(name), ""})
    assert circle(edges) == []


@pytest.mark.parametrize("module", GROUND)
def test_ground_floor_names_nothing_heavy(module: str) -> None:
    """0 imports of torch, transformers, peft or matplotlib, not even deferred."""
    heavy = [f"{module}:{entry.line}" for entry in imports(module) if entry.target.split(".")[0] in HEAVY]
    assert heavy == []


def loaded_heavy(program: str) -> list[str]:
    """Run a program in a fresh interpreter; which heavy packages it had loaded at its end."""
    report = f"\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program + report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded: list[str] = ast.literal_eval(done.stderr.splitlines()[-1])
    return loaded


def test_ground_floor_loads_nothing_heavy() -> None:
    """Importing smolt and the whole ground floor leaves 0 heavy packages in sys.modules."""
    assert loaded_heavy("\n".join(f"import {name}" for name in ["smolt", *GROUND])) == []


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
    assert loaded_heavy(program) == []


@pytest.mark.parametrize("module", [name for name in modules() if FLOORS.get(part(name)) == 1])
def test_first_floor_needs_torch_only(module: str) -> None:
    """groups and numerics are pure tensor code: 0 imports of transformers or peft."""
    assert [entry.target for entry in imports(module) if entry.target.split(".")[0] in ("transformers", "peft")] == []


def test_algorithms_do_not_import_one_another() -> None:
    """Each algorithm file can be read alone: 0 imports of a sibling, the package's own `__init__` aside."""
    siblings = [
        f"{name}:{entry.line} imports {entry.target}"
        for name in modules()
        if part(name) == "algorithms" and name != "smolt.algorithms"
        for entry, target in own_imports(name)
        if part(target) == "algorithms"
    ]
    assert siblings == []


def test_the_tree_is_read() -> None:
    """The checks above look at something: smolt.errors is a module and its syntax tree has UserError."""
    names = [node.name for node in syntax("smolt.errors").body if isinstance(node, ast.ClassDef)]
    assert "UserError" in names

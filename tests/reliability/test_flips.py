"""One bit flipped anywhere in a run, a study or a store: named, or without difference."""

import json
import random
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from smolt.errors import UserError
from smolt.runs import Run, StorageError
from tests.disk import flipped
from tests.preferences.test_damaged_stores import flip_label_store, flip_verdicts
from tests.reliability.conftest import CHANGES, NAME, Uninterrupted
from tests.reliability.test_command_kills import STUDY, left_alone
from tests.reliability.test_damage import continued, files, with_harm
from tests.soak import amount, tell

PROMISE = "one bit flipped: named, or without difference"


def flips(contents: dict[str, bytes], count: int) -> Iterator[tuple[str, bytes]]:
    """File after file in turn, one bit of it changed, so that small files are met as often as large ones."""
    draw, names = random.Random(count), sorted(name for name, content in contents.items() if content)
    for number in range(count):
        name = names[number % len(names)]
        yield name, flipped(contents[name], draw)


def contents_of(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in files(out)}


@pytest.mark.slow
def test_an_interrupted_run(inputs: Path, stopped: Path, uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    expected, count = uninterrupted(NAME, **CHANGES), amount(60, 600)
    found: dict[str, int] = {}
    for name, content in flips(contents_of(stopped), count):
        out = with_harm(stopped, tmp_path / "run", name, content)
        came_to = continued(inputs, out, expected, name)
        found[came_to] = found.get(came_to, 0) + 1
    tell(PROMISE, f"an interrupted run ({NAME})", flips=count, silent_differences=0, **found)


@pytest.mark.slow
def test_a_finished_run(complete: Path, tmp_path: Path) -> None:
    recipe, count = json.loads((complete / "manifest.json").read_text())["recipe"], amount(100, 600)
    named = 0
    for name, content in flips(contents_of(complete), count):
        named += is_named(with_harm(complete, tmp_path / "run", name, content), name, recipe)
    tell(PROMISE, f"a finished run ({NAME})", flips=count, named=named, silent_differences=0)


@pytest.mark.slow
def test_a_finished_study(server: ForkServerContext, tmp_path: Path) -> None:
    out, count = tmp_path / "study", amount(100, 800)
    left_alone(server, [*STUDY, "--out", str(out)], tmp_path / "told")
    recipe, named = json.loads((out / "manifest.json").read_text())["recipe"], 0
    contents = contents_of(out)
    for name, content in flips(contents, count):
        (out / name).write_bytes(content)
        named += is_named(out, name, recipe)
        (out / name).write_bytes(contents[name])
    tell(PROMISE, "a finished study (smoke)", flips=count, named=named, silent_differences=0)


def is_named(out: Path, name: str, recipe: object) -> bool:
    """Whether the next start names a harmed file; fails where it is silent, but for checkpoints of what is finished."""
    try:
        assert isinstance(recipe, dict)
        found = Run.finished(out, recipe)
    except (UserError, StorageError) as refusal:
        assert Path(name).name in f"{refusal}", name
        return True
    assert found is None or "checkpoints/" in name, name
    return False


@pytest.mark.slow
@pytest.mark.parametrize(("what", "flip"), [("a label store", flip_label_store), ("a judge's verdicts", flip_verdicts)])
def test_a_store(what: str, flip: Callable[[Path, int], int], tmp_path: Path) -> None:
    count = amount(80, 300)
    tell(PROMISE, what, flips=count, named=flip(tmp_path, count), silent_differences=0)

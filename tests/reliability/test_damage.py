"""Whatever happens to a file of a run: a named refusal, a named fallback, or no difference in bytes."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smolt.errors import UserError
from smolt.runs import Run, StorageError
from smolt.runs.locks import LOCK
from tests.disk import flipped
from tests.reliability.conftest import CHANGES, NAME, Uninterrupted
from tests.reliability.scenes import open_scene
from tests.reliability.traces import traces


def files(out: Path) -> list[str]:
    """Every file of a run but its lock, which is made anew."""
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file() and path.name != LOCK)


def continued(inputs: Path, out: Path, expected: dict[str, Any], harmed: str) -> str:
    """What a continuation of a harmed run comes to; fails where that is neither named nor without difference."""
    try:
        training = open_scene(NAME, inputs, out, **CHANGES)
        training.finish()
    except (UserError, StorageError) as refusal:
        assert Path(harmed).name in f"{getattr(refusal, 'filename', '')} {refusal}", harmed
        return "refused"
    named = any(Path(harmed).name in line for line in training.warnings)
    if traces(out) == expected:
        return "named" if named else "the same"
    assert named, f"{harmed}: another end, and not a word"
    return "named"


def harms(content: bytes, draw: random.Random) -> Iterator[tuple[str, bytes | None]]:
    """A file removed, emptied, cut, and with one bit changed."""
    yield "removed", None
    yield "emptied", b""
    yield "cut", content[: len(content) // 2]
    yield "flipped", flipped(content, draw)


def with_harm(whole: Path, out: Path, name: str, content: bytes | None) -> Path:
    """A copy of a run in which a file holds something else, or is gone."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(whole, out)
    (out / name).unlink()
    if content is not None:
        (out / name).write_bytes(content)
    return out


def test_every_file_of_an_interrupted_run(
    inputs: Path, stopped: Path, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    """Four harms to each file."""
    expected, draw = uninterrupted(NAME, **CHANGES), random.Random(1)
    found = {}
    for name in files(stopped):
        for harm, content in harms((stopped / name).read_bytes(), draw):
            out = with_harm(stopped, tmp_path / "run", name, content)
            found[name, harm] = continued(inputs, out, expected, name)
    newest = "checkpoints/step-00000002"
    assert found[f"{newest}/weights.safetensors", "flipped"] == "named"
    assert found["metrics.jsonl", "removed"] == "named"
    assert found["samples.jsonl", "cut"] == "named"
    assert found["manifest.json", "flipped"] == "refused"
    assert found["checkpoints/step-00000001/weights.safetensors", "flipped"] == "the same"  # nothing stands on it


def test_every_file_of_a_finished_run(complete: Path, tmp_path: Path) -> None:
    """Named at the next start, all but what nothing stands on any more (checkpoints)."""
    recipe, draw = json.loads((complete / "manifest.json").read_text())["recipe"], random.Random(2)
    for name in files(complete):
        for harm, content in harms((complete / name).read_bytes(), draw):
            out = with_harm(complete, tmp_path / "run", name, content)
            try:
                found = Run.finished(out, recipe)
            except (UserError, StorageError) as refusal:
                assert Path(name).name in f"{refusal}", (name, harm)
                continue
            is_silent = found is not None and not name.startswith("checkpoints/")
            assert not is_silent, (name, harm)


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value of a JSON document that holds no other."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [leaf for key, each in pairs for leaf in leaves(each, (*place, key))]
    yield from inner or [place]


def test_every_field_of_a_manifest(inputs: Path, stopped: Path, tmp_path: Path) -> None:
    """Changed or removed: refused by the manifest's own name."""
    out = tmp_path / "run"
    shutil.copytree(stopped, out)
    whole = json.loads((out / "manifest.json").read_text())
    for *above, last in leaves({name: value for name, value in whole.items() if name != "seal"}):
        for harm in ("changed", "removed"):
            document = json.loads(json.dumps(whole))
            block = document
            for key in above:
                block = block[key]
            if harm == "changed":
                block[last] = "other"
            else:
                del block[last]
            (out / "manifest.json").write_text(json.dumps(document))
            with pytest.raises(UserError, match=r"manifest.json"):
                open_scene(NAME, inputs, out, **CHANGES)

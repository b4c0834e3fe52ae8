"""The runs below a directory and their states, read from outside."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolt.errors import UserError
from smolt.runs import REFUSED, Run
from smolt.runs.listing import is_held, logged_rows, run_at, runs_below


def manifest(stage: str = "sft") -> dict[str, Any]:
    return {"stage": stage, "recipe": {"stage": stage}, "data": None, "model": None, "renderer": None}


def begun(directory: Path, stage: str = "sft", updates: int = 2) -> Run:
    run = Run.open(directory, manifest=manifest(stage))
    for step in range(1, updates + 1):
        run.log({"step": step, "loss": 1 / step})
    return run


def states(directory: Path) -> dict[str, str]:
    return {run.name: run.state for run in runs_below(directory)}


def test_the_states_of_a_run(tmp_path: Path) -> None:
    """Running while it is open, interrupted once it is closed, complete with a result."""
    run = begun(tmp_path / "one")
    assert is_held(tmp_path / "one")
    assert states(tmp_path) == {"one": "running"}
    run.close()
    assert not is_held(tmp_path / "one")
    assert states(tmp_path) == {"one": "interrupted"}
    with Run.open(tmp_path / "one", manifest=manifest()) as again:
        again.load_checkpoint()
        again.complete({"updates": 2})
    assert states(tmp_path) == {"one": "complete"}
    assert run_at(tmp_path, "one").result == {"updates": 2}


def test_refused_by_itself_or_by_its_gate(tmp_path: Path) -> None:
    with begun(tmp_path / "no-signal", "grpo", 0) as run:
        run.measured({REFUSED: "no group has signal"})
    with begun(tmp_path / "gated", "reward") as run:
        run.complete({"refused": "no better than the longer answer"})
    found = {run.name: (run.state, run.reason) for run in runs_below(tmp_path)}
    assert found == {
        "no-signal": ("refused", "no group has signal"),
        "gated": ("refused", "no better than the longer answer"),
    }


def test_a_damaged_manifest_is_named_and_hides_nothing(tmp_path: Path) -> None:
    begun(tmp_path / "one").close()
    begun(tmp_path / "two").close()
    (tmp_path / "one" / "manifest.json").write_text("{")
    assert states(tmp_path) == {"one": "damaged", "two": "interrupted"}
    assert "manifest.json" in run_at(tmp_path, "one").reason


def test_sections_stand_below_their_study(tmp_path: Path) -> None:
    begun(tmp_path / "study", "study", 0).close()
    begun(tmp_path / "study" / "seed-1" / "sft").close()
    begun(tmp_path / "another").close()
    (tmp_path / "study" / "checkpoints" / "x").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    assert [run.name for run in runs_below(tmp_path) if run.name.startswith("study")] == ["study", "study/seed-1/sft"]
    assert len(runs_below(tmp_path)) == 3


def test_nothing_outside_is_listed_or_opened(tmp_path: Path) -> None:
    """A link out of the directory, names with dots and absolute names find nothing."""
    begun(tmp_path / "outside").close()
    runs = tmp_path / "runs"
    begun(runs / "inside").close()
    (runs / "link").symlink_to(tmp_path / "outside")
    assert states(runs) == {"inside": "interrupted"}
    for name in ("../outside", "link", str(tmp_path / "outside"), "inside/../../outside", "./inside", "", ".", "a\0b"):
        with pytest.raises(UserError, match="no run of this name"):
            run_at(runs, name)


def test_a_reward_model_answers_nothing(tmp_path: Path) -> None:
    for stage in ("sft", "reward"):
        begun(tmp_path / stage, stage).close()
        (tmp_path / stage / "model").mkdir()
        (tmp_path / stage / "model" / "config.json").write_text("{}")
    assert {run.name: run.model for run in runs_below(tmp_path)} == {"sft": True, "reward": False}


def test_rows_while_they_are_written(tmp_path: Path) -> None:
    """The torn last line and a line that is no JSON are left out; no file gives no rows."""
    assert logged_rows(tmp_path) == []
    lines = [json.dumps({"step": 1, "loss": 0.5}), "oops", json.dumps({"step": 2, "loss": 0.25}), '{"step": 3, "lo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert logged_rows(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_a_directory_that_is_not_there_has_no_runs(tmp_path: Path) -> None:
    assert runs_below(tmp_path / "runs") == []

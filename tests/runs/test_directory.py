"""`Run`: creating, continuing, refusing, setting aside."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from smolt.errors import DirectoryInUse, SelfCheckError, UserError
from smolt.runs import Run, StorageError
from smolt.runs.directory import refuse_unwritable
from smolt.runs.locks import acquire

MANIFEST: dict[str, Any] = {
    "recipe": {"stage": "dpo", "optim": {"lr": 1e-4, "betas": [0.9, 0.95]}, "seed": 1},
    "data": {"train": {"sha256": "ab", "rows": 12}},
    "model": {"sha256": "cd"},
    "renderer": "template-1",
    "versions": {"torch": "2.13.0"},
    "threads": 2,
}


def changed(path: str, value: object) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(json.dumps(MANIFEST))
    *parents, last = path.split(".")
    place = manifest
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return manifest


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def train(run: Run, first: int, last: int) -> None:
    """What a training loop does: rows, then now and then a checkpoint."""
    for step in range(first, last + 1):
        run.log({"step": step, "loss": 1 / step})
        run.sample({"step": step, "text": f"answer {step}"})
        run.flush()
        if step % 2 == 0:
            run.save_checkpoint(step, {"weights": b"%d" % step}, {"step": step})


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "first"
    with Run.open(directory, manifest=MANIFEST) as run:
        assert (run.result, run.warnings) == (None, [])
        statuses = [run.status]
        stored = json.loads((directory / "manifest.json").read_text())
        assert len(stored.pop("seal")) == 64
        assert stored == {**MANIFEST, "format": "smolt-run/1"}
        assert run.load_checkpoint() is None
        train(run, 1, 2)
        statuses.append(run.status)
        run.complete({"loss": 0.5})
        statuses.append(run.status)
    assert statuses == ["new", "resumable", "complete"]
    with Run.open(directory, manifest=MANIFEST) as run:
        assert (run.status, run.result) == ("complete", {"loss": 0.5})


def test_a_resumed_record_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    """Straight: 1..6. Interrupted: 1..5 (checkpoint at 4, rows up to 5), then again from 5."""
    with Run.open(tmp_path / "straight", manifest=MANIFEST) as run:
        train(run, 1, 6)
    with Run.open(tmp_path / "interrupted", manifest=MANIFEST) as run:
        train(run, 1, 5)
    with Run.open(tmp_path / "interrupted", manifest=MANIFEST) as run:
        checkpoint = run.load_checkpoint()
        assert checkpoint is not None
        assert (checkpoint.step, checkpoint.state, checkpoint.read("weights")) == (4, {"step": 4}, b"4")
        assert [row["step"] for row in rows(run.directory / "metrics.jsonl")] == [1, 2, 3, 4]
        train(run, 5, 6)
    for name in ("metrics.jsonl", "samples.jsonl", "checkpoints/step-00000006/checkpoint.json"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "interrupted" / name).read_bytes()


def test_a_start_that_died_before_its_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", manifest=MANIFEST) as run:
        run.log({"step": 1})
    with Run.open(tmp_path / "run", manifest=MANIFEST) as run:
        assert (run.status, run.load_checkpoint()) == ("new", None)
        assert rows(run.directory / "metrics.jsonl") == []


def test_a_continued_run_must_load_first(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", manifest=MANIFEST) as run:
        train(run, 1, 2)
    with Run.open(tmp_path / "run", manifest=MANIFEST) as run:
        for act in (
            lambda: run.log({"step": 3}),
            lambda: run.sample({"step": 3}),
            lambda: run.save_checkpoint(3, {}, {}),
        ):
            with pytest.raises(ValueError, match="begins with load_checkpoint"):
                act()


def test_damage_is_a_warning_and_the_checkpoint_before_is_used(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", manifest=MANIFEST) as run:
        train(run, 1, 4)
        (run.directory / "checkpoints" / "step-00000004" / "weights").write_bytes(b"5")
    with Run.open(tmp_path / "run", manifest=MANIFEST) as run:
        checkpoint = run.load_checkpoint()
        assert checkpoint is not None and checkpoint.step == 2
        assert len(run.warnings) == 1
        assert "step-00000004/weights: expected sha256" in run.warnings[0]
        assert [row["step"] for row in rows(run.directory / "samples.jsonl")] == [1, 2]


def test_all_checkpoints_damaged_is_an_error_and_drops_nothing(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", manifest=MANIFEST) as run:
        train(run, 1, 3)
        (run.directory / "checkpoints" / "step-00000002" / "weights").unlink()
    with Run.open(tmp_path / "run", manifest=MANIFEST) as run:
        with pytest.raises(StorageError, match="every checkpoint is damaged; --fresh starts over") as caught:
            run.load_checkpoint()
        assert caught.value.exit_code == 74
        assert len(rows(run.directory / "metrics.jsonl")) == 3


def test_the_best_checkpoint(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", manifest=MANIFEST) as run:
        assert run.best_checkpoint() is None
        run.save_checkpoint(1, {"weights": b"1"}, {}, keep=1, best=True)
        run.save_checkpoint(2, {"weights": b"2"}, {}, keep=1)
        run.save_checkpoint(3, {"weights": b"3"}, {}, keep=1)
        best = run.best_checkpoint()
        assert best is not None and (best.step, best.best, best.read("weights")) == (1, True, b"1")


def test_a_best_snapshot_after_the_checkpoint_goes_on_resume(tmp_path: Path) -> None:
    """Killed after the best of step 3, before its checkpoint: the run is at 2 again, where the best was step 1's."""
    with Run.open(tmp_path, manifest=MANIFEST) as run:
        run.save_checkpoint(1, {"weights": b"1"}, {}, best=True)
        assert run.status == "new"
        train(run, 1, 2)
        run.save_checkpoint(3, {"weights": b"3"}, {}, best=True)
    with Run.open(tmp_path, manifest=MANIFEST) as run:
        checkpoint, best = run.load_checkpoint(), run.best_checkpoint()
        assert checkpoint is not None and best is not None
        assert (checkpoint.step, best.step) == (2, 1)


def begin(directory: Path, manifest: dict[str, Any]) -> None:
    """A run that has a row to lose."""
    with Run.open(directory, manifest=manifest) as run:
        run.log({"step": 0})


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("recipe.optim.lr", 1e-5, "recipe.optim.lr: 0.0001 in this run, 1e-05 now"),
        ("recipe.optim.betas", [0.9, 0.99], "recipe.optim.betas[1]: 0.95 in this run, 0.99 now"),
        ("recipe.optim.betas", [0.9], "recipe.optim.betas: [0.9, 0.95] in this run, [0.9] now"),
        ("recipe.stage", "ppo", "holds a dpo run, this is ppo"),
        ("recipe.seed", True, "recipe.seed: 1 in this run, true now"),
        ("recipe.seed", None, "recipe.seed: 1 in this run, absent now"),
        ("recipe.lora", {"rank": 8}, 'recipe.lora: absent in this run, {"rank": 8} now'),
        ("data.train.sha256", "ef", 'data.train.sha256: "ab" in this run, "ef" now'),
        ("model.sha256", "ef", 'model.sha256: "cd" in this run, "ef" now'),
        ("renderer", "template-2", 'renderer: "template-1" in this run, "template-2" now'),
        ("renderer", "x" * 200, f'"template-1" in this run, "{"x" * 99}... (202 characters) now'),
    ],
)
def test_another_identity_is_refused_with_both_values(tmp_path: Path, path: str, value: object, line: str) -> None:
    begin(tmp_path / "run", MANIFEST)
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    with pytest.raises(UserError) as caught:
        Run.open(tmp_path / "run", manifest=changed(path, value))
    assert line in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before
    Run.open(tmp_path / "run", manifest=MANIFEST).close()


def test_every_difference_is_named_up_to_twenty(tmp_path: Path) -> None:
    begin(tmp_path / "run", {**MANIFEST, "data": {f"{n}": n for n in range(25)}})
    with pytest.raises(UserError) as caught:
        Run.open(tmp_path / "run", manifest={**MANIFEST, "data": {f"{n}": -1 for n in range(25)}})
    lines = str(caught.value).splitlines()
    assert len([line for line in lines if line.startswith("  data.")]) == 20
    assert lines[21] == "  ... and 5 more"


def test_measurements_of_the_first_start_are_kept(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", manifest=MANIFEST) as run:
        run.measured({"precision": "bf16", "threads": 4})
        with pytest.raises(ValueError, match="none of them may be part of its identity"):
            run.measured({"model": {}})
    with Run.open(tmp_path / "run", manifest={**MANIFEST, "threads": 1}) as run:
        assert (run.manifest["precision"], run.manifest["threads"], run.warnings) == ("bf16", 4, [])
        run.load_checkpoint()
        run.save_checkpoint(1, {}, {})
        with pytest.raises(ValueError, match="stays as it is"):
            run.measured({"precision": "fp32"})
        run.measured({"forecast": 1})
        assert run.manifest["forecast"] == 1


def test_other_versions_are_a_warning(tmp_path: Path) -> None:
    Run.open(tmp_path / "run", manifest=MANIFEST).close()
    with Run.open(tmp_path / "run", manifest=changed("versions.torch", "2.14.0")) as run:
        assert run.warnings == [
            'versions.torch: "2.13.0" in this run, "2.14.0" now: the numbers may differ in their last digits'
        ]


def test_a_manifest_needs_its_identity(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs data, renderer"):
        Run.open(tmp_path / "run", manifest={"recipe": {}, "model": None})
    assert not (tmp_path / "run").exists()


def test_fresh_sets_old_runs_aside(tmp_path: Path) -> None:
    for number in range(3):
        with Run.open(tmp_path / "run", manifest={**MANIFEST, "renderer": f"{number}"}, fresh=True) as run:
            assert run.status == "new"
            run.log({"step": number})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.old-1", "run.old-2"]
    for name, number in (("run.old-1", 0), ("run.old-2", 1), ("run", 2)):
        assert rows(tmp_path / name / "metrics.jsonl") == [{"step": number}]


def test_fresh_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "large-disk")
    for _ in range(2):
        Run.open(tmp_path / "run", manifest=MANIFEST, fresh=True).close()
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "run" / "manifest.json").exists()
    assert (tmp_path / "large-disk.old-1" / "manifest.json").exists()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["thesis.tex", "manifest.json", ".git"])
def test_a_directory_that_is_not_a_run_is_left_alone(tmp_path: Path, fresh: bool, name: str) -> None:
    (tmp_path / name).write_text('{"name": "a web application"}')
    with pytest.raises(
        UserError, match=f"holds '{name}' and no manifest.json of smolt's, so it is no run; nothing was written"
    ):
        Run.open(tmp_path, manifest=MANIFEST, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == '{"name": "a web application"}'


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="is a file, not a directory"):
        Run.open(tmp_path / "run", manifest=MANIFEST)


def test_a_copy_without_its_lock_file_is_a_run(tmp_path: Path) -> None:
    with Run.open(tmp_path, manifest=MANIFEST) as run:
        train(run, 1, 2)
    (tmp_path / "run.lock").unlink()
    with Run.open(tmp_path, manifest=MANIFEST) as run:
        assert run.status == "resumable"


@pytest.mark.parametrize("content", [b"", b"\x00\x00", b"[1]", b'{"format": "smolt-run/9"}', b'{"recipe":', b"\xff"])
def test_a_damaged_manifest_is_refused_and_can_be_set_aside(tmp_path: Path, content: bytes) -> None:
    Run.open(tmp_path / "run", manifest=MANIFEST).close()
    (tmp_path / "run" / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json.*--fresh sets"):
        Run.open(tmp_path / "run", manifest=MANIFEST)
    Run.open(tmp_path / "run", manifest=MANIFEST, fresh=True).close()
    assert (tmp_path / "run.old-1" / "manifest.json").read_bytes() == content


def test_a_damaged_result_is_not_complete(tmp_path: Path) -> None:
    with Run.open(tmp_path, manifest=MANIFEST) as run:
        train(run, 1, 2)
        run.complete({"loss": 0.5})
        (tmp_path / "result.json").write_bytes(b'{"lo')
        assert run.status == "resumable"


def test_nan_in_a_row_raises_and_the_run_goes_on(tmp_path: Path) -> None:
    with Run.open(tmp_path, manifest=MANIFEST) as run:
        with pytest.raises(SelfCheckError, match="row of step 1: loss: nan"):
            run.log({"step": 1, "loss": float("nan")})
        run.log({"step": 1, "loss": None})
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": None}]


def test_two_runs_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    with Run.open(tmp_path, manifest=MANIFEST) as run:
        for fresh in (False, True):
            with pytest.raises(DirectoryInUse):
                Run.open(tmp_path, manifest=MANIFEST, fresh=fresh)
        run.log({"step": 1})
        run.close()
        run.close()
    Run.open(tmp_path, manifest=MANIFEST).close()


def test_a_refused_open_gives_the_directory_free(tmp_path: Path) -> None:
    begin(tmp_path, MANIFEST)
    with pytest.raises(UserError):
        Run.open(tmp_path, manifest={**MANIFEST, "model": None})
    Run.open(tmp_path, manifest=MANIFEST).close()


def test_what_cannot_be_opened_is_held_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock file that cannot be made is the system's reason, not another process."""

    def refuse(path: Path, *more: int) -> int:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr("smolt.runs.locks.os.open", refuse)
    with pytest.raises(StorageError, match=r"locking failed \(No such file or directory\)"):
        acquire(tmp_path / "run")


def test_a_directory_that_only_seems_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root's /proc: its modes allow what the system refuses; a full disk stays one."""
    number = errno.ENOENT

    def refuse(dir: Path) -> None:
        raise OSError(number, os.strerror(number), str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"cannot be written \(No such file or directory\); choose another --out"):
        refuse_unwritable(tmp_path / "deep" / "run")
    number = errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        refuse_unwritable(tmp_path / "deep" / "run")


def test_a_run_of_another_stage_is_named_in_a_line(tmp_path: Path) -> None:
    """Not field by field: the two have next to nothing in common."""
    with Run.open(tmp_path / "run", manifest=MANIFEST) as run:
        run.log({"step": 1})
    with pytest.raises(UserError) as refused:
        Run.open(tmp_path / "run", manifest={**MANIFEST, "recipe": {"stage": "sample"}, "data": None})
    assert str(refused.value) == (
        f"{tmp_path / 'run'}: holds a dpo run, this is sample: choose another --out, or start over with --fresh "
        "(sets the old directory aside)"
    )

"""What a finished run holds is named when it is damaged, missing or changed, before anything stands on it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smolt.errors import UserError
from smolt.models.locating import locate
from smolt.runs import Run, StorageError, inventory
from tests.reliability.scenes import open_scene, write_inputs

MANIFEST: dict[str, Any] = {"recipe": {"seed": 1}, "data": None, "model": None, "renderer": None}


def finished(directory: Path) -> Path:
    """A run of two rows, a model of two files, and a result."""
    with Run.open(directory, manifest=MANIFEST) as run:
        run.log({"step": 1, "loss": 0.5})
        run.sample({"step": 1, "text": "a"})
        (directory / "model" / "deep").mkdir(parents=True)
        (directory / "model" / "weights").write_bytes(b"w" * 100)
        (directory / "model" / "deep" / "more").write_bytes(b"m")
        run.complete({"loss": 0.5})
    return directory


def files(directory: Path) -> list[Path]:
    """Every file of a finished run but its lock and the list itself."""
    return [path for path in directory.rglob("*") if path.is_file() and path.name not in ("lock", inventory.INVENTORY)]


def test_every_file_is_listed_and_sound(tmp_path: Path) -> None:
    directory = finished(tmp_path / "run")
    lines = (directory / inventory.INVENTORY).read_text().splitlines()
    listed = [line.split("  ")[1] for line in lines]
    wanted = ["manifest.json", "metrics.jsonl", "model/deep/more", "model/weights", "result.json", "samples.jsonl"]
    assert listed == wanted
    assert inventory.damage(directory) == []
    assert Run.finished(directory, {"seed": 1}) == {"loss": 0.5}


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl", "model/weights", "model/deep/more", "result.json"])
@pytest.mark.parametrize("harm", ["removed", "emptied", "one bit", "one byte more"])
def test_every_harm_to_every_file_is_named(tmp_path: Path, name: str, harm: str) -> None:
    directory = finished(tmp_path / "run")
    path = directory / name
    content = path.read_bytes()
    if harm == "removed":
        path.unlink()
    else:
        bit = bytes([content[0] ^ 16]) + content[1:]
        path.write_bytes({"emptied": b"", "one bit": bit, "one byte more": content + b"\n"}[harm])
    if name == "result.json" and harm != "one byte more":
        assert Run.finished(directory, {"seed": 1}) is None or harm == "one bit"  # no result: the end is done again
        return
    with pytest.raises(StorageError, match=rf"{name}: expected .*found") as told:
        Run.finished(directory, {"seed": 1})
    assert told.value.exit_code == 74
    with pytest.raises(StorageError, match=name):
        Run.open(directory, manifest=MANIFEST)


def test_a_changed_number_in_the_result_is_named(tmp_path: Path) -> None:
    directory = finished(tmp_path / "run")
    (directory / "result.json").write_text(json.dumps({"loss": 0.4}, indent=2) + "\n")
    with pytest.raises(StorageError, match=r"result.json: expected sha256"):
        Run.finished(directory, {"seed": 1})


@pytest.mark.parametrize("field", ["threads", "dtype"])
def test_a_changed_value_of_a_manifest_is_named(tmp_path: Path, field: str) -> None:
    with Run.open(tmp_path, manifest={**MANIFEST, "threads": 2, "dtype": "fp32"}) as run:
        run.save_checkpoint(1, {"weights": b"1"}, {})
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: "other"}))
    with pytest.raises(UserError, match=r"manifest.json: seal: expected \w{64}, found"):
        Run.open(tmp_path, manifest={**MANIFEST, "threads": 2, "dtype": "fp32"})


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl"])
@pytest.mark.parametrize("harm", ["removed", "shortened", "changed"])
def test_lost_rows_of_an_interrupted_run_are_named_and_recorded(tmp_path: Path, name: str, harm: str) -> None:
    """The training goes on; what is missing is said now, and stays in the result."""
    with Run.open(tmp_path, manifest=MANIFEST) as run:
        for step in (1, 2):
            run.log({"step": step, "loss": 0.5})
            run.sample({"step": step, "text": "a"})
        run.save_checkpoint(2, {"weights": b"1"}, {})
    path = tmp_path / name
    if harm == "removed":
        path.unlink()
    else:
        text = path.read_text()
        path.write_text(
            text[len(text) // 2 :] if harm == "shortened" else text.replace("0.5", "0.6").replace('"a"', '"b"')
        )
    with Run.open(tmp_path, manifest=MANIFEST) as run:
        assert run.load_checkpoint() is not None
        assert any(f"{name}: expected" in line for line in run.warnings)
        run.save_checkpoint(3, {"weights": b"1"}, {})
    with Run.open(tmp_path, manifest=MANIFEST) as run:
        run.load_checkpoint()
        assert run.warnings == []  # said once, and not lost
        run.complete({})
        assert run.result is not None
        assert [name in line for line in run.result["damage"]] == [True]


def test_rows_after_the_checkpoint_are_no_damage(tmp_path: Path) -> None:
    with Run.open(tmp_path, manifest=MANIFEST) as run:
        run.log({"step": 1, "loss": 0.5})
        run.save_checkpoint(1, {"weights": b"1"}, {})
        run.log({"step": 2, "loss": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # torn
    with Run.open(tmp_path, manifest=MANIFEST) as run:
        run.load_checkpoint()
        assert run.warnings == []


def test_a_sealed_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "evaluation.jsonl"
    assert not inventory.sealed(path)
    path.write_text("a\n")
    assert not inventory.sealed(path)  # whole, or half: nobody can tell
    inventory.seal(path)
    assert inventory.sealed(path)
    path.write_text("")
    assert not inventory.sealed(path)
    assert "evaluation.jsonl: expected sha256" in caplog.text


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("trained")
    open_scene("sft-lora", write_inputs(folder), folder / "run").finish()
    yield folder / "run"


@pytest.mark.parametrize("given", ["", "model"])
def test_a_damaged_model_of_a_run_is_not_used(trained: Path, tmp_path: Path, given: str) -> None:
    """Whether the run is named or its model's directory; a copy of the model elsewhere is nobody's business."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    assert locate(str(run / given)).adapter == run / "model"
    weights = run / "model" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(StorageError, match=r"model/adapter_model.safetensors: expected sha256"):
        locate(str(run / given))
    shutil.copytree(run / "model", tmp_path / "copy")
    assert locate(str(tmp_path / "copy")).adapter == tmp_path / "copy"


def test_files_that_are_made_again_are_listed_anew(tmp_path: Path) -> None:
    """And no others: what is damaged beside them stays named."""
    directory = finished(tmp_path / "run")
    (directory / "samples.jsonl").write_text("again\n")
    (directory / "metrics.jsonl").write_text("damaged\n")
    inventory.renew(directory, ["samples.jsonl", "none.json"])
    assert [line.split(":")[0] for line in inventory.damage(directory)] == [f"{directory}/metrics.jsonl"]
    inventory.require_file(directory / "samples.jsonl")
    with pytest.raises(StorageError, match=r"metrics\.jsonl"):
        inventory.require_file(directory / "metrics.jsonl")


def test_a_damaged_file_with_a_seal_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.jsonl"
    path.write_text("a\n")
    inventory.require_file(path)
    inventory.seal(path)
    inventory.require_file(path)
    path.write_text("b\n")
    with pytest.raises(StorageError, match=r"evaluation.jsonl: expected sha256"):
        inventory.require_file(path)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A finished run around two others, one of them a level deeper, with plots and an arm's sealed answers."""
    out = tmp_path / "checkpoints" / "study"  # a name of the user's own hides nothing
    with Run.open(out, manifest=MANIFEST) as run:
        for section in ("sft", "seed-1/dpo"):
            answers = finished(out / section) / "evaluation.jsonl"
            answers.write_text("{}\n")
            inventory.seal(answers)
        (out / "plots").mkdir()
        (out / "plots" / "reward.svg").write_text("<svg/>")
        run.complete({"verdicts": []})
    return out


INSIDE = (
    "sft/model/weights",
    "seed-1/dpo/model/weights",
    "sft/evaluation.jsonl",
    "sft/result.json",
    "plots/reward.svg",
)


@pytest.mark.parametrize("name", [*INSIDE, "sft/files.sha256", "seed-1/dpo/evaluation.jsonl.sha256"])
@pytest.mark.parametrize("harm", ["removed", "one bit"])
def test_a_study_names_every_harm_inside_it(study: Path, name: str, harm: str) -> None:
    assert inventory.damage(study) == []
    content = (study / name).read_bytes()
    (study / name).unlink()
    if harm == "one bit":
        (study / name).write_bytes(bytes([content[0] ^ 16]) + content[1:])
    with pytest.raises(StorageError, match=rf"{name}: expected .*found"):
        Run.finished(study, {"seed": 1})


def test_what_is_made_again_inside_a_study_is_renewed_in_its_list_too(study: Path) -> None:
    for section in ("sft", "seed-1/dpo"):
        (study / section / "metrics.jsonl").write_text('{"step": 2}\n')
        assert inventory.damage(study) != []
        inventory.renew(study / section, ["metrics.jsonl"])
        assert inventory.damage(study) == []
    (study / "plots" / "reward.svg").unlink()  # a report made again may have other pictures
    inventory.renew(study, ["plots/reward.svg"])
    assert inventory.damage(study) == []

"""The user's mistakes, through the command line: the place and the fix in the message, exit 2, nothing written over."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.scenes import OWN, STAGE_NAMES, write_inputs
from tests.study.conftest import SMALL, smolt


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user works: a model, data, a reward and a recipe for each stage."""
    monkeypatch.chdir(write_inputs(tmp_path))
    for stage, fields in ((name, OWN[name]) for name in STAGE_NAMES):
        recipe = {
            "model": {"path": "model", "device": "cpu", "threads": 1},
            **fields,
            "budget": {"updates": 1},
            "dev": None,
        }
        recipe |= {"critic": {"warmup": 0}} if stage == "ppo" else {}  # a warm-up of all updates is warned of
        Path(f"{stage}.yaml").write_text(json.dumps(recipe, indent=1))
    return tmp_path


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(*arguments: str) -> str:
    """The message of a command that the user got wrong: exit 2, on stderr, one line of it an error, no traceback.

    On a busy machine a step that takes long is named before it.
    """
    before = files(Path())
    done = smolt(*arguments, "--out", "out")
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    found = re.fullmatch(r"(?:\w+: memory: [^\n]*\n|\([^\n]+ \.\.\.\)\n)*error: (.*)\n", done.stderr, re.DOTALL)
    assert found is not None, done.stderr
    assert "Traceback" not in done.stderr
    after = files(Path())
    assert {path: after[path] for path in before} == before
    as_json = json.loads(smolt(*arguments, "--out", "out", "--json").stdout)
    assert as_json["exit_code"] == 2
    return found[1]


def test_a_mistyped_field(folder: Path) -> None:
    """In a file with its line, in an argument with the argument, in a study with the section."""
    text = Path("grpo.yaml").read_text().replace('"group"', '"gruop"')
    Path("grpo.yaml").write_text(text)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "gruop" in row)
    assert refused("grpo", "grpo.yaml") == f'grpo.yaml:{line}: gruop: unknown field; did you mean "group"?'
    assert refused("dpo", "dpo.yaml", "optim.rl=1e-4").startswith("argument `optim.rl=1e-4`: optim.rl: unknown field")
    assert 'did you mean "beta"?' in refused("study", "smoke", *SMALL, "dpo.bta=0.1")
    assert 'did you mean "grpo"?' in refused("study", "smoke", "gpro.group=4")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("stage", "argument", "message"),
    [
        ("sft", "data=gone.jsonl", "gone.jsonl"),
        ("sft", "dev=gone.jsonl", "gone.jsonl"),
        ("sft", "model=./gone", "model.path: ./gone: no such directory"),
        ("grpo", "reward={name: python, path: 'gone.py:reward'}", "gone.py: no such file"),
        (
            "grpo",
            "reward={name: python, path: 'reward.py:gone'}",
            "reward.py: there is no function 'gone'; it has reward",
        ),
        ("grpo", "reward={name: model, path: model}", "model: is a language model without a score head"),
        ("grpo", "reward=gsm9k", "'gsm9k' is unknown; did you mean \"gsm8k\"?"),
    ],
)
def test_what_is_missing_is_named(folder: Path, stage: str, argument: str, message: str) -> None:
    assert message in refused(stage, f"{stage}.yaml", argument)
    assert not Path("out").exists()


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_empty_data(folder: Path, stage: str) -> None:
    """An empty file, and one of empty lines."""
    for text in ("", "\n\n"):
        Path("empty.jsonl").write_text(text)
        message = refused(stage, f"{stage}.yaml", "data=empty.jsonl")
        assert message.startswith("empty.jsonl: ")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("stage", "row", "field"),
    [
        ("sft", {"prompt": "a"}, "completion"),
        ("reward", {"prompt": "a", "chosen": "b"}, "rejected"),
        ("dpo", {"prompt": "a", "chosen": "b", "rejected": None}, "rejected"),
        ("ppo", {"solution": "a"}, "prompt"),
        ("grpo", {"prompt": 3}, "prompt"),
    ],
)
def test_a_row_without_its_fields(folder: Path, stage: str, row: dict[str, Any], field: str) -> None:
    """`file:line: field: reason`; with data.skip_bad the rest is trained on."""
    path = Path(str(OWN[stage]["data"]))
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows[:3], json.dumps(row), *rows[3:]]) + "\n")
    assert refused(stage, f"{stage}.yaml").startswith(f"{path}:4: {field}: ")
    assert not Path("out").exists()
    done = smolt(stage, f"{stage}.yaml", "data.skip_bad=true", "--out", "out", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"]["facts"]["records"] == len(rows)


def test_a_model_without_a_tokenizer(folder: Path) -> None:
    for path in Path("model").glob("*token*"):
        path.unlink()
    message = refused("sft", "sft.yaml")
    assert "model" in message
    assert "tokenizer" in message
    assert not Path("out").exists()


@pytest.mark.parametrize(("stage", "kept"), [("sft", 7), ("dpo", 7), ("grpo", 4)])
def test_a_context_longer_than_the_window(folder: Path, stage: str, kept: int) -> None:
    """Refused with count, record number and length; with data.too_long=drop left out and counted."""
    path = Path(str(OWN[stage]["data"]))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["prompt"] = "long " * 40
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = refused(stage, f"{stage}.yaml")
    assert message.startswith(f"{path}: 1 of {len(rows)} records exceed the window of 128 tokens")
    assert "record 2 (" in message
    assert ("Allow shorter answers" in message) == (stage == "grpo")
    assert ("Take a model with a longer window" in message) == (stage != "grpo")
    assert "data.too_long=drop" in message
    assert not Path("out").exists()
    done = smolt(stage, f"{stage}.yaml", "data.too_long=drop", "--out", "out", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)["metrics"]["facts"]
    assert (facts["records"], facts["too_long"]) == (kept, 1)


@pytest.mark.parametrize("stage", ["dpo", "reward"])
def test_pairs_of_two_equal_answers_teach_nothing(folder: Path, stage: str) -> None:
    """They are left out, counted and said: the weights are those of a training without them; with no other, refused."""
    path = Path(str(OWN[stage]["data"]))
    rows = path.read_text()
    same = "".join(json.dumps({"prompt": f"{n}?", "chosen": "yes", "rejected": "yes"}) + "\n" for n in range(3))
    weights, facts = [], {}
    for name, text in (("alone", rows), ("mixed", rows + same)):
        path.write_text(text)
        done = smolt(stage, f"{stage}.yaml", "--out", name, "--json")
        assert done.exit_code == 0, done.output
        facts[name] = json.loads(done.stdout)["metrics"]["facts"]
        weights.append(sorted(file.read_bytes() for file in Path(name, "model").glob("*.safetensors")))
        assert ("left out, for their two answers are the same: 3 pairs" in done.stderr) == (name == "mixed")
    assert weights[0] == weights[1] != []
    assert (facts["alone"]["identical"], facts["mixed"]["identical"]) == (0, 3)
    assert facts["alone"]["records"] == facts["mixed"]["records"] > 0
    path.write_text(same)
    assert "the two answers are the same in all 3 pairs; there is nothing to learn" in refused(stage, f"{stage}.yaml")


def test_a_group_of_one(folder: Path) -> None:
    message = refused("grpo", "grpo.yaml", "group=1")
    assert message == "argument `group=1`: group: a group of 1 has no baseline; give at least 2 (8 is usual)"


@pytest.mark.parametrize("stage", ["ppo", "grpo"])
def test_a_reward_that_raises(folder: Path, stage: str) -> None:
    """Its file, line and error; it failed before its first update, so once it is put right the directory is taken."""
    right = Path("reward.py").read_text()
    Path("reward.py").write_text("def reward(question, answer):\n    return 1 / 0\n")
    message = refused(stage, f"{stage}.yaml")
    answers = {"ppo": 4, "grpo": 8}[stage]  # of the first update
    assert f"reward reward.py:reward: {answers} of {answers} answers" in message
    assert "reward.py:2 in reward: ZeroDivisionError: division by zero" in message
    assert not Path("out/result.json").exists()
    Path("reward.py").write_text(right)
    assert smolt(stage, f"{stage}.yaml", "--out", "out").exit_code == 0


def test_a_directory_that_is_no_run(folder: Path) -> None:
    """What lies there stays, whatever is run into it."""
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("years of work")
    for arguments in (("sft", "sft.yaml"), ("sft", "sft.yaml", "--fresh"), ("study", "smoke", *SMALL)):
        assert "holds 'thesis.txt' and no manifest.json of smolt's, so it is no run" in refused(*arguments)
    assert {path.name: path.read_text() for path in Path("out").iterdir() if path.name != "run.lock"} == {
        "thesis.txt": "years of work"
    }


def test_a_finished_stage_is_found_without_its_model(folder: Path) -> None:
    """The second start needs nothing but the record: it says so although the model it came from is gone."""
    first = smolt("sft", "sft.yaml", "--out", "out", "--json")
    for path in Path("model").iterdir():
        path.unlink()
    done = smolt("sft", "sft.yaml", "--out", "out", "--json")
    assert (first.exit_code, done.exit_code) == (0, 0)
    found = json.loads(done.stdout)
    assert found == {**json.loads(first.stdout), "status": "already complete"}
    words = smolt("sft", "sft.yaml", "--out", "out").stdout.splitlines()
    assert words[0] == "sft: already complete; the model is in out/model"
    assert words[-2:] == ["next:", "  smolt chat out"]

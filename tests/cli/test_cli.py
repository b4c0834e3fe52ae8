"""The command-line contract: exit codes, one JSON object, messages without tracebacks. The stages are fakes."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from smolt.cli import app
from smolt.errors import DirectoryInUse, SelfCheckError, UserError
from smolt.runs import StorageError
from tests.tiny import tiny_model

RECIPE = "model: m\ndata: d.jsonl\nreward: gsm8k\n"


@dataclass
class FakeResult:
    metrics: dict[str, Any]


@dataclass
class FakeTraining:
    """Two updates, then done."""

    out: Path
    stage: str = "grpo"
    name: str = "grpo"
    total: int | None = 2
    complete: bool = False
    remarks: list[str] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=lambda: {"sampling": 0.6, "training": 0.4})
    metrics: tuple[dict[str, Any], ...] = ({"step": 1, "reward": 0.5}, {"step": 2, "reward": 1.0})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(() if self.complete else self.metrics)

    def finish(self) -> FakeResult:
        return FakeResult({"reward": 1.0, "bad": float("nan")})


def module(name: str, **names: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(names)
    return made


class Interrupted(Exception):
    def __init__(self, exit_code: int) -> None:
        super().__init__("interrupted; the same command continues it")
        self.exit_code = exit_code


def drive(training: FakeTraining, interrupts: Any, show: Callable[[Any, Any], None]) -> FakeResult:
    """The loop of smolt.training.stage, without torch."""
    for metrics in training:
        show(training, metrics)
        if interrupts.exit_code is not None:
            raise Interrupted(interrupts.exit_code)
    return training.finish()


def write_inputs(folder: Path) -> None:
    """A recipe, and what it names: that is looked for before a stage is asked."""
    (folder / "my.yaml").write_text(RECIPE)
    (folder / "d.jsonl").write_text('{"prompt": "hi"}\n')
    (folder / "m").mkdir()
    (folder / "m" / "config.json").write_text("{}")


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Fake stages in place of the real ones; the calls they get are under "calls"."""
    found: dict[str, Any] = {"calls": []}

    def grpo(recipe: Any, out: Path, fresh: bool) -> FakeTraining:
        found["calls"].append((recipe, out, fresh))
        return FakeTraining(out, **found.get("training", {}))

    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    monkeypatch.setitem(
        sys.modules, "smolt.training.algorithms", module("smolt.training.algorithms", STAGES={"grpo": grpo})
    )
    monkeypatch.setitem(
        sys.modules, "smolt.training.stage", module("smolt.training.stage", drive=drive, Interrupted=Interrupted)
    )
    return found


def smolt(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_stage_trains_and_says_where_the_model_is(stages: dict[str, Any]) -> None:
    """The directory is runs/<file name>, as the recipe gives itself no name."""
    done = smolt("grpo", "my.yaml", "group=4", "optim.lr=1e-4")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "grpo: complete; the model is in runs/my/model\n"
    recipe, out, fresh = stages["calls"][0]
    assert (recipe.group, recipe.optim.lr, out, fresh) == (4, 1e-4, Path("runs/my"), False)


def test_json_is_one_object_and_nothing_else(stages: dict[str, Any]) -> None:
    """Not-a-number becomes null; what is to be known before the first update goes to stderr."""
    stages["training"] = {"remarks": ["warning: checkpoint 3 was damaged"]}
    done = smolt("grpo", "my.yaml", "--json", "--out", "here", "--fresh")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "stage": "grpo",
        "status": "complete",
        "out": "here",
        "model": "here/model",
        "metrics": {"reward": 1.0, "bad": None},
    }
    assert done.stderr == "grpo: warning: checkpoint 3 was damaged\n"
    assert stages["calls"][0][1:] == (Path("here"), True)


def test_the_recipes_own_name_is_the_directory(stages: dict[str, Any]) -> None:
    smolt("grpo", "my.yaml", "name=first")
    assert stages["calls"][0][1] == Path("runs/first")


def test_a_finished_run_says_so(stages: dict[str, Any]) -> None:
    stages["training"] = {"complete": True}
    done = smolt("grpo", "my.yaml")
    assert (done.exit_code, done.stdout) == (0, "grpo: already complete; the model is in runs/my/model\n")
    assert json.loads(smolt("grpo", "my.yaml", "--json").stdout)["status"] == "already complete"


def test_library_chatter_stays_off_stdout(stages: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def chatty(recipe: Any, out: Path, fresh: bool) -> FakeTraining:
        sys.stdout.write("loading ...\n")
        return FakeTraining(out)

    monkeypatch.setitem(sys.modules["smolt.training.algorithms"].STAGES, "grpo", chatty)
    done = smolt("grpo", "my.yaml", "--json")
    assert json.loads(done.stdout)["status"] == "complete"
    assert done.stderr == "loading ...\n"


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("x.jsonl:3: answer: missing"), 2, "x.jsonl:3: answer: missing"),
        (SelfCheckError("KL at step 0 is 0.1"), 70, "KL at step 0 is 0.1"),
        (MemoryError(), 71, "out of memory; lower budget.memory"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 71, "Tried to allocate 2 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), 71, "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 74, "a/b: No space left on device"),
        (OSError(errno.EIO, "Input/output error"), 74, "Input/output error"),
        (StorageError(errno.EACCES, "saving failed", "a"), 74, "a: saving failed"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "gone"), 2, "gone: No such file or directory"),
        (DirectoryInUse("runs/my is in use by process 7"), 75, "runs/my is in use by process 7"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted(130), 130, "interrupted; the same command continues it"),
        (Interrupted(143), 143, "interrupted; the same command continues it"),
    ],
)
def test_exit_codes(
    stages: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    """Each kind of failure has its code, a message without traceback, and with --json one object with both."""

    def failing(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(sys.modules["smolt.training.stage"], "drive", failing)
    done = smolt("grpo", "my.yaml")
    assert (done.exit_code, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    done = smolt("grpo", "my.yaml", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["exit_code"]) == (code, code)
    assert words in found["error"]


def test_an_error_nobody_expected_keeps_its_traceback(stages: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(sys.modules["smolt.training.stage"], "drive", failing)
    assert str(smolt("grpo", "my.yaml").exception) == "shapes differ"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grpo", "nowhere.yaml"], "error: nowhere.yaml: no such recipe file"),
        (["grpo", "my.yaml", "grop=3"], 'error: argument `grop=3`: grop: unknown field; did you mean "group"?'),
        (["grpo", "my.yaml", "group=1"], "error: argument `group=1`: group: a group of 1 has no baseline"),
        (["grpo", "my.yaml", "group"], "error: argument `group`: write it as section.key=value"),
        (["dpo", "my.yaml"], "error: my.yaml:3: reward: unknown field"),
        (["study", "my.yaml"], "error: my.yaml:3: reward: must be a block of fields"),
        (["grpo"], "Missing argument 'RECIPE'"),
        (["grop", "my.yaml"], "No such command 'grop'"),
        (["grpo", "my.yaml", "--nope"], "No such option: --nope"),
        (["sample", "m", "d", "--out", "o", "--temperature", "-1"], "should be greater than or equal to 0"),
        (["chat", "m", "--top-p", "2"], "error: option: top_p: is 2.0; must be less than or equal to 1"),
        (["report", "."], "record.json"),
    ],
)
def test_wrong_input_exits_2_with_the_reason(
    stages: dict[str, Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setitem(sys.modules, "smolt.cli.chat", module("smolt.cli.chat", chat=None))
    done = smolt(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_a_study_hands_over_and_reports(stages: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdicts come first, then where the report is; --json adds what the study returned."""

    def run_study(recipe: Any, out: Path, fresh: bool, progress: Callable[[Any, Any], None]) -> dict[str, Any]:
        progress(FakeTraining(out, stage="sft"), {"step": 1, "loss": 2.0})
        return {"status": "complete", "verdicts": ["grpo is better than sft"], "arms": [recipe.sections[0].name]}

    monkeypatch.setitem(sys.modules, "smolt.study.study", module("smolt.study.study", run_study=run_study))
    Path("two.yaml").write_text("model: m\nstudy: {test: d.jsonl, reward: gsm8k}\nsft: {data: d.jsonl}\n")
    done = smolt("study", "two.yaml")
    assert done.exit_code == 0
    assert done.stdout == "grpo is better than sft\nstudy: complete; the report is runs/two/report.html\n"
    found = json.loads(smolt("study", "two.yaml", "--json", "--out", "o").stdout)
    assert (found["out"], found["report"], found["arms"]) == ("o", "o/report.html", ["sft"])


def test_sample_merge_and_chat_hand_over_checked_blocks(
    stages: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    def noted(*blocks: Any, **named: Any) -> dict[str, Any]:
        calls.append((*blocks, named))
        return {"accuracy": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 10}}

    def worked(*blocks: Any, **named: Any) -> dict[str, Any]:
        noted(*blocks, **named)
        return {"status": "complete", "n": 6}

    answers = module("smolt.evaluation.answer_file", write_answers=worked)
    for made in (answers, module("smolt.models.merging", merge=worked), module("smolt.cli.chat", chat=noted)):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    done = smolt("sample", "m", "d.jsonl", "--out", "o", "--samples", "2", "--limit", "3")
    assert done.stdout == "complete: 6 answers in o/samples.jsonl\n"
    merged_into = "complete: the merged model is in merged\nnext:\n  smolt chat merged\n"
    assert smolt("merge", "m", "--out", "merged").stdout == merged_into
    assert smolt("chat", "m", "--temperature", "0").exit_code == 0
    sampled, merged, talked = calls
    assert (sampled[0].path, sampled[1].limit, sampled[2].temperature) == ("m", 3, 1.0)
    del sampled[3]["progress"]
    assert sampled[3] == {"samples": 2, "seed": 0, "out": Path("o"), "fresh": False}
    assert merged == ("m", Path("merged"), {"dtype": "auto", "fresh": False})
    assert (talked[1].temperature, talked[2]) == (0.0, None)


def test_recipe_commands(stages: dict[str, Any]) -> None:
    done = smolt("recipe", "check", "my.yaml", "--stage", "grpo")
    assert (done.exit_code, done.stdout) == (0, "my.yaml: a valid grpo recipe\n")
    found = json.loads(smolt("recipe", "check", "my.yaml", "group=4", "--stage", "grpo", "--json").stdout)
    assert (found["valid"], found["stage"], len(found["hash"])) == (True, "grpo", 64)
    assert smolt("recipe", "check", "my.yaml", "--stage", "ppo", "clip=9").exit_code == 2
    assert isinstance(json.loads(smolt("recipe", "list", "--json").stdout)["recipes"], list)
    Path("own.yaml").write_text("stage: grpo\n" + RECIPE)
    assert smolt("recipe", "show", "own.yaml").stdout == "stage: grpo\n" + RECIPE
    assert json.loads(smolt("recipe", "show", "own.yaml", "--json").stdout)["group"] == 8


def run(*arguments: str, program: list[str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(program or ["-m", "smolt"]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def test_a_merge_of_a_whole_model_says_that_nothing_was_merged(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model")
    done = smolt("merge", str(tmp_path / "model"), "--out", str(tmp_path / "merged"))
    assert done.exit_code == 0, done.output
    first, second, *_ = done.stdout.splitlines()
    assert first.endswith("merged (there was no adapter to merge: the weights are the model's own)")
    assert second == "its logits equal the model's"


def test_help_names_the_commands_and_loads_nothing_heavy() -> None:
    """`python -m smolt --help` exits 0; of torch, transformers and matplotlib nothing is imported."""
    done = run("--help", program=["-X", "importtime", "-m", "smolt"])
    assert done.returncode == 0
    names = [
        "study",
        "sft",
        "reward",
        "dpo",
        "ppo",
        "grpo",
        "pretrain",
        "sample",
        "eval",
        "report",
        "chat",
        "merge",
        "doctor",
        "recipe",
    ]
    assert [name for name in names if f" {name} " not in done.stdout] == []
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert imported & {"torch", "transformers", "peft", "matplotlib", "pydantic", "numpy", "email"} == set()


def test_the_program_prints_one_object_and_exits_2(tmp_path: Path) -> None:
    done = run("grpo", "nowhere.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"].startswith("nowhere.yaml: no such recipe file")
    assert done.stderr.startswith("error: nowhere.yaml")


def test_a_reader_that_leaves_is_no_error() -> None:
    """`smolt recipe list --json | head -0`: the closed pipe brings no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "smolt", "recipe", "list", "--json"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


WAITING = """
import sys, time
from types import ModuleType
algorithms, training = ModuleType("smolt.training.algorithms"), ModuleType("smolt.training.stage")
class Interrupted(Exception): pass
def grpo(recipe, out, fresh):
    sys.stderr.write("waiting\\n"); sys.stderr.flush()
    time.sleep(60)
algorithms.STAGES = {"grpo": grpo}
training.Interrupted, training.drive = Interrupted, None
sys.modules["smolt.training.algorithms"], sys.modules["smolt.training.stage"] = algorithms, training
from smolt.cli import main
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_before_the_training_listens(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """While the model is still loading, SIGTERM exits 143 and Ctrl-C 130, without a traceback."""
    write_inputs(tmp_path)
    command = [sys.executable, "-c", WAITING, "grpo", "my.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting\n"
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(timeout=30) == code
    assert "the same command continues" in rest
    assert "Traceback" not in rest

"""What a command shows while it runs: the line of a training, lines in pipes, steps that take long, the last words."""

import importlib.util
import json
import logging
import queue
import re
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from smolt.cli import progress
from smolt.cli.judge import COUNTED
from smolt.cli.progress import Display, figures
from smolt.cli.train import moved, stage_outcome, study_outcome
from smolt.runs import chunks
from smolt.runs.identity import FORMAT
from smolt.statistics import proportion
from tests.cli.test_cli import FakeTraining


def test_figures_of_one_update() -> None:
    """Names that are there, in order; what is no number is left out."""
    metrics = {"reward": 0.31, "kl": 0.02, "stop_rate": 0.98, "tokens_per_second": 712.6, "entropy": None}
    assert figures(metrics) == "reward +0.310  KL 0.020  stops 98%  tokens/s 713"


def test_display_on_a_terminal_and_elsewhere() -> None:
    """A terminal sees stage, step and figures; elsewhere only events are written, one line each."""
    for terminal in (True, False):
        text = StringIO()
        with Display(Console(file=text, force_terminal=terminal, width=120)) as display:
            training = FakeTraining(Path("x"))
            display.show(training, {"step": 1, "reward": 0.5})
            display.show(
                training, {"step": 2, "reward": 1.0, "events": ["step 2 of 4 skipped: KL"], "stop": "KL budget"}
            )
        events = "grpo update 2: step 2 of 4 skipped: KL", "grpo update 2: KL budget"
        assert all(event in text.getvalue() for event in events)
        assert ("reward +1.000" in text.getvalue()) is terminal
        assert ("2/2" in text.getvalue()) is terminal
        assert ("sampling 60% training 40%" in text.getvalue()) is terminal
        if not terminal:
            assert text.getvalue().splitlines() == list(events)


def test_a_training_of_a_study_has_its_line_from_its_beginning_on() -> None:
    text = StringIO()
    with Display(Console(file=text, force_terminal=True, width=120)) as display:
        display.show(FakeTraining(Path("x"), total=7), {})
        display._progress.refresh()
        assert "0/7" in text.getvalue()
        display.show(FakeTraining(Path("x"), total=7), {"step": 1})


def test_updates_of_minutes_have_a_time_left() -> None:
    """After the first of four updates of 100 s each, five minutes are left."""
    now = [0.0]
    with Display(Console(file=StringIO(), force_terminal=True, width=120)) as display:
        display._progress.get_time = lambda: now[0]
        display.show(FakeTraining(Path("x"), total=4), {})
        now[0] = 100.0
        display.show(FakeTraining(Path("x"), total=4), {"step": 1})
        (task,) = display._progress.tasks
        assert task.time_remaining == 300


def test_a_line_now_and_then_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates of 10 s: the figures of the third and the sixth are written, half a minute apart."""
    now = [0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    text = StringIO()
    with Display(Console(file=text, width=120)) as display:
        for step in range(1, 8):
            now[0] += 10
            display.show(FakeTraining(Path("x"), total=7), {"step": step, "reward": step / 2})
    said = [line.partition("  ")[0] for line in text.getvalue().splitlines()]
    assert said == ["grpo 3/7: reward +1.500", "grpo 6/7: reward +3.000"]


def test_a_narrow_terminal_shows_count_and_time_first() -> None:
    """60 columns: figures that do not fit whole are left out, of the first one what there is room for."""
    text = StringIO()
    long = {"step": 1, "reward": 0.5, "kl": 0.1, "entropy": 2.0, "stop_rate": 0.5, "length": 80, "loss": 1.0}
    with Display(Console(file=text, force_terminal=True, width=60)) as display:
        display.show(FakeTraining(Path("x"), total=100), long)
    line = next(line for line in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text.getvalue()).splitlines() if "1/100" in line)
    assert re.match(r"grpo         1/100 0:00:0\d \d\d:\d\d ", line)
    assert line.split()[-2:] == ["reward", "+0.500"]


def test_a_step_is_named_once_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that goes on is named; one that is over before is not."""
    monkeypatch.setattr(progress, "SOON", 0.01)
    monkeypatch.setattr(progress, "LATER", 0.0)
    said: queue.Queue[str] = queue.Queue()
    steps = progress.Steps(said.put)
    log = logging.getLogger("smolt.test_steps")
    log.addHandler(steps)
    log.setLevel(logging.INFO)
    log.info("reading %s", "a\x1bb.jsonl")
    assert said.get(timeout=10) == r"(reading a\x1bb.jsonl ...)"
    monkeypatch.setattr(progress, "SOON", 60.0)
    log.info("quick")
    steps.over()
    assert steps._waiting is None and said.empty()
    log.log(chunks.SAID, "x: continued after update %d", 2)
    assert said.get(timeout=10) == "x: continued after update 2" and steps._waiting is None
    log.removeHandler(steps)


def test_a_long_batch_says_how_far_it_has_come(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where all records are one batch there is a word each half minute too, though no record is done."""
    now = [0.0]
    monkeypatch.setattr("smolt.cli.progress.time.monotonic", lambda: now[0])
    with progress.steps_named(), progress.counting("records") as show:
        show(0, 20)
        for second, done in ((10, 3), (40, 8), (50, 10), (80, 20)):
            now[0] = second
            chunks.counted(done, 20)
        show(20, 20)
        now[0] = 200
        chunks.counted(1, 20)  # of nothing that has a name
    said = [line for line in capsys.readouterr().err.splitlines() if "batch" in line]
    assert said == ["(records, this batch: 8 of 20 ...)", "(records, this batch: 20 of 20 ...)"]


def test_a_long_step_says_how_far_it_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a line with count and time left, gone with its step; elsewhere a line each half minute."""
    now = [0.0]
    monkeypatch.setattr("smolt.cli.progress.time.monotonic", lambda: now[0])
    said: list[str] = []
    piped, shown = progress.Steps(said.append), progress.Steps(said.append)
    text = StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    lines = Progress(MofNCompleteColumn(), console=console, auto_refresh=False)
    shown.bar = progress.StepBar(lines)
    log = logging.getLogger("smolt")
    monkeypatch.setattr(log, "handlers", [piped, shown])
    monkeypatch.setattr(log, "level", logging.DEBUG)
    chunks.counted(1, 8)  # of nothing that has a name
    log.info("scoring the answers of %d pairs", 4)
    for second, done in ((1, 1), (31, 2), (40, 5), (62, 6)):
        now[0] = second
        chunks.counted(done, 8)
    assert said == ["(scoring the answers of 4 pairs: 2 of 8 ...)", "(scoring the answers of 4 pairs: 6 of 8 ...)"]
    (task,) = lines.tasks
    assert (task.description, task.completed, task.total) == ("scoring the answers of 4 pairs", 6, 8)
    log.info("writing the model")
    assert lines.tasks == []
    progress.moved_on()
    chunks.counted(7, 8)
    assert lines.tasks == [] and len(said) == 2


def test_what_recurs_in_each_update_is_named_as_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own bar on a terminal in the place of the one before; elsewhere a word, and none where it is short."""
    now = [100.0]
    monkeypatch.setattr("smolt.cli.progress.time.monotonic", lambda: now[0])
    waits: list[float] = []

    class Waiting:
        def __init__(self, seconds: float, call: object) -> None:
            waits.append(seconds)

        def start(self) -> None:
            pass

        cancel = start

    monkeypatch.setattr("smolt.cli.progress.threading.Timer", Waiting)
    said: list[str] = []
    piped, shown = progress.Steps(said.append), progress.Steps(said.append)
    lines = Progress(MofNCompleteColumn(), console=Console(file=StringIO(), force_terminal=True), auto_refresh=False)
    shown.bar = progress.StepBar(lines)
    log = logging.getLogger("smolt")
    monkeypatch.setattr(log, "handlers", [piped, shown])
    monkeypatch.setattr(log, "level", logging.DEBUG)
    for second, done in ((100, 0), (101, 1), (132, 2)):
        now[0] = second
        chunks.counted(done, 2, "answers of update 3")
    assert [task.description for task in lines.tasks] == ["answers of update 3"]
    chunks.counted(0, 16, "optimizer steps of update 3")
    assert lines.tasks == []
    for second, done in ((133, 1), (140, 4), (163, 9)):
        now[0] = second
        chunks.counted(done, 16, "optimizer steps of update 3")
    assert [(task.description, task.completed) for task in lines.tasks] == [("optimizer steps of update 3", 9)]
    assert said == ["(answers of update 3: 2 of 2 ...)", "(optimizer steps of update 3: 9 of 16 ...)"]
    assert waits == [progress.LATER]  # of where there is no bar; what waits already names what is under way then
    progress.moved_on()
    assert piped._waiting is None


def test_the_end_of_a_training_says_what_became_of_it(tmp_path: Path) -> None:
    """The figures of its first and last batch, called that; a gate's refusal, what to do next."""
    assert moved(tmp_path) == []
    rows: list[dict[str, Any]] = [
        {"step": 1, "reward": -0.5, "kl": 0.0, "loss": None},
        {"step": 9, "reward": 0.25, "kl": 1.5, "loss": 0.1},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "model").mkdir()
    manifest = {"format": FORMAT, "recipe": {"stage": "grpo", "prompts": 4, "group": 2}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    batch = "on its one batch of 8 answers to 4 questions"
    lines = [f"update 1, {batch}: reward -0.500, KL 0.000", f"update 9, {batch}: reward +0.250, loss 0.1000, KL 1.500"]
    end = stage_outcome("grpo", "complete", tmp_path, {})
    assert end.words.splitlines() == [f"grpo: complete; the model is in {tmp_path / 'model'}", *lines]
    assert end.commands == [f"smolt chat {tmp_path}"]
    (tmp_path / "metrics.jsonl").write_text(json.dumps({**rows[0], "optimizer_steps": 0}) + "\n")
    idle = "1 of 1 updates took no step: no rewards that differ, or steps that were skipped"
    assert moved(tmp_path) == [lines[0], idle]
    (tmp_path / "metrics.jsonl").write_text(json.dumps({**rows[0], "optimizer_steps": 0, "abstained": 8}) + "\n")
    assert moved(tmp_path)[1] == f"{idle}; 8 answers got no reward, samples.jsonl says why"
    words = stage_outcome("reward", "complete", tmp_path, {"refused": "length alone does as well"}).words.splitlines()
    assert words[-2] == "its gate refuses it: length alone does as well"
    assert words[-1].startswith("next: more or better pairs")


def test_the_end_of_a_training_on_pairs_says_whether_it_tells_them_apart(tmp_path: Path) -> None:
    """Accuracy and margin beside the loss, and a measurement before the chat."""
    row = {"step": 2, "loss": 0.6933, "accuracy": 0.5, "margin": -0.0002}
    assert figures(row) == "loss 0.6933  accuracy 50%  margin -0.0002"
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "model").mkdir()
    for stage in ("dpo", "kto"):
        end = stage_outcome(stage, "complete", tmp_path, {})
        assert end.words.splitlines()[1] == "update 2, on its one batch: loss 0.6933, accuracy 50%, margin -0.0002"
        measured = f"smolt eval {tmp_path} HELD-OUT-PAIRS --task preferences"
        assert end.commands == [measured, f"smolt chat {tmp_path}"]
    assert stage_outcome("reward", "complete", tmp_path, {}).commands == [f"smolt audit {tmp_path} PAIRS"]


def test_an_end_says_where_most_answers_were_cut(tmp_path: Path) -> None:
    """Of a training the last update's share, of a study what its report warns of; with half of them whole nothing."""
    manifest = {"format": FORMAT, "recipe": {"stage": "ppo", "prompts": 8, "samples": 2}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    said = "were cut at the limit of tokens, so its figures are of beginnings; allow more tokens (max_tokens)."
    rows = [{"step": 1, "reward": 0.5, "stop_rate": 1.0}, {"step": 2, "reward": 0.5, "stop_rate": 0.0625}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert moved(tmp_path)[2:] == [f"warning: update 2: 94% of 16 answers {said}"]
    (tmp_path / "metrics.jsonl").write_text(json.dumps({**rows[1], "stop_rate": 0.5}) + "\n")
    assert not any("were cut" in line for line in moved(tmp_path))
    words = study_outcome({"verdicts": ["b is like a."], "warnings": [f"a: 100% of 8 answers {said}"]}, tmp_path).words
    assert words.splitlines()[:2] == ["b is like a.", f"warning: a: 100% of 8 answers {said}"]


def test_the_end_of_a_training_says_what_was_measured_on_held_out_data(tmp_path: Path) -> None:
    """First and last measurement with n and interval, and no batch's: 13 of 20 is 65 % [43.3 to 81.9] (Wilson)."""
    rows: list[dict[str, Any]] = [
        {"step": 1, "loss": 0.69},
        {"step": 2, "loss": 0.7, "dev/n": 20, "dev/loss": 0.6931, "dev/accuracy": 0.5, **ends(0.61, 0.77)},
        {"step": 3, "loss": 0.7, "dev/n": 20, "dev/loss": 0.6, "dev/accuracy": 0.6},
        {"step": 4, "loss": 0.709, "dev/n": 20, "dev/loss": 0.6717, "dev/accuracy": 0.65},
    ]
    rough = "Intervals of means of n below 50 are rough: such an interval may cover less than 93 %, of a handful of "
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert moved(tmp_path) == [
        "on held-out data after update 2: loss 0.693 [0.610 to 0.770], accuracy 50.0 % [29.9 to 70.1] (n = 20)",
        "on held-out data after update 4: loss 0.6717, accuracy 65.0 % [43.3 to 81.9] (n = 20)",
        rough + "values far less.",
    ]
    reward = {"step": 4, "reward": 0.1, "dev/n": 8, "dev/reward": 0.25, "dev/reward_low": 0.1, "dev/reward_high": 0.4}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(reward) + "\n")
    assert moved(tmp_path) == [
        "on held-out data after update 4: reward 0.250 [0.100 to 0.400] (n = 8)",
        rough + "values far less.",
    ]
    wilson = proportion([True] * 2 + [False] * 6)
    assert wilson is not None
    share = {**reward, "dev/reward_low": wilson.low, "dev/reward_high": wilson.high}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(share) + "\n")
    assert moved(tmp_path) == ["on held-out data after update 4: reward 0.250 [0.071 to 0.591] (n = 8)"]


def ends(low: float, high: float) -> dict[str, float]:
    return {"dev/loss_low": low, "dev/loss_high": high}


def test_a_count_that_follows_another_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no terminal each line says what was counted: a judge's pairs, then its tricks."""
    monkeypatch.setattr(progress, "PIPED", 0.0)
    with progress.counting("verdicts") as show:
        show(40, 40, COUNTED["showings"])
        show(30, 30, COUNTED["probes"])
        show(1, 2)
    assert capsys.readouterr().err.splitlines() == [
        "verdicts, each pair in both orders: 40 of 40",
        "verdicts on tricks: 30 of 30",
        "verdicts: 1 of 2",
    ]


def test_display_of_a_training_that_the_clock_ends() -> None:
    """No total: the updates done, and no share of a number that means endless."""
    text = StringIO()
    with Display(Console(file=text, force_terminal=True, width=120)) as display:
        display.show(FakeTraining(Path("x"), total=None), {"step": 7, "reward": 0.5})
    assert "7/?" in text.getvalue()


class Screen(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_slow_library_is_named_from_the_beginning_of_its_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its first line is executed, and not by a thread; the line goes when it is loaded, or cannot be."""
    screen = Screen()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "stderr", screen)
    (tmp_path / "slow_one.py").write_text("import sys\nseen = sys.stderr.getvalue()\n")
    (tmp_path / "broken_one.py").write_text("raise ImportError('it is broken')\n")
    for module in ("slow_one", "broken_one"):
        monkeypatch.setattr(sys, "meta_path", [progress.SlowLibrary(module, module.title(), screen), *sys.meta_path])
    assert importlib.util.find_spec("slow_one") is not None and screen.getvalue() == ""  # as transformers looks first
    assert importlib.import_module("slow_one").seen == "(loading Slow_One ...)\r"
    assert screen.getvalue() == "(loading Slow_One ...)\r\x1b[2K"
    with pytest.raises(ImportError, match="it is broken"):
        importlib.import_module("broken_one")
    assert screen.getvalue().endswith("(loading Broken_One ...)\r\x1b[2K")

"""What a command shows while it runs: the line of a training, lines in pipes, steps that take long, the last words."""

import importlib.util
import logging
import queue
import re
import sys
import time
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from smolt.cli import progress
from smolt.cli.judge import COUNTED
from smolt.cli.progress import Display, display, figures, step_lines
from smolt.cli.progress.time_left import CountPace
from smolt.runs import chunks
from tests.cli.test_cli import FakeTraining


def test_figures_of_one_update() -> None:
    """Names that are there, in order; what is no number is left out."""
    metrics = {"reward": 0.31, "kl": 0.02, "stop_rate": 0.98, "tokens_per_second": 712.6, "entropy": None}
    assert figures(metrics) == "reward +0.310  KL 0.020  stops 98%  tokens/s 713"


def test_figures_that_say_nothing_are_left_out() -> None:
    """The loss of PPO and GRPO is about 0 always; of an update without a step there is no speed."""
    metrics = {"loss": 0.0, "critic_loss": 0.21, "kl": -0.252, "ratio_error": 0.0, "tokens_per_second": 0.0}
    assert figures(metrics) == "critic loss 0.210  KL -0.252 (by chance)"
    assert figures({"kl": 0.0, "tokens_per_second": 0.0, "optimizer_steps": 0}) == "KL 0.000  no step"


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
    """After the first of four updates of 100 s each, five minutes are left, and a minute later four."""
    now, text = [0.0], StringIO()
    with Display(Console(file=text, force_terminal=True, width=120)) as shown:
        shown._progress.get_time = lambda: now[0]
        shown.show(FakeTraining(Path("x"), total=4), {})
        now[0] = 100.0
        shown.show(FakeTraining(Path("x"), total=4), {"step": 1})
        shown._progress.refresh()
        assert "1/4 1:40 5:00 left" in plain(text)
        now[0] = 160.0
        shown._progress.refresh()
        assert "1/4 2:40 4:00 left" in plain(text)


def test_the_clock_of_a_training_that_ended_stands_still() -> None:
    """One ends with its last update, or, stopped early, as the next begins; nothing is left of either."""
    now, text = [0.0], StringIO()
    with Display(Console(file=text, force_terminal=True, width=120)) as shown:
        shown._progress.get_time = lambda: now[0]
        for seconds, name, update in ((0, "a", {}), (10, "a", {"step": 1}), (20, "b", {}), (35, "b", {"step": 2})):
            now[0] = float(seconds)
            shown.show(FakeTraining(Path(name), total=2), update)
        now[0] = 100.0
        text.truncate(text.seek(0))
        shown._progress.refresh()
    assert "1/2 0:20  " in plain(text) and "2/2 0:15  " in plain(text)
    assert "left" not in plain(text)


def plain(text: StringIO) -> str:
    """Without colours and movements."""
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text.getvalue())


def test_time_left_is_of_the_whole_count() -> None:
    """One of four in 20 s leaves 60 s; a next one that is late more; a count that starts again is another."""
    pace = CountPace(100)
    assert pace.left(4, 105) is None
    pace.count(1, 120)
    assert (pace.left(4, 120), pace.left(4, 130)) == (60, 50)
    assert pace.left(4, 220) == 120  # the second one takes 100 s so far: at least 60 s each for the other two
    pace.count(3, 240)
    assert pace.left(4, 240) == pytest.approx(140 / 3)
    assert pace.left(4, 290) is None  # the last one is late: nobody knows by how much
    pace.count(4, 250)
    assert pace.left(4, 260) == 0
    pace.count(0, 260)
    pace.count(2, 280)
    assert pace.left(4, 280) == 30  # 30 s since the first count's end


def test_a_line_now_and_then_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates of 10 s: the figures of the third and the sixth are written, half a minute apart."""
    now = [0]
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: now[0]))
    text = StringIO()
    with Display(Console(file=text, width=120)) as shown:
        for step in range(1, 8):
            now[0] += 10
            shown.show(FakeTraining(Path("x"), total=7), {"step": step, "reward": step / 2})
    said = [line.partition("  ")[0] for line in text.getvalue().splitlines()]
    assert said == ["grpo 3/7: reward +1.500", "grpo 6/7: reward +3.000"]


def test_a_narrow_terminal_shows_count_and_time_first() -> None:
    """60 columns: figures that do not fit whole are left out, of the first one what there is room for."""
    text = StringIO()
    long = {"step": 1, "reward": 0.5, "kl": 0.1, "entropy": 2.0, "stop_rate": 0.5, "length": 80, "loss": 1.0}
    with Display(Console(file=text, force_terminal=True, width=60)) as display:
        display.show(FakeTraining(Path("x"), total=100), long)
    line = next(line for line in plain(text).splitlines() if "1/100" in line)
    assert re.match(r"grpo         1/100 0:0\d \d:\d\d left ", line)
    assert line.split()[-2:] == ["reward", "+0.500"]


def test_a_step_is_named_once_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that goes on is named; one that is over before is not."""
    monkeypatch.setattr(step_lines, "SOON", 0.01)
    monkeypatch.setattr(step_lines, "LATER", 0.0)
    said: queue.Queue[str] = queue.Queue()
    steps = step_lines.Steps(said.put)
    log = logging.getLogger("smolt.test_steps")
    log.addHandler(steps)
    log.setLevel(logging.INFO)
    log.info("reading %s", "a\x1bb.jsonl")
    assert said.get(timeout=10) == r"(reading a\x1bb.jsonl ...)"
    monkeypatch.setattr(step_lines, "SOON", 60.0)
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
    monkeypatch.setattr("time.monotonic", lambda: now[0])
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
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    said: list[str] = []
    piped, shown = step_lines.Steps(said.append), step_lines.Steps(said.append)
    text = StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    lines = Progress(MofNCompleteColumn(), console=console, auto_refresh=False)
    shown.bar = step_lines.StepBar(lines)
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
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    waits: list[float] = []

    class Waiting:
        def __init__(self, seconds: float, call: object) -> None:
            waits.append(seconds)

        def start(self) -> None:
            pass

        cancel = start

    monkeypatch.setattr("smolt.cli.progress.step_lines.threading.Timer", Waiting)
    said: list[str] = []
    piped, shown = step_lines.Steps(said.append), step_lines.Steps(said.append)
    lines = Progress(MofNCompleteColumn(), console=Console(file=StringIO(), force_terminal=True), auto_refresh=False)
    shown.bar = step_lines.StepBar(lines)
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
    soon, later = step_lines.SOON, step_lines.LATER
    assert waits == [later, soon, soon]  # where there is no bar, what waits already names what is under way then
    progress.moved_on()
    assert piped._waiting is None


def test_a_command_that_counts_has_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted within a batch moves the records on, less than to its end; a step is named on the same line."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    screen = Screen()
    console = Console(file=screen, force_terminal=True, width=80, get_time=lambda: now[0])
    monkeypatch.setattr(display, "standard_error", lambda: console)
    log = logging.getLogger("smolt")
    steps = step_lines.Steps(lambda text: None, step_lines.StepBar(None))
    monkeypatch.setattr(log, "handlers", [steps])
    monkeypatch.setattr(log, "level", logging.DEBUG)

    def line() -> str:
        (bar,) = (handler.bar for handler in log.handlers if isinstance(handler, step_lines.Steps))
        assert isinstance(bar, display.CountLine)
        bar._progress.refresh()
        (task,) = bar._progress.tasks
        left = bar._pace and bar._pace.left(task.total or 0, now[0])
        return f"{task.completed:.0f} of {task.total}, {left}, {task.description}"

    with progress.counting("records") as show:
        assert line() == "0 of None, None, records"
        show(0, 100)
        chunks.part(range(0, 64), 100)
        log.info("answering 64 questions")
        now[0] = 110
        chunks.counted(64, 128)  # two answers to each
        assert line() == "32 of 100, 21.25, records (answering 64 questions)"
        chunks.counted(128, 128)
        assert line().startswith("64 of 100") and 63 < steps.bar._done < 64  # type: ignore[union-attr] # line() has seen
        now[0] = 120
        show(64, 100)
        assert line() == "64 of 100, 11.25, records"
        now[0] = 123
        chunks.counted(8, 20)
        assert line().endswith("records (this batch: 8 of 20)")
        show(100, 100)
        assert line() == "100 of 100, 0.0, records"


def test_a_step_of_a_training_has_its_line_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named when it takes long, though nothing of its count is done: 'saving', with the time it takes."""
    monkeypatch.setattr(step_lines, "SOON", 0.01)
    monkeypatch.setattr(step_lines, "LATER", 0.0)
    text, log = StringIO(), logging.getLogger("smolt")
    steps = step_lines.Steps(lambda line: None, step_lines.StepBar(None))
    monkeypatch.setattr(log, "handlers", [steps])
    monkeypatch.setattr(log, "level", logging.DEBUG)
    with Display(Console(file=text, force_terminal=True, width=80)) as shown:
        shown.begin(FakeTraining(Path("x"), total=4))
        log.info("saving the model")
        chunks.counted(0, 3)
        end = time.monotonic() + 10
        while len(shown._progress.tasks) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        shown._progress.refresh()
        assert re.search(r" +0/3 0:0\d -:-- left \S+ saving the model", plain(text))
        progress.moved_on()
        assert [task.description for task in shown._progress.tasks] == ["grpo"]


def test_a_count_that_follows_another_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no terminal each line says what was counted: a judge's pairs, then its tricks."""
    monkeypatch.setattr(display, "PIPED", 0.0)
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
        monkeypatch.setattr(sys, "meta_path", [step_lines.SlowLibrary(module, module.title(), screen), *sys.meta_path])
    assert importlib.util.find_spec("slow_one") is not None and screen.getvalue() == ""  # as transformers looks first
    assert importlib.import_module("slow_one").seen == "(loading Slow_One ...)\r"
    assert screen.getvalue() == "(loading Slow_One ...)\r\x1b[2K"
    with pytest.raises(ImportError, match="it is broken"):
        importlib.import_module("broken_one")
    assert screen.getvalue().endswith("(loading Broken_One ...)\r\x1b[2K")

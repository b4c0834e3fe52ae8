"""A user's function in a process of its own: whatever it does, the run goes on and the answer abstains."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from smolt.data import Answer, Question, Turn
from smolt.errors import UserError
from smolt.rewards import Reward, python_reward
from smolt.rewards.python import python_rule

QUESTIONS = [Question((Turn("user", f"What is {n}?"),), solution=str(n), id=str(n), kind="k") for n in range(10)]
ANSWERS = [Answer(f"answer {n}", n + 1, stopped=n % 2 == 0) for n in range(10)]

FAULTS = {
    "exits": ("os._exit(0)", "ended the process with exit code 0"),
    "exits with a code": ("os._exit(3)", "ended the process with exit code 3"),
    "sys.exit": ("sys.exit(0)", "SystemExit: 0"),
    "crashes": ("os.kill(os.getpid(), 11)", "was ended by SIGSEGV"),
    "hangs": ("time.sleep(600)", "took longer than 2 s"),
    "loops": ("exec('while True: pass')", "took longer than 2 s"),
    "raises": ("1 / 0", "ZeroDivisionError"),
    "returns None": ("return None", "returned None"),
    "returns NaN": ("return float('nan')", "returned nan"),
    "returns text": ("return '1'", "returned str '1'"),
    "returns too much": ("return 1e300", "returned 1e+300"),
    "closes descriptors": ("os.closerange(0, 100)", "ended the process|closed its connection"),
    "fills the memory": ("bytearray(2**46)", "MemoryError"),
}


def reward_of(folder: Path, body: str, seconds: float = 2.0) -> Reward:
    """A reward that does something at answer 4, and else counts tokens."""
    file = folder / "mine.py"
    file.write_text(
        "import os, sys, time, signal\n"
        "def reward(question, answer):\n"
        "    if answer.text == 'answer 4':\n"
        f"        {body}\n"
        "    return answer.tokens\n"
    )
    return python_reward(f"{file}:reward", seconds=seconds)


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_costs_one_answer(tmp_path: Path, fault: str) -> None:
    """9 of 10 answers keep the score of their tokens; the fault is the other one's reason, in every later batch too."""
    body, reason = FAULTS[fault]
    reward = reward_of(tmp_path, body)
    for _ in range(2):
        scores = reward(QUESTIONS, ANSWERS)
        assert [score.value for score in scores] == [None if n == 4 else n + 1 for n in range(10)]
        assert any(part in scores[4].reason for part in reason.split("|")), scores[4].reason


@pytest.mark.parametrize(
    "body",
    [
        "print('to standard output'); sys.stdout.flush()",
        "os.chdir('/')",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.alarm(1)",
        "os.fork()",
        "os.environ.clear(); sys.path.clear()",
        "sys.setrecursionlimit(50)",
    ],
)
def test_what_a_function_does_to_its_process_stays_there(tmp_path: Path, body: str) -> None:
    before = Path.cwd(), signal.getsignal(signal.SIGTERM), dict(os.environ)
    reward = reward_of(tmp_path, body)
    assert [score.value for score in reward(QUESTIONS, ANSWERS)] == [n + 1 for n in range(10)]
    assert (Path.cwd(), signal.getsignal(signal.SIGTERM), dict(os.environ)) == before


def test_a_hopeless_function_is_not_tried_ten_times(tmp_path: Path) -> None:
    """3 deaths of 10 are more than 20 %: the other 7 answers are not waited for."""
    file = tmp_path / "mine.py"
    file.write_text("import time\ndef reward(question, answer):\n    time.sleep(600)\n")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"10 of 10 answers got no score .*took longer than 0.5 s"):
        python_reward(f"{file}:reward", seconds=0.5)(QUESTIONS, ANSWERS)
    assert time.monotonic() - began < 60


def test_a_whole_batch(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def reward(questions, answers, more=0):\n    return [len(a.text) + more for a in answers]\n")
    scores = python_reward(f"{file}:reward", {"more": 2})(QUESTIONS, ANSWERS)
    assert [score.value for score in scores] == [10.0] * 10


def test_questions_and_scores_arrive_whole(tmp_path: Path) -> None:
    """Half a character, a solution, a kind, a dialogue; named parts and a reason come back."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from smolt.data import Score\n"
        "def reward(question, answer):\n"
        "    assert question.context[0].role == 'system' and question.solution == '\\ud800' and question.kind == 'k'\n"
        "    return Score(0.1 + 0.2, {'a': None, 'b': float('inf')}, 'why ' + answer.text)\n"
    )
    question = Question((Turn("system", "s"), Turn("user", "u")), solution="\ud800", id="1", kind="k")
    (score,) = python_reward(f"{file}:reward")([question], [Answer("\udfff", 1, True)])
    assert (score.value, score.components, score.reason) == (0.1 + 0.2, {"a": None, "b": float("inf")}, "why \udfff")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os._exit(0)", "while it is loaded it ended the process with exit code 0"),
        ("raise SystemExit(1)", "SystemExit"),
    ],
)
def test_a_file_that_ends_its_process_while_it_is_loaded(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(f"import os, sys\n{body}\ndef reward(question, answer): return 1\n")
    with pytest.raises(UserError, match=message):
        python_reward(f"{tmp_path}/mine.py:reward")


def test_rules_of_a_grading_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import os\ndef right(answer, gold):\n    return os._exit(0) if gold == 'x' else answer == gold\n")
    rule = python_rule(f"{file}:right")
    assert [rule("a", "a"), rule("a", "b")] == [True, False]
    with pytest.raises(UserError, match=r"mine.py:right: ended the process with exit code 0"):
        rule("a", "x")
    assert rule("a", "a") is True


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


def until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    ends = time.monotonic() + seconds
    while not true() and time.monotonic() < ends:
        time.sleep(0.05)
    return true()


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    """However the parent ends, and whatever the function is at."""
    (tmp_path / "mine.py").write_text(
        "import os, time\nfrom pathlib import Path\n"
        f"def reward(question, answer):\n    Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
    )
    code = (
        "from smolt.data import Answer, Question, Turn\nfrom smolt.rewards import python_reward\n"
        f"python_reward({str(tmp_path / 'mine.py')!r} + ':reward', seconds=500)([Question((Turn('user', 'a'),))], "
        "[Answer('a', 1, True)])"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        assert until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        pid = int((tmp_path / "pid").read_text())
        assert alive(pid)
        parent.kill()
    assert until(lambda: not alive(pid))

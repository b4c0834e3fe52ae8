"""Lines typed into the chat's editor: history, several lines, completion, what is typed while an answer comes."""

import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples, fragment_list_to_text
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.layout.controls import BufferControl
from prompt_toolkit.layout.processors import TransformationInput
from prompt_toolkit.output import DummyOutput

from smolt.cli.chat.line_editor import Inert, LineEditor, Slashes, history_file, open_history
from tests.tiny import tiny_model
from tests.tmux import Terminal, tmux_terminal

UP, ALT_ENTER, CTRL_C, CTRL_D, CTRL_R = "\x1b[A", "\x1b\r", "\x03", "\x04", "\x12"
MEANINGS = {"/save": "", "/system": "", "/help": ""}


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    """A keyboard; nothing is shown."""
    with create_pipe_input() as pressed, create_app_session(input=pressed, output=DummyOutput()):
        yield pressed


def editor(history: Path | None = None) -> LineEditor:
    return LineEditor(MEANINGS, ["/save"], history)


@pytest.mark.parametrize(
    ("pressed", "message"),
    [
        (["Hi.\r"], "Hi."),
        ([f"one{ALT_ENTER}two\r"], "one\ntwo"),
        (["\x1b[200~one\r\ntwo\nthree\x1b[201~\r"], "one\ntwo\nthree"),
        (["Hlo\x1b[D\x1b[Del\r"], "Hello"),
        (["first thing\r", "second\r", f"{UP}{UP}\r"], "first thing"),
        (["first thing\r", "second\r", f"{CTRL_R}thi\r\r"], "first thing"),
    ],
)
def test_keys_make_messages(keys: PipeInput, pressed: list[str], message: str) -> None:
    """The last message: typed, broken by Alt-Enter, pasted, edited with arrows, from the history, found by Ctrl-R."""
    typist, found = editor(), ""
    for line in pressed:
        keys.send_text(line)
        found = typist.read()
    assert found == message


def test_ends_and_bytes_that_are_no_text(keys: PipeInput) -> None:
    typist = editor()
    keys.send_bytes(b"\xff\xfe\r")
    assert typist.read() == "\ufffd\ufffd"
    keys.send_text(f"half a li{CTRL_C}")
    with pytest.raises(KeyboardInterrupt):
        typist.read()
    keys.send_text(CTRL_D)
    with pytest.raises(EOFError):
        typist.read()


def test_history_is_kept_for_the_owner_alone(keys: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next conversation finds the last one's messages, one of several lines too, in a file of mode 600."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = history_file()
    assert file is not None and file == tmp_path / "state" / "smolt" / "chat-history"
    keys.send_text(f"earlier\rone{ALT_ENTER}two\r")
    keys.send_bytes(b"\xff\r")
    first = editor(file)
    assert [first.read() for _ in range(3)] == ["earlier", "one\ntwo", "\ufffd"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys.send_text(f"{UP}{UP}\r")
    assert editor(file).read() == "one\ntwo"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_file() == tmp_path / ".local" / "state" / "smolt" / "chat-history"


def test_history_that_cannot_be_written_is_of_this_conversation(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert isinstance(open_history(tmp_path / "file" / "history"), InMemoryHistory)
    full = open_history(tmp_path / "state" / "history")
    (tmp_path / "state" / "history").unlink()
    (tmp_path / "state").rmdir()
    full.append_string("not lost here")
    assert full.get_strings() == ["not lost here"]


def test_what_is_typed_during_an_answer_is_the_next_message(keys: PipeInput) -> None:
    """Ctrl-C is heard, all else waits in its order: a message, and half of another that goes on."""
    typist = editor()
    with typist.hearing() as stopped:
        assert not stopped()
        keys.send_text("next\rand ha")
        assert not stopped()
        keys.send_text(CTRL_C)
        assert stopped()
        assert stopped()
    assert typist.read() == "next"
    keys.send_text("lf\r")
    assert typist.read() == "and half"


def test_completion(tmp_path: Path) -> None:
    """Commands at the beginning of a line, file names behind those that take one, nothing else."""
    (tmp_path / "talk.jsonl").write_text("")
    completer = Slashes(MEANINGS, ["/save"])

    def completed(text: str) -> list[str]:
        found = completer.get_completions(Document(text), CompleteEvent())
        return [text[: len(text) + one.start_position] + one.text for one in found]

    assert completed("/s") == ["/save", "/system"]
    assert completed(f"/save {tmp_path}/ta") == [f"/save {tmp_path}/talk.jsonl"]
    assert completed("see /s") == completed("") == completed("/help /s") == []


def test_typed_text_is_inert() -> None:
    """An override and an escape are shown as their code points, and the cursor knows where each character stands."""
    typed: StyleAndTextTuples = [("", "a\u202eb"), ("", "\x1bc")]
    given = TransformationInput(BufferControl(), Document("a\u202eb\x1bc"), 0, lambda place: place, typed, 80, 1)
    changed = Inert().apply_transformation(given)
    assert fragment_list_to_text(changed.fragments) == "a\\u202eb\\x1bc"
    assert [changed.source_to_display(place) for place in range(7)] == [0, 1, 7, 8, 12, 13, 14]
    assert [changed.display_to_source(place) for place in range(15)] == [0, *[1] * 6, 2, *[3] * 4, 4, 5, 6]


# --- a real terminal --------------------------------------------------------------------------------------------------

ENDLESS = """
import sys, time
from smolt.cli import chat
from smolt.config import ChatSampling, Model
from smolt.models import conversation
once = conversation.stream_tokens
def endless(*arguments):
    while True:
        for token in once(*arguments):
            time.sleep(0.02)
            yield token
conversation.stream_tokens = endless
one, other = (Model(path=path, device="cpu") for path in sys.argv[1:])
chat.chat(one, ChatSampling(max_tokens=100), against=other)
open("ended", "w").write("as it should")
"""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with tmux_terminal(tmp_path) as opened:
        yield opened


def test_two_models_in_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    """History, a paste of two lines, two stopped answers, what was typed meanwhile, the saved conversations."""
    paths = [str(tiny_model(tmp_path / name, seed=seed)) for seed, name in enumerate(("one", "other"))]
    history = tmp_path / "smolt" / "chat-history"
    history.parent.mkdir()
    history.write_text("\n# 2026\n+asked before\n")
    program = ["env", f"XDG_STATE_HOME={tmp_path}", "HF_HUB_OFFLINE=1", sys.executable, "-c", ENDLESS, *paths]
    terminal.start(["sh", "-c", "cat; :"])
    terminal.tmux("set-option", "-g", "remain-on-exit", "on")
    terminal.tmux("respawn-pane", "-k", "-c", str(tmp_path), *program)
    terminal.see("Ctrl-D leaves.")
    terminal.press("Up", "> asked before")
    terminal.press("C-c", "(Ctrl-D or /quit leaves)")
    terminal.paste("line one\nline two")
    terminal.see("  line two")
    terminal.press("Enter", f"--- {paths[0]} ---")
    terminal.tmux("send-keys", "-l", "typed later")
    assert "typed later" not in terminal.press("C-c", f"--- {paths[1]} ---")
    terminal.press("C-c", "> typed later")
    terminal.tmux("send-keys", "C-u")
    terminal.tmux("send-keys", "-l", "/save talk.jsonl")
    terminal.press("Enter", "(2 rows in talk.jsonl)")
    terminal.tmux("send-keys", "C-d")
    terminal.wait()
    assert (tmp_path / "ended").read_text() == "as it should"
    rows = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text().splitlines()]
    assert [row["model"] for row in rows] == paths
    assert [row["messages"][0]["content"] for row in rows] == ["line one\nline two"] * 2
    assert all(row["messages"][1]["content"] for row in rows)
    assert "+line one\n+line two\n" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_the_oldest_lines_are_forgotten(tmp_path: Path) -> None:
    """Of 1,003 entries, one of two lines that begin as entries do, the last 1,000 stay."""
    file = tmp_path / "history"
    kept = open_history(file)
    for number in range(1002):
        kept.store_string(f"line {number}")
    kept.store_string("# first\n# second")
    written = file.read_bytes()
    assert len(list(open_history(file).load_history_strings())) == 1000
    found = list(open_history(file).load_history_strings())
    assert (found[0], found[1], found[-1]) == ("# first\n# second", "line 1001", "line 3")
    assert written.endswith(file.read_bytes())
    assert file.stat().st_mode & 0o777 == 0o600

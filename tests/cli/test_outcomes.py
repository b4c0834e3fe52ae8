"""How a command ends when a signal comes at its very beginning or end."""

import contextlib
import io
import json
import logging
import os
import signal
import time
import weakref
from collections.abc import Iterator

import pytest
import typer

from smolt.cli import progress
from smolt.cli.outcomes import ONCE_MORE, Outcome, at_words, deliver, delivered
from smolt.errors import UserError


@pytest.mark.parametrize("when", ["begins", "ends"])
def test_a_signal_while_a_command_begins_or_ends(
    when: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before its work and after it, where steps are set up and put away: 143 and a sentence, no traceback."""

    @contextlib.contextmanager
    def steps() -> Iterator[None]:
        if when == "begins":
            os.kill(os.getpid(), signal.SIGTERM)
        yield
        if when == "ends":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(progress, "steps_named", steps)
    with pytest.raises(typer.Exit) as left:
        deliver(lambda: Outcome({}, "done"), as_json=False)
    assert left.value.exit_code == 143
    assert capfd.readouterr().err.startswith("terminated")


class Watched:
    """What a weak reference can point to."""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_callback_of_the_interpreter_is_heard(
    number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Python drops what is raised where a weak reference dies, as at the end of every import."""

    def work() -> Outcome:
        watched = Watched()
        reference = weakref.ref(watched, lambda dead: signal.raise_signal(number))
        del watched
        for _ in range(3000):
            time.sleep(0.01)
        return Outcome({}, f"{reference} went unheard")

    with pytest.raises(typer.Exit) as left:
        deliver(work, as_json=False)
    assert left.value.exit_code == code
    assert "ignored" not in capfd.readouterr().err


def test_a_signal_that_the_work_did_not_hear_does_not_come_after_it(capfd: pytest.CaptureFixture[str]) -> None:
    """One in the last moment of work that is done: no traceback where Python ends."""

    def work() -> Outcome:
        watched = Watched()
        reference = weakref.ref(watched, lambda dead: signal.raise_signal(signal.SIGINT))
        del watched
        return Outcome({}, f"done: {reference() is None}")

    with pytest.raises(typer.Exit) as left:
        deliver(work, as_json=False)
    time.sleep(5 * ONCE_MORE)
    assert (left.value.exit_code, capfd.readouterr().out) == (0, "done: True\n")


def test_a_signal_while_a_module_begins_is_no_failed_import(capfd: pytest.CaptureFixture[str]) -> None:
    """As pybind11's modules raise it; an import that failed for another reason stays one."""

    def work(cause: BaseException) -> Outcome:
        raise ImportError("initialization failed") from cause

    with pytest.raises(typer.Exit) as left:
        deliver(lambda: work(KeyboardInterrupt()), as_json=False)
    assert left.value.exit_code == 130
    assert capfd.readouterr().err.startswith("interrupted")
    with pytest.raises(ImportError, match="initialization failed"):
        deliver(lambda: work(OSError("no such library")), as_json=False)


@pytest.mark.parametrize(
    ("share", "words"),
    [(False, "interrupted\n"), (True, "interrupted; the same command continues what was begun\n")],
)
def test_only_what_is_kept_is_said_to_continue(share: bool, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> Outcome:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as left:
        delivered(work, share=share)()
    assert (left.value.exit_code, capfd.readouterr().err) == (130, words)


def test_a_terminal_gets_lines_broken_at_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 20 columns; a long word and what is piped stay; a row goes on below its last column."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "20")
    text = "p = 0.4, after Holm over 9\n\n  sft  0.377  0.347 to 0.407"
    assert at_words(text, io.StringIO()) == text
    assert at_words(text, Screen()) == text.replace("Holm over", "Holm\nover")
    assert at_words("in runs/a-rather-long-name/model", Screen()) == "in\nruns/a-rather-long-name/model"
    row, long = "name  a text of seven words that is long", "a name that is too long  for another column"
    assert at_words(row, Screen()) == "name  a text of\n      seven words\n      that is long"
    assert at_words(long, Screen()) == long
    named = at_words("it is two; `smolt merge run --out DIR` makes one of them", Screen())
    assert named == "it is two;\n`smolt merge run --out DIR`\nmakes one of them"
    recipe = Outcome({}, "# a comment of more than 20 columns", verbatim=True)
    assert recipe.said(Screen()) == recipe.words


def test_what_to_type_next_stands_on_lines_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole, however narrow the terminal is; in a pipe alike, and with --json in `next`."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "20")
    command = "smolt eval runs/'my model' HELD-OUT-PAIRS --task preferences"
    found = Outcome({"a": 1}, "dpo: complete, and in runs", commands=[command, "smolt chat runs"])
    next_ = f"next:\n  {command}\n  smolt chat runs"
    assert found.said(Screen()) == f"dpo: complete, and\nin runs\n{next_}"
    assert found.said(io.StringIO()) == f"dpo: complete, and in runs\n{next_}"
    with pytest.raises(typer.Exit):
        deliver(lambda: found, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"a": 1, "next": [command, "smolt chat runs"]}


def test_an_error_is_broken_at_words_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a warning on the way."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    def work() -> Outcome:
        logging.getLogger("smolt").warning("the rest is skipped for now")
        raise UserError("data: there is no such column")

    monkeypatch.setenv("COLUMNS", "24")
    monkeypatch.setattr("sys.stderr", screen := Screen())
    with pytest.raises(typer.Exit) as left:
        deliver(work, as_json=False)
    assert left.value.exit_code == 2
    assert "warning: the rest is\nskipped for now\n" in screen.getvalue()
    assert screen.getvalue().endswith("error: data: there is no\nsuch column\n")

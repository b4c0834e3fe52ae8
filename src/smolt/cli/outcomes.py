"""How every command ends: one JSON object on stdout or words for a person, and the exit code of what went wrong.

This is the one place where exceptions become exit codes (docs/reference/command-line.md).
"""

import _thread
import contextlib
import errno
import functools
import inspect
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Any, NoReturn, TextIO

import typer

from smolt import processes
from smolt.errors import DirectoryInUse, SelfCheckError, UserError, out_of_memory
from smolt.processes.lifeline import ProcessLost, Say, leave_at_once
from smolt.report.inert import visible

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, all else on stderr.")]
KEYWORD = inspect.Parameter.KEYWORD_ONLY

DONE = 0
WRONG_INPUT = 2
OUT_OF_MEMORY = 71
DISK = 74
INTERRUPTED = 130
TERMINATED = 143
ONCE_MORE = 0.01
"""Seconds after which a signal that nobody could hear comes again."""
DISK_ERRORS = {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EFBIG}
TIE = "\x00"
"""Stands for a blank at which no line is broken."""
SHARED = "Shared are study, the commands that train, sample, eval, suite and judge"

SHARING = "Several processes share the work where torchrun starts them: torchrun --nproc-per-node 2 -m smolt ..."
"""Of the help of such commands."""

ENDED = "terminated"
CONTINUES = f"{ENDED}; the same command continues what was begun"
MEMORY_HINT = "out of memory; lower budget.memory, the batch, or the lengths, then run the same command again"


@dataclass(frozen=True)
class Outcome:
    """What a command found.

    Attributes:
        facts: the JSON object that `--json` prints.
        words: the same for a person.
        exit_code: of the process.
        commands: what to type next; each has a line of its own, which can be copied, and `next` of the JSON object.
        verbatim: the words are a file's, whose lines are not broken.
    """

    facts: dict[str, Any]
    words: str = ""
    exit_code: int = DONE
    commands: Sequence[str] = ()
    verbatim: bool = False

    def said(self, stream: TextIO) -> str:
        """The words and commands as the stream shows them."""
        words = visible(self.words)
        commands = "".join(f"\n  {visible(command)}" for command in self.commands)
        return (words if self.verbatim else at_words(words, stream)) + (f"\nnext:{commands}" if commands else "")


class Stopped(BaseException):
    """The command was interrupted in good order and can be continued.

    No Exception: whoever explains what a library raises must not take an interrupt for it.
    """

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def deliver(work: Callable[[], Outcome], as_json: bool, ended: str = ENDED, share: bool = False) -> NoReturn:
    """Run a command's work and leave with its exit code.

    With `as_json` stdout carries exactly one JSON object, of an error as of a result; whatever else is printed on the
    way, by libraries too, goes to stderr. Of several processes the first one speaks, and of an error one.

    Args:
        work: of the command.
        as_json: whether a JSON object is wanted.
        ended: the words of a SIGTERM, and of a Ctrl-C.
        share: whether several processes may share the work.

    Raises:
        typer.Exit: always, with the exit code.
    """
    from smolt.cli.progress import steps_named

    stdout, speaks = sys.stdout, processes.first()
    aside = contextlib.nullcontext() if speaks and not as_json else contextlib.redirect_stdout(sys.stderr)

    def listening() -> Outcome:
        with aside, _heard(), _terminable(ended), steps_named() if speaks else contextlib.nullcontext():
            if processes.size() > 1:
                _take_part(share, lambda message, code: _tell(_failed(code, message), stdout, as_json))
            return work()

    # A signal may come while these contexts are entered or left, so they are inside what answers it.
    raise typer.Exit(_say(_guarded(listening, ended), stdout, as_json))


def _take_part(share: bool, say: Say) -> None:
    """Join the other processes; `say` says an error of one of them.

    Raises:
        UserError: the work of this command is not shared.
        ProcessLost: the others cannot be reached.
    """
    if not share:
        refuse_several("this command")
    from smolt.models.forward.process_group import join, lifeline

    join()
    line = lifeline()
    if line is not None:
        line.say = say


def refuse_several(what: str) -> None:
    """Refuse work that several processes cannot share.

    Raises:
        UserError: there are several.
        typer.Exit: of those that are not the first, which says it.
    """
    if processes.rank():
        raise typer.Exit(WRONG_INPUT)
    if processes.size() > 1:
        raise UserError(f"{what}: its work is not shared by several processes: start it without torchrun. {SHARED}")


def shared(work: Callable[..., Outcome]) -> Callable[..., NoReturn]:
    """A command whose work several processes may share."""
    return delivered(work, share=True)


def delivered(work: Callable[..., Outcome], share: bool = False) -> Callable[..., NoReturn]:
    """A command from the function that does its work: it takes --json too, and ends as `deliver` does.

    What several processes may share is work of hours, which is kept as it comes.
    """

    @functools.wraps(work)
    def command(as_json: bool = False, **given: Any) -> NoReturn:
        deliver(lambda: work(**given), as_json, CONTINUES if share else ENDED, share)

    own, option = inspect.signature(work), inspect.Parameter("as_json", KEYWORD, default=False, annotation=Json)
    vars(command)["__signature__"] = own.replace(parameters=[*own.parameters.values(), option])
    command.__annotations__ = {}  # what typer reads is in the signature
    return command


def _guarded(work: Callable[[], Outcome], ended: str) -> Outcome:
    """The outcome of the work, or of the error that ended it; an error nobody expected passes with its traceback.

    The words of a Ctrl-C are those of a SIGTERM: `ended`, but for their first one.
    """
    try:
        return work()
    except (UserError, SelfCheckError, DirectoryInUse, ProcessLost, Stopped) as error:
        return _failed(error.exit_code, str(error))
    except MemoryError:
        return _failed(OUT_OF_MEMORY, MEMORY_HINT)
    except KeyboardInterrupt:
        return _failed(INTERRUPTED, ended.replace("terminated", "interrupted", 1))
    except RuntimeError as error:
        if out_of_memory(error):
            return _failed(OUT_OF_MEMORY, f"{MEMORY_HINT} ({str(error).splitlines()[0]})")
        raise
    except OSError as error:
        from smolt.runs import StorageError

        if out_of_memory(error):
            return _failed(OUT_OF_MEMORY, MEMORY_HINT)
        code = DISK if isinstance(error, StorageError) or error.errno in DISK_ERRORS else WRONG_INPUT
        place = f"{error.filename}: " if error.filename else ""
        return _failed(code, f"{place}{error.strerror or error}")


def at_words(text: str, stream: TextIO) -> str:
    """The text broken at words where the stream is a terminal, which would break inside them."""
    return filled(text, shutil.get_terminal_size().columns) if stream.isatty() else text


def filled(text: str, width: int) -> str:
    """The text with no line broken inside a word or a command.

    A row of a table goes on below its last column, where that begins in the left half. What stands in backticks is a
    command: where it is longer than a line it has lines of its own, which the terminal breaks, so that it is copied as
    one line.

    Args:
        text: any number of lines.
        width: columns.
    """
    return "\n".join(_filled(line, width) for line in text.split("\n"))


def _filled(line: str, width: int) -> str:
    column = max((gap.end() for gap in re.finditer(" {2,}", line)), default=0)
    if len(line) <= width or column > width // 2:
        return line
    wrapped = textwrap.TextWrapper(
        width, subsequent_indent=" " * column, break_long_words=False, break_on_hyphens=False
    )
    tied = re.sub(r"`[^`]+`", lambda command: command[0].replace(" ", TIE), line)
    return wrapped.fill(tied).replace(TIE, " ")


def _failed(exit_code: int, message: str) -> Outcome:
    return Outcome({"error": message, "exit_code": exit_code}, message, exit_code)


def _say(outcome: Outcome, stdout: TextIO, as_json: bool) -> int:
    """Say it, in one of several processes; the exit code, which is another where nobody can be told."""
    if processes.size() == 1:
        return _tell(outcome, stdout, as_json)
    if "error" not in outcome.facts:
        return _tell(outcome, stdout, as_json) if processes.first() else outcome.exit_code
    from smolt.models.forward.process_group import lifeline

    line, message = lifeline(), outcome.words
    if line is not None:
        line.failed(message, outcome.exit_code)
    named = message if processes.first() else f"rank {processes.rank()}: {message}"
    code = _tell(_failed(outcome.exit_code, named), stdout, as_json)
    if line is not None:
        leave_at_once(code)  # and not by the door at which the others would be waited for
    return code


def _tell(outcome: Outcome, stdout: TextIO, as_json: bool) -> int:
    from smolt.runs import jsontext

    failed, code = "error" in outcome.facts, outcome.exit_code
    try:
        if as_json:
            facts = {**outcome.facts, "next": list(outcome.commands)} if outcome.commands else outcome.facts
            stdout.write(jsontext.encode(jsontext.plain(facts), "facts") + "\n")
        elif not failed and outcome.words:
            stdout.write(outcome.said(stdout) + "\n")
        stdout.flush()
    except OSError as error:
        # The reader left, or the disk is full; Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            typer.echo(f"error: standard output: {error.strerror}", err=True)
            code = DISK if code == DONE else code
    if failed:
        label = "" if outcome.exit_code in (INTERRUPTED, TERMINATED) else "error: "
        typer.echo(at_words(f"{label}{visible(outcome.words)}", sys.stderr), err=True)
    return code


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """A signal is heard wherever it comes.

    Python passes over what is raised in the callback of a weak reference and in `__del__`, and there is such a callback
    at the end of every import: Ctrl-C while libraries are loaded was lost now and then. A module of pybind11's that is
    interrupted as it begins raises an ImportError.
    """
    before, waiting = sys.unraisablehook, list[threading.Timer]()

    def passed_over(found: "sys.UnraisableHookArgs") -> None:
        number = {KeyboardInterrupt: signal.SIGINT, Stopped: signal.SIGTERM}.get(found.exc_type)
        if number is None:
            before(found)
            return
        again = threading.Timer(ONCE_MORE, _thread.interrupt_main, [number])
        again.daemon = True
        waiting.append(again)
        again.start()

    sys.unraisablehook = passed_over
    try:
        yield
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt | Stopped):
            raise error.__cause__ from None
        raise
    finally:
        sys.unraisablehook = before
        for again in waiting:  # the work is over: nothing is left that it could end
            again.cancel()


@contextlib.contextmanager
def _terminable(ended: str) -> Iterator[None]:
    """SIGTERM ends a command with 143 and these words where no training listens for it, Ctrl-C with 130."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def receive(number: int, frame: FrameType | None) -> None:
        raise Stopped(128 + number, ended)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, receive)}
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `smolt.__main__` leaves it
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

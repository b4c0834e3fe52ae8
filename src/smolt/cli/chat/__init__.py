"""A conversation in the terminal: the one renderer and the one sampler, streamed; the model's text is inert.

With a chat template (or the style "dialogue") the whole dialogue is the context; without one each line is a question of
its own. Answers go to stdout, everything else to stderr, so that a piped conversation gives the answers alone.
"""

import contextlib
import io
import os
import sys

from smolt.cli.chat.commands import COMMANDS, FILES, heed
from smolt.cli.chat.plain_lines import Lines, PlainLines
from smolt.cli.chat.talk import Talk, open_speaker
from smolt.cli.progress import moved_on
from smolt.config import ChatSampling, Model
from smolt.errors import UserError


def chat(
    model: Model,
    sampling: ChatSampling,
    system: str | None = None,
    against: Model | None = None,
    history: bool = True,
    int8: bool = False,
) -> None:
    """Talk to a model, or to two at once, until /quit or the end of the input.

    On a terminal with an editor; with a piped stdin one question a line, the answers on stdout and no prompts.

    Args:
        model: a hub name, model directory, adapter or run, and where and how precisely to compute.
        sampling: how answers are drawn.
        system: the system message; needs a chat template.
        against: a second model, which is asked the same.
        history: remember what is typed from one conversation to the next.
        int8: decode answers from weights in int8.

    Raises:
        UserError: a model cannot be read, or takes no system message.
    """
    if against is not None and against.path == model.path:
        raise UserError(f"--against: {model.path}: is the model itself; name another one")
    speakers = [open_speaker(one, sampling, system, int8) for one in (model, against) if one is not None]
    moved_on()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream is sys.stdin else "backslashreplace")
    with contextlib.suppress(BrokenPipeError):  # the reader of the answers left
        converse(Talk(speakers, _lines(history), sys.stdout, sys.stderr))


def _lines(history: bool) -> Lines:
    """Where lines come from: a pipe, a terminal that only writes on, or one with an editor."""
    if not sys.stdin.isatty():
        return PlainLines(sys.stdin)
    screen = next((stream for stream in (sys.stdout, sys.stderr) if stream.isatty()), None)
    if screen is None or os.environ.get("TERM") in ("dumb", "unknown"):
        return PlainLines(sys.stdin, screen or sys.stderr)
    from smolt.cli.chat.line_editor import LineEditor, history_file

    meanings = {name: command.means for name, command in COMMANDS.items()}
    kept = history_file() if history else None
    return LineEditor(meanings, FILES, kept, None if screen is sys.stdout else screen)


def converse(talk: Talk) -> None:
    """Read and answer until the end.

    Raises:
        KeyboardInterrupt: Ctrl-C where nobody types.
    """
    person = talk.lines.person
    if person:
        titles = "\n".join(speaker.title for speaker in talk.speakers)
        talk.notice(f"{titles}. /help lists the commands, Ctrl-D leaves.")
    for speaker in talk.speakers:
        if speaker.note:
            talk.notice(f"({speaker.note})")
        if not speaker.conversation.remembers:
            who = "This model" if len(talk.speakers) == 1 else speaker.name
            talk.notice(f"{who} has no chat template: each line is a question of its own.")
    while (text := _next(talk)) is not None:
        try:
            if text and not heed(talk, text):
                return
        except KeyboardInterrupt:
            if not person:
                raise
            talk.notice("(stopped)")


def _next(talk: Talk) -> str | None:
    """The next line without white space around it; None at the end. A person's Ctrl-C forgets what was typed."""
    while True:
        try:
            return talk.lines.read().strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            if not talk.lines.person:
                raise
            talk.notice("(Ctrl-D or /quit leaves)")

"""What a line that begins with a slash does."""

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smolt.cli.chat.talk import Talk, successor
from smolt.cli.progress import moved_on
from smolt.config import ChatSampling, make_block
from smolt.config.complaints import suggestion
from smolt.config.yaml_reader import read_text
from smolt.data.nouns import as_messages
from smolt.data.writing import append_rows
from smolt.errors import UserError
from smolt.runs import jsontext

QUIT = "/quit"
NEAR = 0.4


@dataclass(frozen=True)
class Command:
    """A command of a conversation.

    Attributes:
        takes: what stands behind it; in brackets where it need not, empty where nothing may.
        means: what it does.
        do: does it, with what stands behind it.
    """

    takes: str
    means: str
    do: Callable[[Talk, str], None]


def heed(talk: Talk, text: str) -> bool:
    """Do what a line says, without white space around it; whether the conversation goes on.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    word, *rest = text.split(maxsplit=1)
    behind = rest[0] if rest else ""
    command = COMMANDS.get(OLDER.get(word, word))
    if command is None:
        if re.match(r"/[a-z]+(\s|$)", text):
            near = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=NEAR)
            meant = f"did you mean {near[0]}? " if near else ""
            talk.notice(f"({word} is no command; {meant}/help lists them)")
        else:
            talk.ask(text)
    elif behind and not command.takes:
        talk.notice(f"({word} takes nothing behind it)")
    elif not behind and command.takes and not command.takes.startswith("["):
        talk.notice(f"({word} {command.takes}: the {command.takes.lower()} is missing)")
    else:
        command.do(talk, behind)
        return word != QUIT
    return True


def _help(talk: Talk, behind: str) -> None:
    for name, command in COMMANDS.items():
        talk.notice(f"{name} {command.takes}".ljust(16) + command.means)
    talk.notice(talk.lines.keys)


def _system(talk: Talk, behind: str) -> None:
    for speaker in talk.speakers:
        found = speaker.conversation
        try:
            if behind:
                found.instruct(behind)
        except UserError as error:
            talk.remark(speaker, str(error))
            continue
        talk.remark(speaker, "there is no system message" if found.system is None else f"system: {found.system}")


def _set(talk: Talk, behind: str) -> None:
    before = talk.speakers[0].conversation.sampling.model_dump()
    name, _, value = behind.partition(" ")
    name = name.replace("-", "_")
    if behind and name not in before:
        talk.notice(f"({name} is no setting{suggestion(name, before)})")
        return
    try:
        changed = {name: read_text(value, name).data} if behind else {}
        after = make_block(ChatSampling, **{**before, **changed})
    except UserError as error:
        talk.notice(f"({error})")
        return
    for speaker in talk.speakers:
        speaker.conversation.sampling = after
    talk.notice(f"({', '.join(f'{key} {kept:g}' for key, kept in after.model_dump().items())})")


def _reset(talk: Talk, behind: str) -> None:
    for speaker in talk.speakers:
        speaker.conversation.reset()
    talk.notice("(the conversation is forgotten)")


def _again(talk: Talk, behind: str) -> None:
    for speaker in talk.speakers:
        try:
            is_asked = speaker.conversation.again()
        except UserError as error:
            talk.remark(speaker, str(error))
            continue
        if is_asked:
            talk.answer(speaker)
        else:
            talk.remark(speaker, "there is no answer yet")


def _save(talk: Talk, behind: str) -> None:
    path = Path(os.path.expanduser(behind))
    rows = [
        {"messages": as_messages(dialogue), "model": speaker.name}
        for speaker in talk.speakers
        for dialogue in speaker.conversation.dialogues()
    ]
    if not rows:
        talk.notice("(nothing was said yet)")
        return
    try:
        was_there = path.exists() and path.stat().st_size > 0
        if was_there:
            with path.open("rb") as file:
                if "messages" not in jsontext.decode_object(file.readline(), f"{path}:1"):
                    raise UserError(f"{path}:1: holds no `messages`, so no conversation is appended to it")
        append_rows(path, rows)
    except (UserError, OSError, ValueError) as error:  # a zero byte in a name is a ValueError
        talk.notice(f"({reason(error)})")
        return
    count = f"{len(rows)} row{'s' * (len(rows) > 1)}"
    talk.notice(f"({count} appended to {path}, which was there)" if was_there else f"({count} in {path})")


def _model(talk: Talk, behind: str) -> None:
    if behind:
        before, *others = talk.speakers
        if behind in (other.name for other in others):
            talk.notice(f"({behind} is the other model; {before.name} stays)")
            return
        try:
            talk.speakers[0] = successor(before, behind)
        except (UserError, OSError, MemoryError) as error:
            talk.notice(f"({reason(error)}; {before.name} stays)")
            return
        finally:
            moved_on()
        if before.conversation.system is not None and talk.speakers[0].conversation.system is None:
            talk.notice(f"({behind} has no chat template, so the system message is left out)")
        if talk.speakers[0].note:
            talk.notice(f"({talk.speakers[0].note})")
    for speaker in talk.speakers:
        talk.notice(f"({speaker.title})")


def reason(error: BaseException) -> str:
    """What an error says to a person."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error) or "out of memory"


COMMANDS = {
    "/help": Command("", "this text", _help),
    "/system": Command("[TEXT]", "show the system message, or take another one", _system),
    "/again": Command("", "answer the last question once more, differently where the temperature is not 0", _again),
    "/model": Command("[NAME]", "show the model, or go on with another one", _model),
    "/set": Command("[NAME VALUE]", "show how answers are drawn, or change it: temperature, repetition, ...", _set),
    "/save": Command("FILE", "append the conversation to a file of `messages`, one row as JSON", _save),
    "/reset": Command("", "forget the conversation, but not the system message", _reset),
    QUIT: Command("", "leave (so does Ctrl-D)", lambda talk, behind: None),
}
OLDER = {"/regenerate": "/again"}
FILES = ("/model", "/save")
"""Commands that take a path."""

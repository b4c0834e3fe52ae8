"""Lines that a person types on a terminal: edited, completed, remembered from one conversation to the next."""

import bisect
import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.layout.utils import explode_text_fragments
from prompt_toolkit.output import Output, create_output

from smolt.cli.chat.plain_lines import PROMPT, StopSwitch
from smolt.report.inert import visible
from smolt.runs import storage


def history_file() -> Path | None:
    """Where lines are remembered: in the user's state directory; None for a user without a home directory."""
    state = storage.user_directory("XDG_STATE_HOME", ".local/state")
    return None if state is None else state / "smolt" / "chat-history"


MOST_REMEMBERED = 1000
"""Lines that are kept from one conversation to the next."""


class Remembered(FileHistory):
    """Lines in a file that its owner alone can read; a full disk ends no conversation."""

    def store_string(self, string: str) -> None:
        """Add a line to the file, where that can be done."""
        with contextlib.suppress(OSError):
            super().store_string(whole(string))


def open_history(path: Path) -> History:
    """What was typed before; of this conversation alone where the file cannot be written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
        path.chmod(0o600)
        forget_oldest(path)
    except OSError:
        return InMemoryHistory()
    return Remembered(path)


def forget_oldest(path: Path, most: int = MOST_REMEMBERED) -> None:
    """Cut the file to its last entries: each begins with an empty line and a comment with its time."""
    entries = path.read_bytes().split(b"\n# ")
    if len(entries) - 1 > most:
        storage.atomic_write(path, b"".join(b"\n# " + entry for entry in entries[-most:]))
        path.chmod(0o600)


def whole(text: str) -> str:
    """The text with a replacement character for each byte that was no UTF-8."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


class Slashes(Completer):
    """Completes commands at the beginning of a line, and file names after those that take one.

    Args:
        commands: each with what it does.
        files: those that take a file name.
    """

    def __init__(self, commands: Mapping[str, str], files: Iterable[str]) -> None:
        self._commands, self._files = commands, set(files)
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What the text before the cursor may become."""
        text = document.text_before_cursor
        word, space, rest = text.partition(" ")
        if space and word in self._files:
            yield from self._paths.get_completions(Document(rest), complete_event)
        elif text.startswith("/"):
            for name, meaning in self._commands.items():
                if name.startswith(text):
                    yield Completion(name, -len(text), display_meta=meaning)


class Inert(Processor):
    """What a terminal would obey rather than show is shown as an escape, in what is typed and pasted too."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        """The fragments of a line as they are shown, and which place of theirs is which of the line."""
        shown: StyleAndTextTuples = []
        starts, length = [], 0
        for style, text, *_ in explode_text_fragments(transformation_input.fragments):
            starts.append(length)
            shown.append((style, visible(text)))
            length += len(shown[-1][1])
        starts.append(length)
        last = len(starts) - 1
        return Transformation(
            shown,
            source_to_display=lambda place: starts[min(place, last)] + max(0, place - last),
            display_to_source=lambda place: bisect.bisect_right(starts, place) - 1 + max(0, place - length),
        )


def _another_line() -> KeyBindings:
    """Alt-Enter breaks the line; Enter alone sends it."""
    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


class LineEditor:
    """A prompt on a terminal.

    Args:
        commands: what is completed at the beginning of a line, each with what it does.
        files: those of them that take a file name.
        history: where lines are remembered; None for this conversation alone.
        screen: the terminal; None for standard output.
    """

    person: ClassVar[bool] = True
    keys: ClassVar[str] = "Ctrl-C stops an answer. Alt-Enter breaks the line, Ctrl-R searches what was typed before."

    def __init__(
        self,
        commands: Mapping[str, str],
        files: Iterable[str],
        history: Path | None = None,
        screen: TextIO | None = None,
    ) -> None:
        output: Output | None = None if screen is None else create_output(screen)
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            history=InMemoryHistory() if history is None else open_history(history),
            completer=Slashes(commands, files),
            complete_while_typing=Condition(lambda: get_app().current_buffer.text.startswith("/")),
            key_bindings=_another_line(),
            prompt_continuation=lambda width, number, wrapped: " " * width,
            input_processors=[Inert()],
            enable_suspend=True,
            output=output,
        )

    def read(self) -> str:
        """The next message, of one line or several.

        Raises:
            EOFError: Ctrl-D, or the terminal is gone.
            KeyboardInterrupt: Ctrl-C.
        """
        return whole(self._session.prompt())

    @contextlib.contextmanager
    def hearing(self) -> Iterator[Callable[[], bool]]:
        """While entered, keys are not shown: what is yielded says whether Ctrl-C was among them.

        The others are kept for the next message.
        """
        source, screen, kept = self._session.input, self._session.output, list[KeyPress]()

        def listen() -> bool:
            keys = source.read_keys()
            kept.extend(key for key in keys if key.key != Keys.ControlC)
            switch.on = switch.on or any(key.key == Keys.ControlC for key in keys)
            return switch.on

        with StopSwitch() as switch, source.raw_mode():
            screen.enable_bracketed_paste()
            screen.flush()
            try:
                yield listen
            finally:
                listen()
                store_typeahead(source, kept)
                screen.disable_bracketed_paste()
                screen.flush()

"""Lines of prose and of tables in the columns there are. A command stays whole: it may be copied."""

import re
import textwrap

TIE = "\x00"
"""Stands for a blank at which no line is broken."""


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

"""The mistakes smolt tells apart, and the exit code of each (the command-line contract).

UserError (2)        recipe, data, model or arguments are wrong: the message names the place and the fix
SelfCheckError (70)  smolt found its own numbers inconsistent: nothing it would train on can be trusted
DirectoryInUse (75)  another process is working in the run directory
"""

import errno


class UserError(ValueError):
    """The user's mistake: the message says `file:line: field: reason` where there is a file, and how to mend it."""

    exit_code = 2


class SelfCheckError(RuntimeError):
    """A check of smolt's own arithmetic failed; the message names the likely cause."""

    exit_code = 70


class DirectoryInUse(RuntimeError):
    """The run directory is locked by a living process."""

    exit_code = 75


MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "failed to allocate")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory: libraries have errors of their own for it."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    words = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or any(word in words for word in MEMORY_WORDS)

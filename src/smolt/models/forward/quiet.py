"""Libraries keep their bars, advice, warnings and errors to themselves: what a person should know, smolt says."""

import contextlib
import warnings
from collections.abc import Iterator

from transformers.utils import logging as transformers_logging

from smolt.errors import UserError


def hush() -> None:
    """Keep transformers' bars and advice off the screen, from here on."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Around a call into a library whose warnings no user can act on, such as one by peft of transformers' names."""
    hush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def read_by_library(place: str) -> Iterator[None]:
    """Around a library that reads a model's files: what it raises on a damaged one names the place.

    Raises:
        UserError: instead of whatever the library raises (a KeyError, a SafetensorError, a validation error, ...).
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # each library has errors of its own, and more with every release
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(f"{place}: cannot be read: {type(error).__name__}: {' '.join(lines[:2])}") from error

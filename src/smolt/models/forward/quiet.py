"""Libraries keep their bars, advice and warnings to themselves: what a person should know, smolt says."""

import contextlib
import warnings
from collections.abc import Iterator

from transformers.utils import logging as transformers_logging


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

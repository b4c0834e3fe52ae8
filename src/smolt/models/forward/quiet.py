"""Libraries keep their bars, advice, warnings and errors to themselves: what a person should know, smolt says."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from smolt.errors import UserError, out_of_memory

LOG = logging.getLogger(__name__)


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
        MemoryError: that is what it tells of.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # each library has errors of its own, and more with every release
        if out_of_memory(error):
            raise MemoryError(str(error)) from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(f"{place}: cannot be read: {type(error).__name__}: {' '.join(lines[:2])}") from error


SHOWN = 3  # names of missing weights in an error


def read_network(kind: Any, path: str, place: str, **given: Any) -> PreTrainedModel:
    """A network all of whose weights come from its files: the library itself would draw what is missing at random.

    Args:
        kind: an auto class of transformers.
        path: a model directory or a hub name.
        place: what names it in errors.
        given: further arguments of `from_pretrained`.

    Raises:
        UserError: it cannot be read, or weights are missing. The head of a classifier made of a language model may.
    """
    LOG.info("loading the weights of %s", Path(path, given.get("gguf_file", "")))
    with read_by_library(place):
        network, found = kind.from_pretrained(path, trust_remote_code=False, output_loading_info=True, **given)
    name = type(network).__name__
    is_new = name.endswith("ForSequenceClassification") and name not in (network.config.architectures or [])
    missing = sorted(weight for weight in found["missing_keys"] if not (is_new and weight.startswith("score.")))
    if missing:
        whole = len(network.state_dict())
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise UserError(
            f"{place}: its files lack {len(missing)} of {whole} weights: {', '.join(missing[:SHOWN])}{more}; they were "
            "not copied whole, or name their weights in another way"
        )
    return network

"""An option of a command and the recipe field behind it say the same: default and smallest value."""

from typing import Any

import pytest
from annotated_types import Ge
from pydantic import BaseModel
from typer.main import get_command

from smolt.cli import app
from smolt.config import ChatSampling, Endpoint, EvaluationSampling, Judging, Sampling

COMMANDS: dict[str, Any] = vars(get_command(app))["commands"]


@pytest.mark.parametrize(
    ("command", "block", "options"),
    [
        ("sample", Sampling, "max_tokens temperature batch"),
        ("suite", EvaluationSampling, "max_tokens temperature batch"),
        ("eval", EvaluationSampling, "temperature batch"),
        ("chat", ChatSampling, "max_tokens temperature top_p top_k repetition seed"),
        ("judge", Judging, "rubric rationale tau matched probes"),
        ("judge", Endpoint, "key rate parallel timeout attempts"),
    ],
)
def test_options_are_the_fields_of_their_block(command: str, block: type[BaseModel], options: str) -> None:
    """A field without a smallest value, or with one that the block alone refuses, has none here."""
    found = {option.name: option for option in COMMANDS[command].params}
    for name in options.split():
        field, option = block.model_fields[name], found[name]
        assert option.default == field.default, name
        least = next((entry.ge for entry in field.metadata if isinstance(entry, Ge)), None)
        if command != "sample" or name != "temperature":  # greedy answers are for looking at, not for training
            assert option.min == least, name


@pytest.mark.parametrize("command", ["chat", "eval", "sample", "export"])
def test_every_kind_of_model_is_named(command: str) -> None:
    """What `locate` takes: a GGUF file too."""
    (model,) = (option for option in COMMANDS[command].params if option.name == "model")
    assert model.help == "A model, adapter or run directory, a GGUF file, or a hub name."

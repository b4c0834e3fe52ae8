"""An engine whose answers are decoded from weights in int8."""

import pytest
import torch

from smolt.models.forward.kernels import kernels
from tests.serving.conftest import Engines, Models
from tests.serving.test_engine import mixed, tokens


def test_answers_from_int8_are_the_same_whoever_else_asks(models: Models, engines: Engines) -> None:
    """12 unlike requests, alone and in 8 slots at once: more than four are decoded from what the int8 stands for."""
    if kernels(torch.float32) is None:
        pytest.skip("there is no C compiler here")
    engine, plain = engines(slots=8, int8=True), engines()
    alone = [tokens(list(engine.submit(request))) for request in mixed(12)]
    together = [tokens(list(stream)) for stream in [engine.submit(request) for request in mixed(12)]]
    assert together == alone
    assert alone != [tokens(list(plain.submit(request))) for request in mixed(12)]
    assert engine.note("tiny").startswith(f"{models('llama')}: weights in int8, 0 MB more: over 248 tokens of a text")
    assert plain.note("tiny") == ""

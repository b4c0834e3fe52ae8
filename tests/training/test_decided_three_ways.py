"""One request asked of smolt, of `pipeline("decision")` and of a real `transformers serve`: three kinds of models."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import smolt
from smolt.models.merging import merge
from tests.deciding import DECISIONS, deciding_model, largest_differences
from tests.served_judge import Served
from tests.tiny import VOCABULARY

FEW = {"batch": 2, "optim": {"lr": 0.01}, "budget": {"updates": 3}}
KINDS = ("as it comes", "all weights", "adapter", "merged")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A chat model to whose tokenizer Yes and No are tokens, and what `smolt decide` and `smolt merge` make of it."""
    folder = tmp_path_factory.mktemp("three")
    chat = deciding_model(folder / "chat", vocab=VOCABULARY + 2)
    tokenizer = AutoTokenizer.from_pretrained(chat)
    tokenizer.add_tokens(["Yes", "No"])
    tokenizer.save_pretrained(chat)
    for name, lora in (("full", None), ("adapter", {"rank": 4})):
        smolt.decide(str(chat), DECISIONS * 4, lora=lora, out=folder / name, dev=None, **FEW).finish()
    merge(str(folder / "adapter"), folder / "merged")
    places = (chat, folder / "full" / "model", folder / "adapter" / "model", folder / "merged")
    return dict(zip(KINDS, places, strict=True))


@pytest.fixture(scope="module")
def served(models: dict[str, Path]) -> Iterator[Served]:
    server = Served(models["as it comes"], pinned=False)
    yield server
    server.kill()


@pytest.mark.parametrize("kind", KINDS)
def test_all_three_give_the_same_probabilities(kind: str, models: dict[str, Path], served: Served) -> None:
    """A choice, a score and a noul in one request, to 1e-4; what was trained has files of its own, the start none."""
    model = models[kind]
    assert (model / "decision.json").is_file() == (kind != "as it comes")
    assert (model / "adapter" / "adapter_config.json").is_file() == (kind == "adapter")
    assert {question.type for question in DECISIONS[0].questions} == {"choice", "score", "noul"}
    assert max(largest_differences(model, served.url, DECISIONS)) < 1e-4

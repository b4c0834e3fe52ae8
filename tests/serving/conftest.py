"""Tiny models, engines over them, and servers over these."""

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from smolt.models.forward.precision import choose_precision
from smolt.models.roles import Policy
from smolt.models.saving import load_policy
from smolt.serving.address import Address, bound, port_of, reached_at
from smolt.serving.engine import Engine
from smolt.serving.listening import guarded, settings_for
from tests.answering import answering
from tests.tiny import Architecture, tiny_model

Models = Callable[[Architecture], Path]
Engines = Callable[..., Engine]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """From an architecture's name to its model directory, with a tokenizer and a ChatML template."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def directory(architecture: Architecture) -> Path:
        return tiny_model(folder / architecture, architecture)

    return directory


@pytest.fixture
def engines(models: Models) -> Iterator[Engines]:
    """From an architecture and an engine's options to an engine with the model "tiny"; all are closed at the end."""
    opened: list[Engine] = []

    def make(architecture: Architecture = "llama", **options: Any) -> Engine:
        opened.append(Engine({"tiny": models(architecture)}, **options))
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()


@cache
def policy_of(directory: Path) -> Policy:
    """The same model as a policy, fp32 on the processor."""
    return load_policy(str(directory), choose_precision("cpu", "fp32"))


@contextlib.contextmanager
def serving(engine: Engine, address: Address | None = None, longest: int = 64) -> Iterator[str]:
    """The base address of a server in a thread of this process, over an engine that stays open."""
    address = address or Address("127.0.0.1", 0)
    with bound(address.host, [address.port]) as listening:
        app = guarded(engine, address, port_of(listening), longest)
        with answering(settings_for(app), listening):
            yield f"{reached_at(address.host, listening)}/v1"


@pytest.fixture(scope="session")
def url(models: Models) -> Iterator[str]:
    """A server of two models, "tiny" with a chat template and "plain" without one; 8 slots, 200 may wait."""
    plain = tiny_model(models("llama").parent / "plain", chat=False)
    engine = Engine({"tiny": models("llama"), "plain": plain}, slots=8, queue=200)
    with serving(engine) as base:
        yield base
    engine.close()


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    """OpenAI's own client, which asks once."""
    with OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=120) as made:
        yield made

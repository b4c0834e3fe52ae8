"""A name that is no directory: from the hub's cache, from the hub, or refused at once with both reasons."""

from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from smolt.errors import UserError
from smolt.models.locating import Located, locate


def hub(monkeypatch: pytest.MonkeyPatch, answer: Exception | None, cached: str | None = None) -> list[str]:
    """A hub that answers so; what it was asked."""
    asked: list[str] = []

    def model_info(self: Any, name: str, timeout: float) -> None:
        asked.append(name)
        if answer is not None:
            raise answer

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: cached)
    return asked


@pytest.mark.parametrize("name", ["nowhere", "owner/nowhere"])
def test_a_name_that_is_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, RepositoryNotFoundError.__new__(RepositoryNotFoundError))
    with pytest.raises(UserError, match=rf"model.path: {name}: no such directory here, .*the hub has no such model"):
        locate(name)


def test_a_hub_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, ConnectionError())
    with pytest.raises(UserError, match=r"no such directory here, not in the hub's cache, .*asked \(ConnectionError\)"):
        locate("nowhere")


def test_what_the_cache_holds_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, ConnectionError(), cached="/cache/config.json")
    assert (locate("owner/model"), asked) == (Located("owner/model"), [])


def test_what_the_hub_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, None)
    assert (locate("owner/model"), asked) == (Located("owner/model"), ["owner/model"])

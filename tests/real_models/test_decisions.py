"""SmolLM2-135M-Instruct decides: as it comes, trained, and with an adapter, smolt says what transformers says."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import smolt
from smolt.data.ticket_decisions import ticket_decision
from smolt.data.tickets import tickets
from tests.deciding import DECISIONS, decided, largest_differences
from tests.real import SMOLLM2, real_model
from tests.served_judge import Served

pytestmark = pytest.mark.slow
LOG = logging.getLogger(__name__)
TICKETS = [ticket_decision(ticket, f"t{number}") for number, ticket in enumerate(tickets(0, 32, "train", 0.6))]
ASKED = [*DECISIONS, *TICKETS[16:]]
TRAINED: dict[str, dict[str, Any]] = {
    "all weights": {"optim": {"lr": 2e-5}},
    "adapter": {"optim": {"lr": 5e-4}, "lora": {"rank": 8}},
}


@pytest.fixture(scope="module")
def start() -> Path:
    return real_model(SMOLLM2)


@pytest.fixture(scope="module")
def served(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """In fp32, as the others compute."""
    server = Served(start, pinned=False, dtype="float32", folder=tmp_path_factory.mktemp("served"))
    yield server
    server.kill()


@pytest.mark.parametrize("kind", ["as it comes", *TRAINED])
def test_all_three_give_the_same_probabilities(kind: str, start: Path, served: Served, tmp_path: Path) -> None:
    """fp32; a choice, a score and a noul in each of 19 requests; four updates on other tickets change the answers."""
    model = start
    if kind in TRAINED:
        fields = {"batch": 4, "budget": {"updates": 4}, "dev": None, "model.dtype": "fp32", **TRAINED[kind]}
        smolt.decide(str(start), TICKETS[:16], out=tmp_path / "run", **fields).finish()
        model = tmp_path / "run" / "model"
        (before,), (after,) = decided(start, ASKED[-1:]), decided(model, ASKED[-1:])
        assert max(abs(one - other) for one, other in zip(before[0], after[0], strict=True)) > 0.01
    by_pipeline, by_server = largest_differences(model, served.url, ASKED)
    LOG.info("%s: at most %.1e from the pipeline, %.1e from the server", kind, by_pipeline, by_server)
    assert max(by_pipeline, by_server) < 1e-4

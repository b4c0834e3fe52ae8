"""GRPO's questions without signal are replaced by others, up to a stated number of times."""

from pathlib import Path

import pytest

import smolt
from tests.tiny import tiny_model

QUESTIONS = [f"hen {number}?" for number in range(6)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("again") / "model"))


def rows(model: str, live: set[str], again: int, updates: int = 1, out: Path | None = None) -> list[dict[str, object]]:
    """Updates of three questions, of which only `live` ones have rewards that differ."""
    return list(
        smolt.grpo(
            model,
            QUESTIONS,
            reward=lambda question, answer: len(answer.text) if question.context[-1].content in live else 0.0,
            prompts=3,
            group=4,
            advantage={"resample": again},
            sampling={"max_tokens": 6},
            budget={"updates": updates},
            checks={"forecast": False},
            out=out,
        )
    )


def test_without_it_nothing_is_replaced(model: str) -> None:
    (row,) = rows(model, set(), 0)
    assert "replaced" not in row and row["signal"] == 0.0


def test_up_to_the_limit(model: str, tmp_path: Path) -> None:
    """No question has signal: 3 are asked, and 3 others twice; 9 groups of 4 are on file, and nothing is learned."""
    (row,) = rows(model, set(), 2, out=tmp_path / "run")
    assert (row["replaced"], row["signal"], row["optimizer_steps"]) == (6, 0.0, 0)
    assert len((tmp_path / "run" / "samples.jsonl").read_text().splitlines()) == 36


def test_what_has_signal_is_kept(model: str) -> None:
    """Half of the questions have signal: after so many times every group of every update has it."""
    found = rows(model, set(QUESTIONS[::2]), 20, updates=3)
    assert all(row["signal"] == 1.0 and row["answers_used"] == 12 for row in found)
    assert any(row["replaced"] for row in found)


def test_it_is_a_function_of_the_update(model: str) -> None:
    first, again = (rows(model, set(QUESTIONS[::2]), 3, updates=2) for _ in range(2))
    assert [(row["replaced"], row["loss"]) for row in first] == [(row["replaced"], row["loss"]) for row in again]

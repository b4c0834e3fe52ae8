"""What of a conversation fits a window."""

from pathlib import Path

import pytest

from smolt.data import Turn
from smolt.errors import UserError
from smolt.models.conversation import fitting
from smolt.models.rendering import load_renderer
from tests.tiny import tiny_model

TALK = (Turn("user", "a" * 20), Turn("assistant", "b" * 20), Turn("user", "c"))


def test_the_oldest_exchanges_leave_first(tmp_path: Path) -> None:
    """As many as a window of so many tokens holds, a quarter kept for the answer; the question alone must fit."""
    renderer = load_renderer(tiny_model(tmp_path / "alpha"))
    whole = len(renderer.context(TALK))
    fits = fitting(renderer, whole + 10, TALK, None, 10)
    assert (fits.context, fits.turns, fits.dropped) == (renderer.context(TALK), TALK, 0)
    fits = fitting(renderer, whole + 9, TALK, None, 10)
    assert (fits.context, fits.turns, fits.dropped) == (renderer.context(TALK[2:]), TALK[2:], 1)
    assert fitting(renderer, 2 * whole, TALK, None, 1000).dropped == 0  # the answer gets a quarter, no more
    alone = len(renderer.context(TALK[2:]))
    with pytest.raises(
        UserError, match=f"the question has {alone} tokens with its frame; the model's window is {alone}"
    ):
        fitting(renderer, alone, TALK, None, 10)


def test_a_system_message_stays(tmp_path: Path) -> None:
    renderer = load_renderer(tiny_model(tmp_path / "alpha"))
    system = Turn("system", "Be kind.")
    assert fitting(renderer, 60, TALK, "Be kind.", 10).context == renderer.context((system, TALK[2]))


def test_without_a_template_each_question_stands_alone(tmp_path: Path) -> None:
    renderer = load_renderer(tiny_model(tmp_path / "plain", chat=False))
    assert fitting(renderer, 1000, TALK, None, 10).turns == TALK[2:]

"""How a command ends when a signal comes at its very beginning or end."""

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
import typer

from smolt.cli import progress
from smolt.cli.outcomes import Outcome, deliver


@pytest.mark.parametrize("when", ["begins", "ends"])
def test_a_signal_while_a_command_begins_or_ends(
    when: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before its work and after it, where steps are set up and put away: 143 and a sentence, no traceback."""

    @contextlib.contextmanager
    def steps() -> Iterator[None]:
        if when == "begins":
            os.kill(os.getpid(), signal.SIGTERM)
        yield
        if when == "ends":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(progress, "steps_named", steps)
    with pytest.raises(typer.Exit) as left:
        deliver(lambda: Outcome({}, "done"), as_json=False)
    assert left.value.exit_code == 143
    assert capfd.readouterr().err.startswith("terminated")

"""A run in which nothing ends is named, with the place where it stands; one that goes on leaves nothing behind."""

import time
from pathlib import Path

import pytest

from smolt.runs import watchdog
from smolt.runs.identity import MANIFEST
from smolt.runs.watchdog import STALLED, Watchdog


@pytest.fixture(autouse=True)
def a_run(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).touch()


def hang_for(seconds: float) -> None:
    time.sleep(seconds)


def test_where_it_hangs_is_written_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Watchdog(tmp_path, least=0.3):
        hang_for(2.0)
    assert "in hang_for" in (tmp_path / STALLED).read_text()
    assert f"where it stands is in {tmp_path / STALLED}" in caplog.text


def test_a_run_that_goes_on_leaves_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Watchdog(tmp_path, least=5.0) as dog:
        for _ in range(3):
            dog.alive()
            assert not (tmp_path / STALLED).exists()  # nor an empty one while it runs
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]
    assert caplog.text == ""


def test_slow_updates_are_not_stalled_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update took 0.5 s; half as much again without one is nothing, although `least` is 0.1."""
    monkeypatch.setattr(watchdog, "USUAL", 10)
    with Watchdog(tmp_path, least=1.0) as dog:
        hang_for(0.5)
        dog.alive()
        hang_for(1.5)
    assert not (tmp_path / STALLED).exists()


def test_nothing_is_written_where_there_is_no_run(tmp_path: Path) -> None:
    """A directory that is somebody else's is refused later, by its own files."""
    (tmp_path / MANIFEST).unlink()
    with Watchdog(tmp_path, least=5.0):
        assert list(tmp_path.iterdir()) == []

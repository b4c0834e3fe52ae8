"""Free memory from files written by hand, and a refusal that leaves nothing behind."""

from pathlib import Path

import pytest

from smolt import memory
from smolt.cli.doctor import machine as examined
from smolt.errors import UserError
from smolt.memory import free_memory, refuse_what_cannot_fit
from tests.reliability.scenes import open_scene, write_inputs

MEMINFO = "MemTotal:       24000000 kB\nMemFree:         1000 kB\nMemAvailable:    3000 kB\n"


@pytest.mark.parametrize(
    ("available", "limit", "used", "expected"),
    [
        (MEMINFO, None, None, 3_072_000),
        (MEMINFO, "2000000\n", "500000\n", 1_500_000),
        (MEMINFO, "max\n", "500000\n", 3_072_000),  # a group without a limit
        (MEMINFO, "9000000\n", "500000\n", 3_072_000),
        (None, "2000000\n", "2500000\n", 0),
        (None, None, None, None),
    ],
)
def test_free_memory(
    available: str | None,
    limit: str | None,
    used: str | None,
    expected: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The smaller of what the system has and what the control group leaves."""
    places = {"meminfo": available, "max": limit, "current": used}
    for name, text in places.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "LIMITS", ((tmp_path / "max", tmp_path / "current"),))
    assert free_memory() == expected


def test_the_refusal_by_hand() -> None:
    """12 bytes each: 2^30 parameters are 12 GiB."""
    refuse_what_cannot_fit(2**30, 12 * 2**30)
    refuse_what_cannot_fit(2**30, None)
    with pytest.raises(UserError, match=r"1,073,741,824 trained parameters take 12.0 GiB, and 11.0 GiB are free: give"):
        refuse_what_cannot_fit(2**30, 11 * 2**30)


def test_nothing_is_written_by_a_training_that_cannot_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = write_inputs(tmp_path)
    monkeypatch.setattr("smolt.training.free_memory", lambda: 1000)
    with pytest.raises(UserError, match="memory: gradients and optimizer"):
        open_scene("sft-full", inputs, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_doctor_says_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 3 * 2**29)
    assert examined()["memory_free_gib"] == 1.5

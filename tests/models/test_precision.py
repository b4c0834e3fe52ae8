"""Precision and threads: chosen from rates by hand, measured within their time, kept by a continued run."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from smolt.cli.doctor import machine as examined
from smolt.config import Machine, Model
from smolt.models.forward import precision
from smolt.models.forward.precision import Rates, available, choose, closeness, measure, settle, thread_counts
from smolt.runs.chunks import SAID
from smolt.training.stage import Training
from smolt.training.stage_input import settled
from tests.reliability.scenes import open_scene, write_inputs
from tests.reliability.traces import traces


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({("fp32", 1): 50, ("fp32", 2): 90, ("bf16", 1): 150, ("bf16", 2): 290}, ("bf16", 2)),
        ({("fp32", 1): 50, ("fp32", 2): 90, ("bf16", 1): 60, ("bf16", 2): 107}, ("fp32", 2)),  # 1.19 times
        ({("fp32", 1): 50, ("fp32", 2): 90, ("bf16", 1): 60, ("bf16", 2): 108}, ("bf16", 2)),  # 1.2 times
        ({("fp32", 1): 50, ("fp32", 2): 30, ("bf16", 1): 2, ("bf16", 2): 3}, ("fp32", 1)),
        ({("fp32", 1): 95, ("fp32", 2): 99, ("fp32", 4): 100}, ("fp32", 1)),  # 95 % of the best with the fewest
        ({("fp32", 1): 94, ("fp32", 2): 96, ("fp32", 4): 100}, ("fp32", 2)),
        ({("bf16", 1): 10, ("bf16", 2): 20}, ("bf16", 2)),  # a dtype that was given
    ],
)
def test_the_choice_by_hand(rates: Rates, expected: tuple[str, int]) -> None:
    assert choose(rates) == expected


@pytest.mark.parametrize(("bf16", "close"), [(100, False), (110, True), (120, True), (135, True), (140, False)])
def test_a_close_choice_is_called_that(bf16: float, close: bool) -> None:
    """bf16 is taken from 1.2 times as fast on; 1.2 / 1.15 = 1.04 to 1.2 * 1.15 = 1.38 may fall on either side."""
    said = closeness({("fp32", 1): 60, ("fp32", 2): 100, ("bf16", 1): 70, ("bf16", 2): bf16})
    figures = f"bf16 {bf16:.0f} and fp32 100 GFLOP/s, {bf16 / 100:.2f} times as fast; bf16 is taken from 1.2 times on"
    flips = ": close, so that another start may choose otherwise (dtype: fp32 or bf16 fixes it)"
    assert said == figures + flips * close


def test_thread_counts() -> None:
    assert [thread_counts(most) for most in (1, 2, 3, 8, 12)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4, 8],
        [1, 2, 4, 8, 12],
    ]


def test_available_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """OMP_NUM_THREADS can only lower the number of cores."""
    for asked, expected in (("1", 1), ("2", 2), ("9", 4), ("", 4), ("0", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
        assert available() == expected


def test_a_recipe_s_threads_over_the_environment_s(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The recipe's number holds, and one line of a process says so; none where the two agree or one is silent."""
    given = Machine(device="cpu", dtype="fp32", threads=3)
    for asked, said in (("3", 0), ("", 0), ("5", 1), ("5", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert settled(given, None, True, (64, 128)) is given
        assert len(caplog.messages) == said
    assert caplog.messages == [
        "the recipe says 3 threads and OMP_NUM_THREADS 5: the recipe's are used; model.threads=5 changes that"
    ]


def test_measuring_leaves_threads_and_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair has a rate above 0; torch's threads and generator are as before."""
    monkeypatch.setattr(precision, "SECONDS", 0.0)
    before, state = torch.get_num_threads(), torch.get_rng_state()
    rates = measure(64, 128, ("fp32", "bf16"), (1, 2))
    assert sorted(rates) == [("bf16", 1), ("bf16", 2), ("fp32", 1), ("fp32", 2)]
    assert all(0 < rate < 1e6 for rate in rates.values())
    assert (torch.get_num_threads(), torch.equal(torch.get_rng_state(), state)) == (before, True)


def test_what_is_measured_and_what_is_not(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A narrow model stays fp32; what the recipe says stays as it says; one thread and one dtype need no measuring."""
    asked: list[Any] = []

    def fake(width: int, mlp: int, dtypes: tuple[str, ...], threads: tuple[int, ...]) -> Rates:
        asked.append((width, dtypes, threads))
        return {(dtype, count): 10 * count + (5 if dtype == "bf16" else 0) for dtype in dtypes for count in threads}

    monkeypatch.setattr(precision, "measure", fake)
    monkeypatch.setattr(precision, "available", lambda: 2)
    with caplog.at_level(SAID):
        assert settle("auto", None, 576, 1536) == ("bf16", 2)
        assert settle("auto", 1, 576, 1536) == ("bf16", 1)
    assert caplog.messages == ["bf16 on 2 threads, measured", "bf16 on 1 thread, measured"]
    asked.clear()
    assert settle("auto", None, 576, 1536) == ("bf16", 2)
    assert settle("auto", None, 64, 128) == ("fp32", 2)
    assert settle("fp32", None, 576, 1536) == ("fp32", 2)
    assert settle("auto", 1, 576, 1536) == ("bf16", 1)
    assert settle("auto", 1, 64, 128) == ("fp32", 1)
    assert asked == [
        (576, ("fp32", "bf16"), (1, 2)),
        (64, ("fp32",), (1, 2)),
        (576, ("fp32",), (1, 2)),
        (576, ("fp32", "bf16"), (1,)),
    ]


def test_a_pinned_block_is_left_alone(tmp_path: Path) -> None:
    """Not even the model is looked for."""
    model = Model(path="nowhere", dtype="bf16", threads=2)
    assert settled(model, tmp_path, False) is model


def test_the_manifest_decides_for_a_continued_run(tmp_path: Path) -> None:
    """bf16 on 3 threads stands there; a field that is given stays; fresh asks anew."""
    manifest = {"format": "smolt-run/1", "threads": 3, "dtype": "bf16"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    kept = settled(Machine(device="cpu"), tmp_path, False, (64, 128))
    assert (kept.dtype, kept.threads) == ("bf16", 3)
    assert settled(Machine(device="cpu", dtype="fp32"), tmp_path, False, (64, 128)).dtype == "fp32"
    assert settled(Machine(device="cpu", threads=1), tmp_path, True, (64, 128)).dtype == "fp32"


def test_a_run_keeps_its_choice_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started where bf16 is chosen, left after an update, continued where fp32 would be: as if never left."""
    inputs = write_inputs(tmp_path)

    def opened(out: str, dtype: str) -> Training:
        monkeypatch.setattr(precision, "settle", lambda *about: (dtype, 1))
        return open_scene("dpo-full", inputs, tmp_path / out)

    opened("whole", "bf16").finish()
    left = opened("left", "bf16")
    next(left)
    left.close()
    opened("left", "fp32").finish()
    assert traces(tmp_path / "left") == traces(tmp_path / "whole")
    assert json.loads((tmp_path / "left" / "manifest.json").read_text())["dtype"] == "bf16"
    opened("other", "fp32").finish()
    assert traces(tmp_path / "other") != traces(tmp_path / "whole")  # the control


def test_doctor_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {("fp32", 1): 50.0, ("fp32", 2): 90.0, ("bf16", 1): 150.0, ("bf16", 2): 290.0}
    monkeypatch.setattr(precision, "measure", lambda *about: rates)
    found = examined()
    assert found["gflops_by_threads"] == "fp32 on 1 50, fp32 on 2 90, bf16 on 1 150, bf16 on 2 290"
    why = "measured now, as a training measures at its start; bf16 290 and fp32 90 GFLOP/s, 3.22 times as fast"
    assert found["auto"] == f"bf16 on 2 (width 576, cpu): {why}; bf16 is taken from 1.2 times on"

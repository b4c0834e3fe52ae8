"""`smolt judge --url` with a judge that `smolt serve` answers for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from smolt.serving.engine import Engine
from tests.preferences.test_judge_command import judged, write_pairs
from tests.preferences.test_served import outcomes, trained
from tests.serving.conftest import serving

__all__ = ["trained"]
PAIRS = 12


@pytest.fixture
def url(trained: Path) -> Iterator[str]:
    """A server of the trained judge."""
    engine = Engine({"judge": trained}, slots=4)
    with serving(engine) as base:
        yield base
    engine.close()


def test_the_judge_behind_smolt_serve_says_what_it_says_here(trained: Path, url: str, tmp_path: Path) -> None:
    """12 pairs in both orders: soft labels, none failed, equal outcomes, labels within 1e-3 of the judge's here."""
    write_pairs(tmp_path / "pairs.jsonl", PAIRS)
    told: list[str | Path] = [tmp_path / "pairs.jsonl", "--rubric", trained.parents[1] / "rubric.yaml", "--probes", "0"]
    there = judged(*told, "--url", url, "--model", "judge", "--out", tmp_path / "there")
    here = judged(*told, "--model", trained, "--out", tmp_path / "here")
    assert (there["judged"], there["failures"], there["soft"]) == (PAIRS, 0, PAIRS)
    for first, second in zip(outcomes(tmp_path / "there"), outcomes(tmp_path / "here"), strict=True):
        assert first[0] == second[0]
        assert first[1] == pytest.approx(second[1], abs=1e-3)
    assert here["judged"] == PAIRS

"""The goldens are what the peers say today: re-captured live with `pytest -m peers` (extra `peers`)."""

from typing import Any

import pytest

from tests.parity.capture import CAPTURES, capture, golden
from tests.parity.cases import TRL_VERSION

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


def assert_same(found: Any, stored: Any, path: str) -> None:
    """Equal structure and settings, numbers equal to 1e-5."""
    if isinstance(stored, dict):
        assert sorted(found) == sorted(stored), path
        for key in stored:
            assert_same(found[key], stored[key], f"{path}.{key}")
    elif isinstance(stored, list):
        assert len(found) == len(stored), path
        for index, (one, other) in enumerate(zip(found, stored, strict=True)):
            assert_same(one, other, f"{path}[{index}]")
    elif isinstance(stored, float):
        assert found == pytest.approx(stored, rel=1e-5, abs=1e-5), path
    else:
        assert found == stored, path


@pytest.mark.parametrize("name", CAPTURES)
def test_goldens_are_reproduced(name: str) -> None:
    trl = pytest.importorskip("trl")
    if trl.__version__ != TRL_VERSION:
        pytest.skip(f"the goldens are TRL {TRL_VERSION}'s, here is {trl.__version__}")
    assert_same(capture(name)["cases"], golden(name)["cases"], name)

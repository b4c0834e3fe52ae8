"""The benchmark's own arithmetic: medians, what is compared with what, and flags that are refused."""

import pytest
from bench import growth
from bench.against_trl import WORKS, Measured, arguments, compare, table
from bench.measuring import peak_memory, processor

DPO = WORKS["dpo"]
OURS = Measured("smolt", "reference in the update", [3.0, 1.0, 2.0], 4 * 2**30)
CACHED = Measured("smolt", "reference cached", [1.0], 4 * 2**30)
WHOLE = Measured("TRL", "micro-batch 8", [9.0, 8.0], 10 * 2**30)
SMALL = Measured("TRL", "micro-batch 2", [5.0, 5.0, 100.0], 2 * 2**30)


def test_the_median_counts() -> None:
    """2 of 3, 1, 2; 8.5 of 9, 8; one slow update does not move it."""
    assert [part.median for part in (OURS, WHOLE, SMALL)] == [2.0, 8.5, 5.0]


def test_the_peers_fastest_setting_is_compared_with_ours_without_a_cache() -> None:
    """5 / 2 = 2.5 against the fastest, 8.5 / 2 = 4.25 and 10 / 4 = 2.5 of the memory against the whole batch."""
    assert compare([OURS, CACHED, WHOLE, SMALL], DPO) == {
        "fastest_trl": "micro-batch 2",
        "speedup_over_fastest": 2.5,
        "aim_over_fastest": 2.5,
        "memory_of_fastest": 0.5,
        "speedup_over_whole_batch": 4.25,
        "aim_over_whole_batch": 5,
        "memory_of_whole_batch": 2.5,
    }


def test_nothing_is_compared_with_nothing() -> None:
    """A side that could not be measured leaves no ratio behind."""
    assert compare([OURS, CACHED], DPO) == {}
    assert compare([WHOLE], DPO) == {}
    assert "x smolt" not in table({"works": {"dpo": {"rows": [OURS.row()]}}})


def test_the_table_shows_seconds_gibibytes_and_aims() -> None:
    """2.00 s and 4.00 GiB; 4.25 beside its aim of 5, with 4 / 10 of the memory."""
    rows = {"rows": [OURS.row(), WHOLE.row()], **compare([OURS, WHOLE], DPO)}
    lines = table({"works": {"dpo": rows}}).splitlines()
    assert lines[1].split()[-2:] == ["2.00", "4.00"]
    assert lines[3] == "  TRL (the update as one batch) takes 4.25 x smolt's time (aim 5); memory 40% of it"


@pytest.mark.parametrize("given", [["--updates", "0"], ["--micro-batches", "3"], ["--layer", "x"], ["ppa"]])
def test_flags_that_mean_nothing_are_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(given)
    assert ended.value.code == 2
    assert "against_trl" in capsys.readouterr().err


def test_what_the_machine_says_of_itself() -> None:
    """This process holds between 10 MiB and 1 TiB; the processor has a name."""
    assert 10 * 2**20 < peak_memory() < 2**40
    assert processor()


@pytest.mark.slow
def test_growth_measures_what_it_says() -> None:
    """On one layer: ratios of positive seconds, and a share between 0 and 1."""
    figures = growth.run(["--layers", "1", "--vocabulary", "64", "--threads", "1"])["figures"]
    assert set(growth.AIMS) < set(figures)
    assert all(value > 0 for value in figures.values())
    assert figures["tiny_share_outside_operators"] < 1

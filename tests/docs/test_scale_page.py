"""The page on scale: its tables are what bench/scale.py prints, and that is arithmetic on measured parts."""

import runpy
from pathlib import Path

import pyarrow.parquet
import pytest
from bench import scale

from smolt.study.jobs import StudyJob
from tests.docs.workshop import ROOT, blocks

PAGE = ROOT / "docs" / "why" / "scale.md"


def test_its_tables_are_the_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """Every line of every table, as printed."""
    scale.tables()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 4 + 5 + 5 + 6 + 9
    shown = set(PAGE.read_text(encoding="utf-8").splitlines())
    assert [row for row in rows if row not in shown] == []


def test_the_parts_stand_in_the_files_they_are_from() -> None:
    """Seconds of an update in the table of 2026-11-25, of a decoding step in that of 2026-11-30."""
    trl = (ROOT / "bench" / "results" / "2026-11-25-epyc-2-cores.md").read_text(encoding="utf-8")
    for algorithm in scale.ALGORITHMS.values():
        assert f" | {algorithm.seconds:.2f}, " in trl
    assert "10.1 % of an update's 0.29 s" in trl
    decoding = (ROOT / "bench" / "results" / "2026-11-30-decoding.md").read_text(encoding="utf-8")
    for answers, seconds in scale.STEPS.items():
        assert f"| bf16 | {answers} | {1000 * seconds:.1f} (" in decoding


def test_a_ring_of_two_and_of_four() -> None:
    """1 GB at 1 GB/s: each of 2 sends it once in 2 messages, each of 4 one and a half times in 6."""
    assert scale.reducing(10**9, 1, 1e9) == 0.0
    assert scale.reducing(10**9, 2, 1e9) == pytest.approx(1 + 2 * scale.LATENCY)
    assert scale.reducing(10**9, 4, 1e9) == pytest.approx(1.5 + 6 * scale.LATENCY)


def test_decoding_between_measured_steps() -> None:
    """Half way from 16 to 64 answers; 100 answers are 64 and 36."""
    assert scale.step(40) == pytest.approx((0.0325 + 0.0891) / 2)
    assert scale.sampling(100) == pytest.approx(96 * (0.0891 + 0.0325 + (0.0891 - 0.0325) * 20 / 48))


def test_jobs_are_scheduled_as_parts_take_them() -> None:
    """a (3 s), then b (2 s) and c (1 s), then d (1 s) after both: 7 s for one part, 6 for two and for nine."""
    needs = {"a": "", "b": "a", "c": "a", "d": "bc"}
    jobs = [StudyJob(name, name, 0, frozenset(before)) for name, before in needs.items()]
    seconds = {"a": 3.0, "b": 2.0, "c": 1.0, "d": 1.0}
    assert [scale.scheduled(jobs, seconds, parts) for parts in (1, 2, 9)] == [7.0, 6.0, 6.0]


def test_full_weights_of_one_billion_parameters() -> None:
    """16 bytes a parameter, a half of that on each of two shards, whatever is activated."""
    shape = scale.shapes()["1.2B (Llama 3.2)"]
    whole, half = (scale.held(shape, 1, True, shards) for shards in (1, 2))
    state = ("weights", "gradients", "moments")
    assert sum(whole[part] for part in state) == 16 * shape.parameters == 16 * 1_235_814_400
    assert sum(half[part] for part in state) == 8 * shape.parameters
    assert whole["gathered"] == 0 < half["gathered"]


def test_its_program_writes_what_verl_reads(workshop: Path) -> None:
    """A row a question: messages, and the solution that a rule compares with."""
    (program,) = (block.text for block in blocks(PAGE, "python"))
    (workshop / "to_verl.py").write_text(program, encoding="utf-8")
    runpy.run_path("to_verl.py")
    rows = pyarrow.parquet.read_table("train.parquet").to_pylist()
    assert len(rows) == 24
    assert rows[0]["prompt"] == [{"role": "user", "content": "What is 1 + 1?"}]
    assert rows[0]["reward_model"] == {"style": "rule", "ground_truth": "2"}
    assert set(rows[0]) == {"data_source", "prompt", "ability", "reward_model", "extra_info"}

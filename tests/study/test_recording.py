"""What is kept of a training's own answers: its reward's parts at the end."""

from smolt.recording.learning import late_parts
from smolt.report import LatePart


def rows(values: dict[int, list[float | None]]) -> list[dict[str, object]]:
    return [{"step": step, "components": {"gsm8k": value}} for step in values for value in values[step]]


def test_the_last_quarter_of_the_updates() -> None:
    """Of 8 updates the last two: 3 answers with the part, one of them 0, two at 1; 2 was reached only before."""
    early: dict[int, list[float | None]] = {step: [0.5] for step in range(1, 7)}
    found = late_parts(rows({**early, 7: [1.0, 0.0], 8: [1.0, None]}))
    assert found == {"gsm8k": LatePart(7, 8, 3, 1, 0.0, 1.0, 2)}
    found = late_parts(rows({**early, 1: [2.0, -1.0], 7: [1.0, 0.0], 8: [1.0]}))
    assert found == {"gsm8k": LatePart(7, 8, 3, 1, -1.0, 2.0, 0)}


def test_a_part_that_abstained_at_the_end_is_absent() -> None:
    assert late_parts(rows({1: [1.0], 2: [None]})) == {}
    assert late_parts([]) == {}


def test_of_three_updates_the_last_one() -> None:
    assert late_parts(rows({1: [0.0], 2: [0.0], 3: [1.0]})) == {"gsm8k": LatePart(3, 3, 1, 0, 0.0, 1.0, 1)}

"""Numbers of rated decisions that no answer carries: the calibration error, before and after a temperature."""

from collections.abc import Sequence

from smolt.evaluation.decided.rated_decisions import RAW
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics.calibration import calibration_change, calibration_error
from smolt.statistics.nouns import Measure


def calibration(items: Sequence[RatedAnswer]) -> dict[str, Measure]:
    """Calibration error of all answers; where they have a temperature, also without it, and the difference."""
    states = [state_of(item) for item in items]
    right, stated, raw = (
        [item.components.get(name) for item in items] for name in ("right", "confidence", f"{RAW}confidence")
    )
    found = {"ece": calibration_error(known(stated), known(right), states)}
    if None not in raw:
        found["ece_without_temperature"] = calibration_error(known(raw), known(right), states)
        found["ece_change"] = calibration_change(known(raw), known(stated), known(right), states)
    return {name: measure for name, measure in found.items() if measure is not None}


def known(values: Sequence[float | None]) -> list[float]:
    """Parts that every answer has."""
    return [value for value in values if value is not None]


def state_of(item: RatedAnswer) -> str:
    """What an answer shares with the others about its state."""
    return item.key.rpartition("/")[0]


def part(items: Sequence[RatedAnswer], name: str) -> list[float]:
    """A part of the answers that carry it."""
    return known([item.components.get(name) for item in items])

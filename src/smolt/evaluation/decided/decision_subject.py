"""Decisions as a measurement: a model asked, each question rated, a temperature fitted on other decisions if asked."""

from collections.abc import Sequence
from typing import Any

from smolt.config import Data, Model
from smolt.data import Decision
from smolt.errors import UserError
from smolt.evaluation.decided.asked_decisions import opened
from smolt.evaluation.decided.decided_measures import calibration
from smolt.evaluation.decided.decision_panel import decision_panel
from smolt.evaluation.decided.rated_decisions import BRIER
from smolt.evaluation.tasks import Subject
from smolt.models.ground import Ground
from smolt.models.items import records_of, require_expected, too_long_policy
from smolt.rewards.llm_judge.decider import which_fit
from smolt.runs.chunks import Work
from smolt.runs.rated_answers import RatedAnswer, as_row, from_row

CHUNK = 64  # decisions between two checkpoints


def deciding(
    model: Model, ground: Ground, data: Data | Sequence[Decision], too_long: str = "error", dev: str | None = None
) -> Subject:
    """Prepare decisions.

    Args:
        model: who decides.
        ground: the same, opened.
        data: decisions, each question with what is expected.
        too_long: what happens to decisions that exceed the window.
        dev: a file of other decisions, on which a temperature for each type of question is fitted.

    Raises:
        UserError: nobody said what is expected, or `dev` holds decisions that are measured.
    """
    records, digest, place = records_of(data, "decisions")
    for record in records:
        require_expected(record, place)
    others, dev_digest = _others(dev, records)
    fitting = [record for record, fits in zip(records, which_fit(ground, records), strict=True) if fits]
    if len(fitting) < len(records) and (too_long_policy(data, too_long) == "error" or not fitting):
        long = next(record.id for record in records if record not in fitting)
        raise UserError(
            f"{place}: {len(records) - len(fitting)} of {len(records)} decisions exceed the window of {ground.window} "
            f"tokens, {long} the first; leave them out, counted, with too_long: drop (--too-long drop)"
        )

    def open_work() -> Work:
        decide = opened(model.path, ground.precision, others)

        def work(places: range) -> list[dict[str, Any]]:
            return [as_row(answer) for answer in decide(fitting[places.start : places.stop])]

        return work

    def items(rows: list[dict[str, Any]]) -> list[RatedAnswer]:
        return [from_row(row) for row in rows]

    return Subject(
        total=len(fitting),
        chunk=CHUNK,
        sha256=digest,
        too_long=len(records) - len(fitting),
        facts={"dev": dev_digest},
        open_work=open_work,
        measures=lambda rows: calibration(items(rows)),
        notes=[BRIER],
        items=items,
        panels=lambda rows: [decision_panel({"model": items(rows)}, fitting)],
    )


def _others(dev: str | None, records: Sequence[Decision]) -> tuple[list[Decision], str | None]:
    if dev is None:
        return [], None
    data = Data(path=dev)
    found, digest, place = records_of(data, "decisions")
    for record in found:
        require_expected(record, place)
    measured = {record.text for record in records}
    shared = sum(record.text in measured for record in found)
    if shared:
        raise UserError(
            f"dev: {dev}: {shared} of its states are among those measured; a temperature is fitted on others"
        )
    return found, digest

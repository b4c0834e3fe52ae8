"""Which answers a report shows side by side: a choice that nobody made by hand."""

import hashlib
from dataclasses import dataclass
from typing import Literal

from smolt.report import wording
from smolt.report.analysis import Analysis
from smolt.report.pairing import paired, rated, rating
from smolt.report.record import Arm, StudyRecord
from smolt.runs.rated_answers import RatedAnswer

PER_OUTCOME = 5
MOST_ARMS = 4
Outcome = Literal["win", "regression", ""]


@dataclass(frozen=True)
class Sample:
    """One question with the answers of some arms; the outcome is that of the best candidate against the baseline."""

    outcome: Outcome
    answers: list[tuple[Arm, RatedAnswer]]

    @property
    def question(self) -> RatedAnswer:
        """An item that carries the question (any of them does)."""
        return self.answers[0][1]


def choose(record: StudyRecord, analysis: Analysis) -> list[Sample]:
    """Up to PER_OUTCOME wins and as many regressions of the best candidate, the first by SHA-256 of the question's key.

    Without a candidate, as many questions of the first arm that has answers.
    """
    arms = {arm.name: arm for arm in record.arms if arm.items}
    if not arms:
        return []
    if analysis.best is None or record.baseline not in arms:
        first = next(iter(arms.values()))
        return [Sample("", _row(list(arms.values()), first, item)) for item in _in_order(first.items)[:PER_OUTCOME]]
    baseline, best = arms[record.baseline], arms[analysis.best]
    others = [arm for name, arm in arms.items() if name not in (baseline.name, best.name)]
    others.sort(key=lambda arm: arm.role != "candidate")
    outcomes: dict[Outcome, list[RatedAnswer]] = {"win": [], "regression": []}
    for pair in paired(baseline, best):
        for before, after, _ in rated([pair], analysis.headline):
            if before != after:
                outcomes["win" if after > before else "regression"].append(pair[1])
    return [
        Sample(outcome, _row([baseline, best, *others], best, item))
        for outcome, items in outcomes.items()
        for item in _in_order(items)[:PER_OUTCOME]
    ]


def known_of(item: RatedAnswer, metric: str) -> list[str]:
    """What is known of one answer, in a few words each: right or wrong and its reward, its length.

    Of an answer without the report's metric that it has none, where the metric is a verdict.
    """
    parts = [] if item.correct is None else ["right" if item.correct else "wrong"]
    reward = rating(item, "reward")
    if reward is not None:
        parts.append(f"reward {reward:.3g}")
    if not parts and metric in ("accuracy", "reward"):
        parts = [f"no {metric}"]
    length = wording.counted(item.tokens, "token") + ("" if item.stopped else ", cut off")
    return [*filter(None, (", ".join(parts), length))]


def _in_order(items: list[RatedAnswer]) -> list[RatedAnswer]:
    """One item for each question, in the order of the hash of its key."""
    first = {item.key: item for item in reversed(items)}
    return [first[key] for key in sorted(first, key=_digest)]


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "backslashreplace")).hexdigest()


def _row(arms: list[Arm], shown: Arm, item: RatedAnswer) -> list[tuple[Arm, RatedAnswer]]:
    """The answers of up to four arms to the item's question; of `shown` the item itself."""
    row = []
    for arm in arms:
        same = next((other for other in arm.items if other.key == item.key), None)
        if same is not None:
            row.append((arm, item if arm.name == shown.name else same))
    return row[:MOST_ARMS]

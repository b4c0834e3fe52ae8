"""A decision's answers as rated answers, one a question: right or not, and the proper scores as the reward's parts."""

import json
import math
from collections.abc import Mapping, Sequence

from smolt.data import Decision
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics.proper_scores import brier, fitted_temperature, log_score

BRIER = "the reward is the Brier score with a minus: 0 is best, and more is better"
RAW = "raw_"
"""Before the name of a part without the temperature."""

Decided = Sequence[Sequence[float]]
"""For each question the log-probability of each option."""


def rated(decision: Decision, logprobs: Decided, temperature: Mapping[str, float] | None = None) -> list[RatedAnswer]:
    """Rate what was decided.

    The reward is the Brier score with a minus, so that more is better. Parts: brier, log_score (nats), confidence (the
    probability of the answer), right (the probability that it is expected), of a score off_by (levels between the
    expected levels); with `raw_` before brier and confidence what they are without the temperature.

    Args:
        decision: each question says what is expected.
        logprobs: of each question's options.
        temperature: by type of question, contained in these log-probabilities; None where there is none.
    """
    found = []
    for question, row in zip(decision.questions, logprobs, strict=True):
        expected, chances = question.expected or (), [math.exp(value) for value in row]
        best = max(range(len(chances)), key=chances.__getitem__)
        parts: dict[str, float | None] = {
            "brier": brier(chances, expected),
            "log_score": log_score(chances, expected),
            "confidence": chances[best],
            "right": expected[best],
        }
        if question.type == "score":
            parts["off_by"] = abs(
                sum(level * (p - e) for level, (p, e) in enumerate(zip(chances, expected, strict=True)))
            )
        if temperature is not None:
            raw = shares([value * temperature.get(question.type, 1.0) for value in row])
            parts |= {f"{RAW}brier": brier(raw, expected), f"{RAW}confidence": max(raw)}
        found.append(
            RatedAnswer(
                question_id=f"{decision.id}/{question.name}",
                question=f"{_text(question.instructions)} {decision.text}".strip(),
                kind=question.type,
                answer=question.options[best],
                tokens=0,
                stopped=True,
                correct=expected[best] == max(expected),
                reward=-brier(chances, expected),
                components=parts,
                reference_solution=question.options[max(range(len(expected)), key=expected.__getitem__)],
            )
        )
    return found


def shares(scores: Sequence[float]) -> list[float]:
    """The softmax of some scores."""
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    return [weight / sum(weights) for weight in weights]


def cooled(decision: Decision, logprobs: Decided, temperature: Mapping[str, float]) -> list[list[float]]:
    """Log-probabilities under a temperature for each type of question."""
    return [
        [
            math.log(max(share, 1e-300))
            for share in shares([value / temperature.get(question.type, 1.0) for value in row])
        ]
        for question, row in zip(decision.questions, logprobs, strict=True)
    ]


def temperatures(decisions: Sequence[Decision], decided: Sequence[Decided]) -> dict[str, float]:
    """The temperature of the least log score for each type of question that has enough of them."""
    rows = [
        (question, row)
        for decision, answers in zip(decisions, decided, strict=True)
        for question, row in zip(decision.questions, answers, strict=True)
    ]
    kinds = dict.fromkeys(question.type for question, _ in rows)
    own = {kind: [(row, question.expected or ()) for question, row in rows if question.type == kind] for kind in kinds}
    fitted = {kind: fitted_temperature(*zip(*of, strict=True)) for kind, of in own.items()}
    return {kind: round(value, 4) for kind, value in fitted.items() if value is not None}


def _text(instructions: object) -> str:
    return "" if instructions is None else instructions if isinstance(instructions, str) else json.dumps(instructions)

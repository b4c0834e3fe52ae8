"""What models answer to decisions, and models with a head for them: those of a class `...ForDecision`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, pipeline
from transformers.models.auto import modeling_auto

from smolt.data import Decision
from smolt.models.forward.precision import Precision
from smolt.models.forward.quiet import hushed, read_by_library
from smolt.models.locating import Located
from smolt.models.saving import weights_hash

TINY = 1e-300

Decided = list[tuple[float, ...]]
"""For each question of a decision the log-probability of each option, in their order."""


@dataclass(frozen=True)
class Decider:
    """Who decides.

    Attributes:
        identity: what its answers are a function of, besides the decision; JSON values.
        temperature: of each type of question, contained in its answers; 1 where there is none.
        decide: answers in order; None for a decision that exceeds the window.
        window: most tokens of a state and a question.
    """

    identity: dict[str, Any]
    temperature: Mapping[str, float]
    decide: Callable[[Sequence[Decision]], list[Decided | None]]
    window: int


def tempered(scores: Sequence[float], temperature: float) -> tuple[float, ...]:
    """Log-probabilities of options from their scores, divided by a temperature > 0."""
    divided = [score / temperature for score in scores]
    highest = max(divided)
    total = highest + math.log(sum(math.exp(score - highest) for score in divided))
    return tuple(score - total for score in divided)


def has_own_head(located: Located) -> bool:
    """Whether it is of a class `...ForDecision`, saved as such or with the head's files beside its weights."""
    with read_by_library(f"model.path: {located.base}"):
        config = AutoConfig.from_pretrained(located.base, trust_remote_code=False)
    if any(name.endswith("ForDecision") for name in config.architectures or []):
        return True
    known = getattr(modeling_auto, "MODEL_FOR_DECISION_MAPPING", {}).get(type(config), None)
    return known is not None and any(
        (Path(located.base) / name).is_file() for name in known.config_class.extra_config_files
    )


def by_its_head(located: Located, precision: Precision) -> Decider:
    """Ask it through transformers' own pipeline."""
    with read_by_library(f"model.path: {located.base}"), hushed():
        asked = pipeline("decision", model=located.base, dtype=precision.dtype, device=precision.device)

    def decide(decisions: Sequence[Decision]) -> list[Decided | None]:
        with hushed():
            return [from_answers(decision, asked(decision.request)) for decision in decisions]

    temperature = {kind: float(value) for kind, value in asked.decision_config.temperature.items()}
    identity = {"model": weights_hash(located), "dtype": str(precision.dtype)}
    return Decider(identity, temperature, decide, 2**31)


def from_answers(decision: Decision, answers: Mapping[str, Any]) -> Decided:
    """The answers of `pipeline("decision")` or `/v1/systemone`.

    Raises:
        KeyError, TypeError, ValueError: they are not of that form.
    """
    found = []
    for question in decision.questions:
        answer = answers[question.name]
        if question.type == "noul":
            values = [float(answer["noul"]), 1 - float(answer["noul"])]
        else:
            values = [float(answer["probabilities"][option]) for option in question.options]
        found.append(tuple(math.log(max(value, TINY)) for value in values))
    return found

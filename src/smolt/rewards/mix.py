"""Several rewards as one: the weighted sum, with every part in sight."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smolt.data import Answer, Question, Score
from smolt.errors import UserError
from smolt.rewards.rules import Reward


@dataclass(frozen=True)
class Part:
    """A reward with its name in the record and its weight in the sum."""

    name: str
    weight: float
    reward: Reward


def mix(parts: Sequence[Part], cap: float | None = None) -> Reward:
    """The weighted sum of rewards, clipped to [-cap, cap] when a cap is given.

    Components: `<part>`, its value before the weight, and `<part>.<component>`. When a part abstains, so does the sum
    (its other parts stay in the components), with the reason "<part>: ...".

    Raises:
        UserError: no parts, two of one name, or a weight that is not finite.
    """
    names = [part.name for part in parts]
    if not parts:
        raise UserError("reward: needs at least one part")
    if len(set(names)) < len(names):
        raise UserError(f"reward: two parts have the same name: {', '.join(names)}")
    for part in parts:
        if not math.isfinite(part.weight):
            raise UserError(f"reward {part.name}: weight: must be a finite number, not {part.weight}")

    def reward(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Score]:
        columns = [part.reward(questions, answers) for part in parts]
        return [_combined(parts, scores, cap) for scores in zip(*columns, strict=True)]

    return reward


def told(reasons: Mapping[str, int]) -> str:
    """Why answers got no score: the commonest reason, with its count where there are others."""
    reason, count = max(reasons.items(), key=lambda item: item[1])
    return reason if len(reasons) == 1 else f"{count:,} of {sum(reasons.values()):,}: {reason}"


def _combined(parts: Sequence[Part], scores: Sequence[Score], cap: float | None) -> Score:
    """The score of one answer."""
    components: dict[str, float | None] = {}
    missing: list[str] = []
    remarks: list[str] = []
    total = 0.0
    for part, score in zip(parts, scores, strict=True):
        components[part.name] = score.value
        components |= {f"{part.name}.{name}": value for name, value in score.components.items()}
        if score.value is None:
            missing.append(f"{part.name}: {score.reason or 'abstained'}")
        else:
            total += part.weight * score.value
            remarks += [f"{part.name}: {score.reason}"] if score.reason else []
    if missing:
        return Score(None, components, "; ".join(missing))
    if cap is not None:
        total = min(cap, max(-cap, total))
    return Score(total, components, "; ".join(remarks))

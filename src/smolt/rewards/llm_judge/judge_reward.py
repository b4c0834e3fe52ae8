"""The reward part named judge: a judge of words as the rater of one answer at a time."""

from pathlib import Path

from smolt.config import Judging, RewardPart, make_block
from smolt.errors import UserError
from smolt.models.forward.precision import Precision
from smolt.models.locating import locate
from smolt.models.saving import is_reward_model
from smolt.rewards import Reward
from smolt.rewards.llm_judge.asking import Asker, grading, remembering
from smolt.rewards.llm_judge.endpoint import open_endpoint
from smolt.rewards.llm_judge.local import open_local
from smolt.rewards.llm_judge.rubrics import load_rubric


def judge_reward(part: RewardPart, precision: Precision, verdicts: Path | None = None) -> Reward:
    """Direct RLAIF: a judge's expected grade of each answer, in [-1, 1].

    Args:
        part: `path` is a language model on this machine, or `options.endpoint` an endpoint; options are the other
            fields of a judge.
        precision: of a judge on this machine.
        verdicts: a file in which an endpoint's replies are kept, so that none is asked for twice.

    Raises:
        UserError: an unknown option, or a judge that gives no grades.
    """
    settings = make_block(Judging, path=part.path, **part.options)
    if settings.rule is not None or (settings.path is not None and is_scorer(settings)):
        raise UserError("reward judge: a rule or a reward model is a reward by itself; write its name instead of judge")
    asker = open_asker(settings, precision)
    if verdicts is not None and settings.endpoint is not None:
        asker = remembering(asker, verdicts)
    return grading(asker, load_rubric(settings.rubric), settings.rationale > 0)


def open_asker(settings: Judging, precision: Precision) -> Asker:
    """Who answers the prompts of a judge of words: a model here, or an endpoint."""
    if settings.endpoint is not None:
        return open_endpoint(settings.endpoint, settings.rationale)
    return open_local(str(settings.path), precision, settings.rationale)


def is_scorer(settings: Judging) -> bool:
    """Whether the path holds a reward model; `kind` may insist on one or the other."""
    found = is_reward_model(locate(str(settings.path)))
    if settings.kind in ("local", "model") and found != (settings.kind == "model"):
        what = "a reward model" if found else "a language model"
        raise UserError(f"judge.kind: {settings.path} is {what}; write kind: {'model' if found else 'local'}")
    return found

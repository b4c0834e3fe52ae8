"""The reward part named judge: a judge of words as the rater of one answer at a time."""

import logging
from pathlib import Path
from statistics import fmean

from smolt import statistics
from smolt.config import Endpoint, Judging, RewardPart, make_block
from smolt.data import Answer, Question, Turn
from smolt.errors import UserError
from smolt.models.forward.precision import Precision
from smolt.models.locating import locate
from smolt.models.saving import is_reward_model
from smolt.rewards import Reward
from smolt.rewards.llm_judge.asking import Asker, grading, remembering
from smolt.rewards.llm_judge.decider import deciding
from smolt.rewards.llm_judge.decision_reward import decision_question, decision_reward
from smolt.rewards.llm_judge.endpoint import open_endpoint
from smolt.rewards.llm_judge.local import open_local
from smolt.rewards.llm_judge.rubrics import load_rubric
from smolt.rewards.llm_judge.systemone import open_server

LOG = logging.getLogger(__name__)

RIGHT = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("How many days does a week have?", "A week has seven days."),
    ("What is 7 times 8?", "7 times 8 is 56."),
    ("Why should I wash my hands?", "Washing your hands removes germs, so that you and others do not fall ill."),
    ("Name three primary colours.", "Red, yellow and blue."),
    ("What do bees make?", "Bees make honey, and they pollinate plants."),
    ("How do I boil an egg?", "Put it into boiling water for eight to ten minutes, then cool it in cold water."),
    ("Which planet do we live on?", "We live on the planet Earth."),
)
"""Questions with plain right answers, for a judge to be tried on."""

GARBAGE = (
    "qwz plim vv vv vv",
    "((((;;;; 000 ((((;;;; 000",
    "the the the the the the the the the the",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit.",
    "xk3 xk3 xk3 xk3 xk3 xk3 xk3",
    "no table of moreover yellow then then if",
    "zzzzzzzzzzzzzzzzzzzzzzzzzzzz",
    "<div><div><div></div> null null undefined",
)
"""Answers to nothing."""


def judge_reward(part: RewardPart, precision: Precision, verdicts: Path | None = None) -> Reward:
    """Direct RLAIF: a judge's expected grade of each answer, in [-1, 1].

    Args:
        part: `path` is a language model on this machine, or `options.endpoint` an endpoint; options are the other
            fields of a judge.
        precision: of a judge on this machine.
        verdicts: a file in which an endpoint's replies are kept, so that none is asked for twice.

    Raises:
        UserError: an unknown option, a judge that gives no grades, or one not shown to grade right ones above garbage
            (unless its `gate` is open).
    """
    settings = make_block(Judging, path=part.path, **part.options)
    if settings.rule is not None or (settings.path is not None and is_scorer(settings)):
        raise UserError("reward judge: a rule or a reward model is a reward by itself; write its name instead of judge")
    asker = open_asker(settings, precision)
    if verdicts is not None and settings.remote is not None:
        asker = remembering(asker, verdicts)
    reward = grading(asker, load_rubric(settings.rubric), settings.rationale > 0)
    if settings.gate:
        refuse_coin(reward, asker.name)
    return reward


def decision_part(part: RewardPart, precision: Precision, verdicts: Path | None = None) -> Reward:
    """The part named decision: `path` is a model on this machine or an address, the options are the question.

    Raises:
        UserError: the question or the model is none.
    """
    question, good = decision_question(part.options)
    settings = make_block(Judging, decision=part.path)
    asker = open_asker(settings, precision)
    if verdicts is not None and settings.remote is not None:
        asker = remembering(asker, verdicts)
    return decision_reward(asker, question, good)


def refuse_coin(reward: Reward, name: str) -> None:
    """Try a judge before anything is learned from it: eight plain right answers, and garbage to the same questions.

    Raises:
        UserError: it grades no right answer, or is not shown to grade them above garbage.
    """
    LOG.info("trying the judge on right answers and on garbage")
    questions = [Question((Turn("user", asked),)) for asked, _ in RIGHT]
    right, garbage = (
        [None if score.value is None else float(score.components["grade"] or 0) for score in reward(questions, texts)]
        for texts in ([plain_answer(text) for _, text in RIGHT], [plain_answer(text) for text in GARBAGE])
    )
    pairs = [(low or 0.0, high) for low, high in zip(garbage, right, strict=True) if high is not None]
    opened = "take another judge, or write gate: false to learn from it all the same"
    if not pairs:
        raise UserError(f"reward judge: {name}: gave no readable grade to any of {len(RIGHT)} right answers; {opened}")
    lows, highs = zip(*pairs, strict=True)
    found = statistics.compare("garbage", "right answers", "grade", lows, highs)
    if not statistics.shown(found) or (found.difference or 0.0) <= 0:
        raise UserError(
            f"reward judge: {name}: is not shown to grade right answers ({fmean(highs):.1f} of 10 on average) above "
            f"garbage ({fmean(lows):.1f}): {found.sentence} {opened[0].upper()}{opened[1:]}"
        )


def plain_answer(text: str) -> Answer:
    """A text as an answer that ended by itself."""
    return Answer(text, len(text.split()) + 1, True)


def open_asker(settings: Judging, precision: Precision) -> Asker:
    """Who answers the prompts of a judge of words, or the decisions of one that decides: a model here, or a server."""
    if isinstance(settings.decision, Endpoint):
        return open_server(settings.decision)
    if settings.decision is not None:
        return deciding(settings.decision, precision)
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

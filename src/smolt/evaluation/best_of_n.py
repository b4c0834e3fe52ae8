"""Best-of-n: of n answers to each question the one that a learned reward model likes best; the others are kept too."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from smolt.config import BestOfNRecipe, RewardPart
from smolt.evaluation.exam import CHUNK, Exam, Tell, as_item, as_row, rated, require_same, silent
from smolt.evaluation.questions import unrated
from smolt.models.answers import draw_answers
from smolt.models.conditions import conditions_of
from smolt.models.ground import Ground
from smolt.models.roles import Policy
from smolt.report.record import Item
from smolt.rewards.learned import learned_reward
from smolt.runs import atomic_write


@dataclass(frozen=True)
class Candidate:
    """One of the n answers to a question.

    Attributes:
        item: the answer; only the chosen one is rated where the exam's reward is not to rate all.
        score: the reward model's; None where it abstained.
        chosen: whether its score is the highest of the n.
    """

    item: Item
    score: float | None
    chosen: bool


def best_of_n(
    exam: Exam, recipe: BestOfNRecipe, policy: Policy, ground: Ground, rate_all: bool = False, tell: Tell = silent
) -> list[Candidate]:
    """The n answers to each question in turn; the model that chooses does not see the solution.

    Args:
        exam: questions and rater.
        recipe: how many answers, and who chooses.
        policy: who answers.
        ground: of the policy.
        rate_all: the exam's reward rates all n answers and not the chosen one alone.
        tell: hears how many questions are answered.

    Raises:
        UserError: as for `take`.
    """
    require_same(exam, ground)
    judge = learned_reward(
        RewardPart(name="model", path=recipe.reward_model, options={"refused": True}), ground.precision
    )
    limits = recipe.sampling
    drawing = conditions_of(ground.renderer, limits.max_tokens).drawing(limits.temperature, limits.batch)
    counter = (recipe.seed, exam.seed)
    candidates: list[Candidate] = []
    for start in range(0, len(exam.questions), CHUNK):
        asked = exam.questions[start : start + CHUNK]
        found = draw_answers(policy, ground.renderer, asked, recipe.n, drawing, counter, start)
        scores = [score.value for score in judge(found.questions, found.answers)]
        values = [float("-inf") if score is None else score for score in scores]
        chosen = {max(range(n * recipe.n, (n + 1) * recipe.n), key=values.__getitem__) for n in range(len(asked))}
        items = rated(exam if rate_all else replace(exam, reward=unrated), found.questions, found.answers)
        if not rate_all:
            places = sorted(chosen)
            for place, own in zip(places, rated(exam, asked, [found.answers[n] for n in places]), strict=True):
                items[place] = own
        candidates += [
            Candidate(item, score, place in chosen)
            for place, (item, score) in enumerate(zip(items, scores, strict=True))
        ]
        tell(start + len(asked), len(exam.questions))
    return candidates


def write_candidates(path: Path, candidates: Sequence[Candidate]) -> None:
    """One row an answer, the n answers to a question one after another; the file whole or absent."""
    rows = [as_row(one.item) | {"score": one.score, "chosen": one.chosen} for one in candidates]
    atomic_write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_candidates(path: Path) -> list[Candidate]:
    """Rows written by `write_candidates`."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    return [Candidate(as_item(row), row["score"], row["chosen"]) for row in rows]

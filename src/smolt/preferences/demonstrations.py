"""Demonstrations from answers: a larger model's (black-box distillation), or the best of a policy's own.

The second is rejection sampling: answer several times, keep what a reward likes best, imitate it, and begin again with
the model that came of it (RAFT, 2304.06767). What was answered is kept as it comes and not asked for again.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from smolt.config import AnswersRecipe
from smolt.data import Answer, Demonstration, Question, Score
from smolt.data.writing import write_demonstrations
from smolt.errors import UserError
from smolt.models.answers import Answered, rated_answers
from smolt.models.forward.precision import choose_precision
from smolt.models.ground import Ground, open_ground
from smolt.models.items import asked_questions, records_of
from smolt.preferences.best_answers import chosen
from smolt.preferences.written_answers import written
from smolt.rewards.build import mixed_reward
from smolt.rewards.llm_judge.cache import VERDICTS
from smolt.rewards.llm_judge.endpoint import CUT
from smolt.runs.chunks import Progress
from smolt.runs.rated_answers import write_rated

LOG = logging.getLogger(__name__)
UNHEARD = 0.2  # share of answers that may be missing
CANDIDATES = "candidates.jsonl"


def make_demonstrations(
    recipe: AnswersRecipe, folder: Path, tell: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Ask, rate and write `demonstrations.jsonl` into a directory; all answers lie beside it in `candidates.jsonl`.

    Returns:
        How many questions were asked, how many answers came and what became of them, tokens, and what they cost.

    Raises:
        UserError: nothing came of it, or the model behind the address is gone.
    """
    ground = None if recipe.model is None else open_ground(recipe.model)
    questions = asked_by(recipe, ground)
    asked = [question for question in questions for _ in range(recipe.samples)]
    replies = written(recipe, ground, questions, folder, tell)
    answers = [Answer(reply.text, reply.tokens[1], reply.reason != CUT) for reply in replies]
    scores = [Score(None)] * len(answers)
    if recipe.reward is not None:
        precision = choose_precision("auto", "auto") if ground is None else ground.precision
        LOG.info("rating %d answers", len(answers))
        scores = mixed_reward(recipe.reward, precision, folder / VERDICTS)(asked, answers)
    found = Answered(asked, answers, torch.full((len(answers),), torch.nan))
    rows = rated_answers(found, scores, recipe.seed)
    kept = chosen(rows, None if recipe.reward is None else recipe.keep, recipe.least)
    write_rated(folder / CANDIDATES, [replace(row, chosen=n in kept) for n, row in enumerate(rows)])
    facts: dict[str, Any] = {
        "questions": len(questions),
        "answers": len(answers),
        "demonstrations": len(kept),
        "cut": sum(not answer.stopped for answer in answers),
        "unreached": sum(reply.status == "unreached" for reply in replies),
        "tokens": [sum(reply.tokens[side] for reply in replies) for side in (0, 1)],
    }
    if recipe.endpoint is not None and recipe.endpoint.price is not None:
        facts["cost"] = sum(n * price / 1e6 for n, price in zip(facts["tokens"], recipe.endpoint.price, strict=True))
    if facts["unreached"] > UNHEARD * len(answers):
        raise UserError(f"{recipe.name}: no reply came to {facts['unreached']} of {len(answers)} requests")
    if not kept:
        raise UserError(
            f"{recipe.name}: none of {len(answers)} answers to {len(questions)} questions can be imitated: "
            f"{facts['cut']} ran into sampling.max_tokens, the others are empty, without a reward or below `least`"
        )
    write_demonstrations(
        folder / "demonstrations.jsonl", [Demonstration(asked[n].context, answers[n].text) for n in kept]
    )
    return facts


def asked_by(recipe: AnswersRecipe, ground: Ground | None) -> list[Question]:
    """The questions; those that leave room for an answer, where the model's window is known."""
    if ground is not None:
        longest = recipe.sampling.max_tokens
        return asked_questions(recipe.data, ground.renderer, ground.window, longest).questions[: recipe.limit]
    records, _, _ = records_of(recipe.data, "questions")
    return [one if one.id else replace(one, id=str(n)) for n, one in enumerate(records)][: recipe.limit]

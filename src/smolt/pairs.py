"""Preferences from a policy's own answers: for each question the best and the worst become a pair, if they differ."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from smolt.answers import draw_answers
from smolt.conditions import conditions_of
from smolt.config import PairsRecipe
from smolt.errors import UserError
from smolt.learned import mixed_reward
from smolt.preparation import open_ground, question_list
from smolt.records import Preference, Question, Score, write_preferences
from smolt.saving import load_policy

CHUNK = 256


def make_pairs(
    recipe: PairsRecipe, folder: Path, tell: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Sample, judge and write `preferences.jsonl` into a directory.

    Questions whose answers are all rated alike give no pair; both are counted.

    Returns:
        How many questions were asked and how many pairs came of them.
    """
    ground = open_ground(recipe.model)

    reward = mixed_reward(recipe.reward, ground.precision)
    questions, _, _ = question_list(recipe.data, ground.renderer, ground.window, recipe.sampling.max_tokens)
    policy = load_policy(recipe.model.path, ground.precision)
    limits = recipe.sampling
    drawing = conditions_of(ground.renderer, limits.max_tokens).drawing(limits.temperature, limits.batch)
    pairs: list[Preference] = []
    asked = 0
    for start in range(0, len(questions), CHUNK):
        chunk = questions[start : start + CHUNK]
        found = draw_answers(policy, ground.renderer, chunk, recipe.samples, drawing, (recipe.seed,), start)
        answers = found.answers
        scores = reward(found.questions, answers)
        for number, question in enumerate(chunk):
            rows = slice(number * recipe.samples, (number + 1) * recipe.samples)
            pair = best_and_worst(question, [answer.text for answer in answers[rows]], scores[rows])
            pairs += [pair] if pair is not None else []
        asked += len(chunk)
        tell(asked, len(questions))
        if recipe.limit is not None and len(pairs) >= recipe.limit:
            pairs = pairs[: recipe.limit]
            break
    if not pairs:
        raise UserError(
            f"{recipe.name}: none of {asked} questions gave a pair: all {recipe.samples} answers to each were rated "
            "alike; raise samples or sampling.temperature, or train the policy first"
        )
    write_preferences(folder / "preferences.jsonl", pairs)
    return {"questions": asked, "pairs": len(pairs), "judge": [part.name for part in recipe.reward.parts]}


def best_and_worst(question: Question, texts: list[str], scores: list[Score]) -> Preference | None:
    """The first best answer over the first worst one; None where all rated answers are rated alike."""
    rated = [(score.value, text) for score, text in zip(scores, texts, strict=True) if score.value is not None]
    if len(rated) < 2:
        return None
    best, worst = max(rated, key=lambda row: row[0]), min(rated, key=lambda row: row[0])
    return None if best[0] == worst[0] else Preference(question.context, best[1], worst[1])

"""Preferences from a policy's own answers: by a reward, the best over the worst; or by a judge, two by two."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from smolt.config import Judging, PairsRecipe, RewardMix
from smolt.data import Answer, Preference, Question, Score, write_preferences
from smolt.errors import UserError
from smolt.models.answers import draw_answers
from smolt.models.conditions import conditions_of
from smolt.models.ground import Ground, open_ground
from smolt.models.items import asked_questions
from smolt.models.saving import load_policy
from smolt.preferences.judges.both_orders import Pair
from smolt.preferences.judges.labelling import label
from smolt.preferences.judges.opening import open_judge
from smolt.rewards.build import mixed_reward
from smolt.rewards.learned import learned_reward
from smolt.rewards.llm_judge.cache import VERDICTS, VerdictCache
from smolt.rewards.mix import told
from smolt.runs.chunks import Progress

LOG = logging.getLogger(__name__)
CHUNK = 256
UNHEARD = 0.2  # share of pairs that may stay without a judge's reply

Made = TypeVar("Made", Preference, Pair)


def make_pairs(recipe: PairsRecipe, folder: Path, tell: Progress = lambda done, total: None) -> dict[str, Any]:
    """Sample, judge and write `preferences.jsonl` into a directory; a judge's card lies beside it.

    Questions whose answers are all rated alike give no pair; both are counted.

    Returns:
        How many questions were asked and how many pairs came of them, and a judge's figures.

    Raises:
        UserError: no pair came of it, or the judge is gone.
    """
    ground = open_ground(recipe.model)
    if recipe.judge is not None:
        return _judged(recipe, recipe.judge, ground, folder, tell)
    if recipe.reward is None:
        raise RuntimeError("neither reward nor judge")
    return _rated(recipe, recipe.reward, ground, folder, tell)


def _rated(recipe: PairsRecipe, mix: RewardMix, ground: Ground, folder: Path, tell: Progress) -> dict[str, Any]:
    """The best over the worst answer to each question."""
    reward = mixed_reward(mix, ground.precision)
    silent: Counter[str] = Counter()

    def made(questions: list[Question], answers: list[list[Answer]]) -> list[Preference]:
        LOG.info("rating %d answers", sum(map(len, answers)))
        repeated = [question for question in questions for _ in range(recipe.samples)]
        scores = reward(repeated, [answer for own in answers for answer in own])
        silent.update(score.reason for score in scores if score.value is None)
        rows = [scores[number * recipe.samples : (number + 1) * recipe.samples] for number in range(len(questions))]
        texts = [[answer.text for answer in own] for own in answers]
        return [pair for row in zip(questions, texts, rows, strict=True) if (pair := best_and_worst(*row)) is not None]

    pairs, asked = gathered(recipe, ground, made, tell)
    if not pairs and silent:
        raise UserError(
            f"{recipe.name}: none of {asked} questions gave a pair: {silent.total()} of {asked * recipe.samples} "
            f"answers got no reward ({told(silent)})"
        )
    if not pairs:
        raise UserError(
            f"{recipe.name}: none of {asked} questions gave a pair: all {recipe.samples} answers to each were rated "
            "alike; raise samples or sampling.temperature, or train the policy first"
        )
    write_preferences(folder / "preferences.jsonl", pairs)
    return {"questions": asked, "pairs": len(pairs), "judge": [part.name for part in mix.parts]}


def _judged(recipe: PairsRecipe, settings: Judging, ground: Ground, folder: Path, tell: Progress) -> dict[str, Any]:
    """Answers two by two, each pair in both orders; what is said is kept as it comes and not asked for again."""
    judge = open_judge(settings, ground.precision, lambda part: learned_reward(part, ground.precision))
    gold = None if recipe.gold is None else mixed_reward(recipe.gold, ground.precision)

    def made(questions: list[Question], answers: list[list[Answer]]) -> list[Pair]:
        rows = zip(questions, answers, strict=True)
        found = [pair for question, own in rows for pair in two_by_two(question, [answer.text for answer in own])]
        if gold is None:
            return found
        asked = [pair.question for pair in found]
        scores = [gold(asked, [as_answer(text) for text in texts]) for texts in _sides(found)]
        return [with_gold(*row) for row in zip(found, *scores, strict=True)]

    pairs, asked = gathered(recipe, ground, made, tell)
    with VerdictCache(folder / VERDICTS) as cache:
        name = f"judge-{recipe.name}".replace("_", "-").replace(".", "-")
        facts = label(judge, pairs, settings, cache, folder, lambda what, done, total: tell(done, total), name)
    if facts["unreached"] > UNHEARD * len(pairs):
        raise UserError(f"{recipe.name}: the judge gave no reply to {facts['unreached']} of {len(pairs)} pairs")
    if not facts["preferences"]:
        raise UserError(
            f"{recipe.name}: none of {len(pairs)} pairs of {asked} questions was decided: {facts['ties']} ties, "
            f"{facts['abstentions']} abstentions, {facts['failures']} failures; the judge's card is in {folder}"
        )
    return {"questions": asked, "pairs": facts["preferences"], "judge": [judge.name], "card": facts}


def gathered(
    recipe: PairsRecipe,
    ground: Ground,
    made: Callable[[list[Question], list[list[Answer]]], list[Made]],
    tell: Progress,
) -> tuple[list[Made], int]:
    """What `made` makes of questions and the policy's answers to each, until there is enough of it.

    Returns:
        At most `recipe.limit` pairs, and how many questions were asked.
    """
    limits = recipe.sampling
    questions = asked_questions(recipe.data, ground.renderer, ground.window, limits.max_tokens).questions
    policy = load_policy(recipe.model.path, ground.precision)
    drawing = conditions_of(ground.renderer, limits.max_tokens).drawing(limits.temperature, limits.batch)
    pairs: list[Made] = []
    done = 0
    while done < len(questions) and (recipe.limit is None or len(pairs) < recipe.limit):
        chunk = questions[done : done + CHUNK]
        answers = draw_answers(policy, ground.renderer, chunk, recipe.samples, drawing, (recipe.seed,), done).answers
        pairs += made(chunk, [answers[at : at + recipe.samples] for at in range(0, len(answers), recipe.samples)])
        done += len(chunk)
        tell(done, len(questions))
    return pairs[: recipe.limit], done


def best_and_worst(question: Question, texts: list[str], scores: list[Score]) -> Preference | None:
    """The first best answer over the first worst one; None where all rated answers are rated alike."""
    rated = [(score.value, text) for score, text in zip(scores, texts, strict=True) if score.value is not None]
    if len(rated) < 2:
        return None
    best, worst = max(rated, key=lambda row: row[0]), min(rated, key=lambda row: row[0])
    return None if best[0] == worst[0] else Preference(question.context, best[1], worst[1])


def two_by_two(question: Question, texts: list[str]) -> list[Pair]:
    """The first answer with the second, the third with the fourth, ...; equal ones are no pair."""
    couples = zip(texts[::2], texts[1::2], strict=False)
    return [Pair(question, first, second) for first, second in couples if first != second]


def with_gold(pair: Pair, first: Score, second: Score) -> Pair:
    """The pair with what a reward says of it: 1, 0, or 0.5 where it rates both alike; None where it abstains."""
    if first.value is None or second.value is None:
        return pair
    label = 0.5 if first.value == second.value else float(first.value > second.value)
    return Pair(pair.question, pair.first, pair.second, label, pair.writers)


def as_answer(text: str) -> Answer:
    """An answer of which only the text is kept."""
    return Answer(text, len(text.split()), True)


def _sides(pairs: list[Pair]) -> tuple[list[str], list[str]]:
    return [pair.first for pair in pairs], [pair.second for pair in pairs]

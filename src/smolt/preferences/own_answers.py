"""Preferences from a policy's own answers: by a reward, the best over the worst; or by a judge, two by two."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from smolt.config import Judging, PairsRecipe, RewardMix
from smolt.data import Answer, Preference, Question, Score, write_preferences
from smolt.errors import UserError
from smolt.models.answers import draw_answers
from smolt.models.conditions import conditions_of
from smolt.models.ground import Ground, open_ground
from smolt.models.items import question_list
from smolt.models.saving import load_policy
from smolt.preferences.judges.both_orders import Pair
from smolt.preferences.judges.labelling import label
from smolt.preferences.judges.opening import open_judge
from smolt.rewards.build import mixed_reward
from smolt.rewards.learned import learned_reward
from smolt.rewards.llm_judge.cache import VERDICTS, VerdictCache

CHUNK = 256
UNHEARD = 0.2  # share of pairs that may stay without a judge's reply

Tell = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """A question and the policy's answers to it, with how many of how many questions are done."""

    question: Question
    answers: list[Answer]
    done: int
    total: int


def make_pairs(recipe: PairsRecipe, folder: Path, tell: Tell = lambda done, total: None) -> dict[str, Any]:
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


def _rated(recipe: PairsRecipe, mix: RewardMix, ground: Ground, folder: Path, tell: Tell) -> dict[str, Any]:
    """The best over the worst answer to each question."""
    reward = mixed_reward(mix, ground.precision)

    def apart(chunk: list[Asked]) -> list[Preference]:
        questions = [one.question for one in chunk for _ in one.answers]
        scores = iter(reward(questions, [answer for one in chunk for answer in one.answers]))
        found = [
            best_and_worst(one.question, [answer.text for answer in one.answers], [next(scores) for _ in one.answers])
            for one in chunk
        ]
        return [pair for pair in found if pair is not None]

    pairs, asked = gather(recipe, ground, tell, apart)
    if not pairs:
        raise UserError(
            f"{recipe.name}: none of {asked} questions gave a pair: all {recipe.samples} answers to each were rated "
            "alike; raise samples or sampling.temperature, or train the policy first"
        )
    write_preferences(folder / "preferences.jsonl", pairs)
    return {"questions": asked, "pairs": len(pairs), "judge": [part.name for part in mix.parts]}


def _judged(recipe: PairsRecipe, settings: Judging, ground: Ground, folder: Path, tell: Tell) -> dict[str, Any]:
    """Answers two by two, each pair in both orders; what is said is kept as it comes and not asked for again."""
    judge = open_judge(settings, ground.precision, lambda part: learned_reward(part, ground.precision))
    gold = None if recipe.gold is None else mixed_reward(recipe.gold, ground.precision)

    def couples(chunk: list[Asked]) -> list[Pair]:
        found = [pair for one in chunk for pair in two_by_two(one.question, [answer.text for answer in one.answers])]
        if gold is not None:
            questions = [pair.question for pair in found]
            scores = [gold(questions, [as_answer(text) for text in texts]) for texts in _sides(found)]
            found = [with_gold(*row) for row in zip(found, *scores, strict=True)]
        return found

    pairs, asked = gather(recipe, ground, tell, couples)
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


def gather(
    recipe: PairsRecipe, ground: Ground, tell: Tell, pairs_of: Callable[[list[Asked]], list[T]]
) -> tuple[list[T], int]:
    """Pairs of the policy's answers until there are `recipe.limit`, and how many questions were asked for them."""
    pairs: list[T] = []
    asked = 0
    for chunk in ask(recipe, ground):
        pairs += pairs_of(chunk)
        asked = chunk[-1].done
        tell(asked, chunk[-1].total)
        if recipe.limit is not None and len(pairs) >= recipe.limit:
            break
    return pairs[: recipe.limit], asked


def ask(recipe: PairsRecipe, ground: Ground) -> Iterator[list[Asked]]:
    """The policy's answers, chunk by chunk of the questions."""
    limits = recipe.sampling
    questions, _, _ = question_list(recipe.data, ground.renderer, ground.window, limits.max_tokens)
    policy = load_policy(recipe.model.path, ground.precision)
    drawing = conditions_of(ground.renderer, limits.max_tokens).drawing(limits.temperature, limits.batch)
    for start in range(0, len(questions), CHUNK):
        chunk = questions[start : start + CHUNK]
        answers = draw_answers(policy, ground.renderer, chunk, recipe.samples, drawing, (recipe.seed,), start).answers
        rows = [answers[number * recipe.samples : (number + 1) * recipe.samples] for number in range(len(chunk))]
        done = start + len(chunk)
        yield [Asked(question, own, done, len(questions)) for question, own in zip(chunk, rows, strict=True)]


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

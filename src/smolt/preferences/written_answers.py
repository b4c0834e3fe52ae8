"""A model's answers as they come, here or behind an address: what is kept already is not asked for again."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from smolt.config import AnswersRecipe
from smolt.data import Question
from smolt.data.nouns import as_messages
from smolt.models.answers import as_answers
from smolt.models.conditions import conditions_of
from smolt.models.ground import Ground
from smolt.models.sampling import sample
from smolt.models.saving import load_policy
from smolt.rewards.llm_judge.asking import Asker, Reply
from smolt.rewards.llm_judge.cache import VERDICTS, VerdictCache, asked_once
from smolt.rewards.llm_judge.endpoint import CUT, open_writer
from smolt.runs.chunks import Progress

CHUNK = 64  # questions between two times that a local model's answers are kept


def written(
    recipe: AnswersRecipe, ground: Ground | None, questions: Sequence[Question], folder: Path, tell: Progress
) -> list[Reply]:
    """The answers in order, `samples` to each question; those that are kept already are not asked for again."""
    limits = recipe.sampling
    if ground is not None:
        writer = _local_writer(recipe, ground, questions)
    else:
        assert recipe.endpoint is not None  # a recipe has one of the two
        writer = open_writer(recipe.endpoint, limits.max_tokens, limits.temperature)
    wanted = [(place, number) for place in range(len(questions)) for number in range(recipe.samples)]
    keys = [_key(writer, questions[place], place, number) for place, number in wanted]
    items = wanted if ground is not None else [questions[place].context for place, _ in wanted]
    found: dict[str, Reply] = {}
    with VerdictCache(folder / VERDICTS) as cache:
        for part in asked_once(cache, keys, items, writer.ask, Reply):
            found |= part
            tell(len(found), len(keys))
    return [found[key] for key in keys]


def _local_writer(recipe: AnswersRecipe, ground: Ground, questions: Sequence[Question]) -> Asker:
    """A model on this machine as one behind an address: asked for places of questions and numbers of answers."""
    assert recipe.model is not None
    policy, limits, renderer = load_policy(recipe.model.path, ground.precision), recipe.sampling, ground.renderer
    drawing = conditions_of(renderer, limits.max_tokens).drawing(limits.temperature, limits.batch)

    def ask(wanted: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, Reply]]]:
        places = list(dict.fromkeys(place for place, _ in wanted))
        for start in range(0, len(places), CHUNK):
            some = places[start : start + CHUNK]
            contexts = renderer.contexts([questions[place].context for place in some])
            answers = as_answers(sample(policy, contexts, recipe.samples, drawing, (recipe.seed,), ids=some), renderer)
            rows = {
                (place, number): len(contexts[n]) for n, place in enumerate(some) for number in range(recipe.samples)
            }
            said = {
                row: Reply(reason="" if answer.stopped else CUT, text=answer.text, tokens=(read, answer.tokens))
                for (row, read), answer in zip(rows.items(), answers, strict=True)
            }
            yield [(at, said[row]) for at, row in enumerate(wanted) if row in said]

    identity = {**ground.identity, "seed": recipe.seed, "samples": recipe.samples, **limits.model_dump()}
    return Asker(recipe.model.path, identity, ask)


def _key(writer: Asker, question: Question, place: int, number: int) -> str:
    content = json.dumps([writer.identity, as_messages(question.context), place, number], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()

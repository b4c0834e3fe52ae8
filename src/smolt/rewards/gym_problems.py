"""Problems of reasoning-gym as questions: made from a seed, each with a verifier of its own (an optional package).

A question's id says how its problem is made again, so a file of questions needs nothing else for its verifier. Only
problems of one turn are there. A verifier that runs what an answer says as a program's text is refused by name.
"""

import inspect
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from smolt.config.complaints import suggestion
from smolt.data import Question, Turn
from smolt.errors import UserError

MARK = "gym:"
RUNS = re.compile(r"\b(parse_expr|sympify|eval|exec)\(")
"""In a verifier's module: it may run an answer's text."""


def gym_questions(name: str, size: int, seed: int, settings: Mapping[str, Any]) -> list[Question]:
    """So many problems of one kind.

    Args:
        name: reasoning-gym's, such as chain_sum.
        size: how many.
        seed: of the problems.
        settings: the kind's own, such as {"min_terms": 4}.

    Raises:
        UserError: the package is missing, there is no such kind or setting, or its verifier is not safe.
    """
    made = {"name": name, "size": size, "seed": seed, **settings}
    data = _problems(json.dumps(made, sort_keys=True))
    questions = []
    for index in range(size):
        entry = data[index]
        told = json.dumps({**made, "index": index}, sort_keys=True)
        context = (Turn("user", str(entry["question"])),)
        questions.append(Question(context, str(entry["answer"]), MARK + told, name))
    return questions


def gym_score(question: Question, answer: str) -> float:
    """What the verifier of a question's kind gives an answer, 0 to 1.

    Raises:
        UserError: the package is missing, or makes another problem than the one that was asked.
        ValueError: the question is none of reasoning-gym's.
    """
    if not question.id.startswith(MARK):
        raise ValueError("the question is none of reasoning-gym's (smolt data gym makes them)")
    made = json.loads(question.id.removeprefix(MARK))
    index = made.pop("index")
    data = _problems(json.dumps(made, sort_keys=True))
    entry = data[index]
    if not question.context or question.context[-1].content.strip() != str(entry["question"]).strip():
        raise UserError(
            f"reward gym: {question.id}: the installed reasoning-gym makes another problem of it; make the questions "
            "again with smolt data gym"
        )
    return float(data.score_answer(answer, entry))


@lru_cache(maxsize=64)
def _problems(made: str) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ModuleNotFoundError as missing:
        raise UserError(
            f"reasoning-gym is not installed ({missing.name} is missing): pip install 'smolt-align[reasoning-gym]'"
        ) from None
    settings = json.loads(made)
    name = settings.pop("name")
    if name not in DATASETS:
        raise UserError(f"gym: {name}: reasoning-gym has no such problems" + suggestion(name, sorted(DATASETS)))
    if RUNS.search(inspect.getsource(inspect.getmodule(DATASETS[name][0]) or DATASETS[name][0])):
        raise UserError(f"gym: {name}: its verifier may run an answer's text as code; take other problems")
    try:
        return reasoning_gym.create_dataset(name, **settings)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"gym: {name}: {error}") from None

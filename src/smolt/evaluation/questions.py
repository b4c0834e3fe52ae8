"""Questions as a measurement: answered, rated, counted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from smolt.config import Data, EvaluationSampling, Model, RewardMix, make_block
from smolt.data import Question
from smolt.data.numbers import extract
from smolt.errors import UserError
from smolt.evaluation.exam import answering_work, open_exam, unrated
from smolt.evaluation.measures import answer_measures
from smolt.evaluation.tasks import Subject, Task
from smolt.models.answers import refuse_greedy_copies
from smolt.models.conditions import departures, trained_under
from smolt.models.ground import Ground
from smolt.rewards import python_reward
from smolt.rewards.build import mixed_reward
from smolt.rewards.rules import Reward
from smolt.runs.rated_answers import from_row

MAX_TOKENS = 256  # where neither the user nor the model's training says how long an answer may be


def answering(
    model: Model,
    ground: Ground,
    task: Task,
    data: Data | Sequence[Question],
    reward: RewardMix | Callable[..., Any] | None,
    drawing: Mapping[str, Any],
    samples: int,
    seed: int,
    too_long: str,
) -> Subject:
    """Prepare questions.

    Args:
        model: who answers.
        ground: the same, opened.
        task: brings raters of its own.
        data: the questions.
        reward: further raters, or a function (see rewards.python_reward).
        drawing: an EvaluationSampling; without max_tokens that of the model's training holds, else 256.
        samples: answers to each question.
        seed: of the draws.
        too_long: "error" or "drop", for questions in memory.

    Raises:
        UserError: what is asked for makes no sense, or no question has a solution where the task compares with one.
    """
    refuse_greedy_copies(samples, drawing["temperature"])
    trained = trained_under(model.path)
    longest = drawing["max_tokens"] or int(trained.get("max_tokens", MAX_TOKENS))
    sampling = make_block(EvaluationSampling, **{**drawing, "max_tokens": longest})
    exam = open_exam(ground, data, None, sampling, samples, seed, too_long=too_long)
    solutions = [question.solution for question in exam.questions if question.solution is not None]
    if task.rules and not any(extract(solution).value is not None for solution in solutions):
        raise UserError(
            f"task {task.name}: none of the {len(exam.questions)} questions has a number as its solution, so no answer "
            "could be right; take the task answers, with a --reward if there is one"
        )
    rater, said = raters(task, reward, ground)
    exam = replace(exam, reward=rater)
    changed = departures(trained, exam.conditions)
    return Subject(
        total=len(exam.questions),
        chunk=exam.chunk,
        sha256=exam.sha256,
        too_long=exam.too_long,
        facts={
            "conditions": exam.conditions.record(),
            "sampling": sampling.model_dump(mode="json"),
            "samples": samples,
            "seed": seed,
            "reward": said,
        },
        open_work=answering_work(exam, model, ground),
        measures=lambda rows: answer_measures([from_row(row) for row in rows], samples),
        items=lambda rows: [from_row(row) for row in rows],
        notes=[
            *(f"{line}: measured under other conditions than it was trained in" for line in changed),
            *([] if said else ["nobody rated the answers: name a task with a verifier (gsm8k), or a reward"]),
        ],
    )


def raters(task: Task, reward: RewardMix | Callable[..., Any] | None, ground: Ground) -> tuple[Reward, Any]:
    """Who rates the answers, and how a manifest says it: the task's own rules first, then what the user adds."""
    if callable(reward) and not isinstance(reward, RewardMix):
        if task.rules:
            raise UserError(f"reward: the task {task.name} has a verifier of its own; take the task answers")
        return python_reward(reward), "(in memory)"
    own = [make_block(RewardMix, parts=[name]).parts[0] for name in task.rules]
    asked = [part for part in (reward.parts if reward else ()) if part not in own]
    if not own and not asked:
        return unrated, None
    mix = make_block(RewardMix, parts=[*own, *asked], cap=None if reward is None else reward.cap)
    return mixed_reward(mix, ground.precision), mix.model_dump(mode="json")

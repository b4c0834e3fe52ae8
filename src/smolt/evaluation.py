"""Measuring models on questions: answers by the one renderer and sampler, rated by one reward, one row an answer."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from smolt.config import BestOfNRecipe, Data, EvaluationSampling, Model, RewardMix, RewardPart
from smolt.groups import Groups, without_gradient
from smolt.learned import learned_reward, mixed_reward
from smolt.models import Policy
from smolt.numerics import answer_sums
from smolt.preparation import Ground, open_ground, question_list
from smolt.records import Answer, Question, Score
from smolt.report import Arm, Item, StudyRecord, write_report
from smolt.report.analysis import analyse
from smolt.report.records import plain
from smolt.runs import atomic_write
from smolt.sampling import Drawing, sample
from smolt.saving import load_policy
from smolt.streams import Reward, as_answers

CHUNK = 256  # questions answered between two progress reports
KL_QUESTIONS = 256  # questions on which the KL to the reference is measured, by answers drawn at temperature 1
KL_STAGE = 1_000_003  # a counter that sets these draws apart from all others
CORRECT = ".correct"


Tell = Callable[[int, int], None]
"""Hears how many of how many questions are answered; may raise to end it there."""


def silent(done: int, total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Exam:
    """The same questions, limits and rater for every arm.

    Attributes:
        questions: in order; an arm answers all of them.
        sampling: how; temperature 0 is greedy.
        samples: answers to each.
        reward: who rates.
        seed: of the draws.
    """

    questions: list[Question]
    sampling: EvaluationSampling
    samples: int
    reward: Reward
    seed: int


def open_exam(
    ground: Ground,
    data: Data,
    reward: RewardMix,
    sampling: EvaluationSampling,
    samples: int,
    seed: int,
    items: int | None,
) -> Exam:
    """Read the questions and build the rater, once for all arms."""
    questions, _, _ = question_list(data, ground.renderer, ground.window, sampling.max_tokens)
    rater = mixed_reward(reward, ground.precision)
    return Exam(questions[:items], sampling, samples, rater, seed)


def take(exam: Exam, policy: Policy, ground: Ground, tell: Tell = silent) -> list[Item]:
    """A policy's rated answers to all questions of the exam."""
    drawing = Drawing(
        exam.sampling.max_tokens, exam.sampling.temperature, exam.sampling.batch, ground.renderer.stop_ids
    )
    items: list[Item] = []
    for start in range(0, len(exam.questions), CHUNK):
        asked = exam.questions[start : start + CHUNK]
        contexts = [ground.renderer.context(question.context) for question in asked]
        ids = list(range(start, start + len(asked)))
        groups = sample(policy, contexts, exam.samples, drawing, (exam.seed,), ids=ids)
        items += rated(exam, [asked[owner] for owner in groups.owners], as_answers(groups, ground.renderer))
        tell(start + len(asked), len(exam.questions))
    return items


def rated(exam: Exam, questions: Sequence[Question], answers: Sequence[Answer]) -> list[Item]:
    """Answers as rows of a report."""
    scores = exam.reward(questions, answers)
    return [
        Item(
            question_id=question.id,
            question=question.context[-1].content if question.context else "",
            kind=question.kind,
            answer=answer.text,
            tokens=answer.tokens,
            stopped=answer.stopped,
            correct=correctness(score),
            reward=score.value,
            components=score.components,
            reference_solution=question.solution,
            seed=exam.seed,
        )
        for question, answer, score in zip(questions, answers, scores, strict=True)
    ]


def correctness(score: Score) -> bool | None:
    """What a verifier among the parts found, None without one."""
    for name, value in score.components.items():
        if name.endswith(CORRECT) and value is not None:
            return value == 1.0
    return None


def best_of_n(exam: Exam, recipe: BestOfNRecipe, policy: Policy, ground: Ground, tell: Tell = silent) -> list[Item]:
    """For each question the answer a learned reward model likes best among n: it does not see the solution."""
    judge = learned_reward(
        RewardPart(name="model", path=recipe.reward_model, options={"refused": True}), ground.precision
    )
    limits = recipe.sampling
    drawing = Drawing(limits.max_tokens, limits.temperature, limits.batch, ground.renderer.stop_ids)
    items: list[Item] = []
    for start in range(0, len(exam.questions), CHUNK):
        asked = exam.questions[start : start + CHUNK]
        contexts = [ground.renderer.context(question.context) for question in asked]
        groups = sample(
            policy, contexts, recipe.n, drawing, (recipe.seed, exam.seed), ids=range(start, start + len(asked))
        )
        answers = as_answers(groups, ground.renderer)
        scores = judge([asked[owner] for owner in groups.owners], answers)
        values = [float("-inf") if score.value is None else score.value for score in scores]
        chosen = [max(range(n * recipe.n, (n + 1) * recipe.n), key=values.__getitem__) for n in range(len(asked))]
        items += rated(exam, asked, [answers[index] for index in chosen])
        tell(start + len(asked), len(exam.questions))
    return items


def kl_to(reference: Policy, policy: Policy, exam: Exam, ground: Ground) -> list[float]:
    """Sequence KL(policy || reference), k1 in nats, of one answer at temperature 1 to each of the first questions."""
    contexts = [ground.renderer.context(question.context) for question in exam.questions[:KL_QUESTIONS]]
    drawing = Drawing(exam.sampling.max_tokens, 1.0, exam.sampling.batch, ground.renderer.stop_ids)
    groups: Groups = sample(policy, contexts, 1, drawing, (exam.seed, KL_STAGE))
    tokens = policy.trunk.micro_tokens(2.0)
    own = without_gradient(groups, tokens, lambda part: policy(part)[0])
    other = without_gradient(groups, tokens, lambda part: reference(part)[0])
    values: list[float] = answer_sums(own - other, groups.mask).tolist()
    return values


def write_items(path: Path, items: Sequence[Item]) -> None:
    """One row an answer, the file whole or absent."""
    atomic_write(path, "".join(json.dumps(plain(asdict(item)), ensure_ascii=False) + "\n" for item in items))


def read_items(path: Path) -> list[Item]:
    """Rows written by `write_items`."""
    with path.open(encoding="utf-8", newline="\n") as lines:  # not splitlines: an answer may hold other line separators
        return [Item(**json.loads(line)) for line in lines]


def evaluate_model(
    model: Model,
    data: Data,
    reward: RewardMix,
    sampling: EvaluationSampling,
    *,
    samples: int = 1,
    seed: int = 0,
    out: Path | None = None,
) -> dict[str, Any]:
    """One model's figures on questions, each with interval, n and source.

    Args:
        model: what to measure.
        data: the questions.
        reward: who rates.
        sampling: how it answers.
        samples: answers to each question.
        seed: of the draws.
        out: where evaluation.jsonl and a report go; nothing is written unless given.
    """
    ground = open_ground(model)
    exam = open_exam(ground, data, reward, sampling, samples, seed, None)
    with torch.no_grad():
        items = take(exam, load_policy(model.path, ground.precision), ground)
    record = StudyRecord(
        name=model.path,
        arms=[Arm(name="model", stage="eval", items=items, role="component")],
        metric="accuracy" if any(item.correct is not None for item in items) else "reward",
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_items(out / "evaluation.jsonl", items)
        write_report(out, record)
    measures = analyse(record).measures["model"]
    return {name: asdict(measure) for name, measure in measures.items()}

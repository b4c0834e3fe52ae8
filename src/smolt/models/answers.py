"""A policy's answers to questions as text, with their log-probabilities, and with their rating."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from smolt.data import Answer, Question, Score, Turn
from smolt.data.nouns import as_messages
from smolt.data.turns import RowProblem, messages
from smolt.errors import UserError
from smolt.models.groups import Groups
from smolt.models.rendering import Renderer
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing, sample
from smolt.runs.rated_answers import RatedAnswer

LOG = logging.getLogger(__name__)
CORRECT = ".correct"  # the component in which a verifier says what it found


@dataclass(frozen=True)
class Answered:
    """Answers in order, each with its question and its log-probability (fp32 [B], at the sampling temperature)."""

    questions: list[Question]
    answers: list[Answer]
    logprobs: Tensor


def draw_answers(
    policy: Policy,
    renderer: Renderer,
    questions: Sequence[Question],
    n: int,
    drawing: Drawing,
    counter: tuple[int, ...],
    first: int = 0,
) -> Answered:
    """Answers to questions, n of each.

    Args:
        policy: who answers.
        renderer: questions to tokens, tokens to text.
        questions: what is asked.
        n: answers to each.
        drawing: how tokens are drawn.
        counter: see `sample`.
        first: the place of the first question among all that are asked, which the draws are a function of.
    """
    LOG.info("answering %d questions", len(questions))
    contexts = [renderer.context(question.context) for question in questions]
    groups = sample(policy, contexts, n, drawing, counter, ids=range(first, first + len(questions)))
    asked = [questions[owner] for owner in groups.owners]
    return Answered(asked, as_answers(groups, renderer), groups.columns["sampled"].sum(dim=1))


def refuse_greedy_copies(samples: int, temperature: float) -> None:
    """Several greedy answers to a question are one answer.

    Raises:
        UserError: that is what was asked for.
    """
    if samples > 1 and temperature == 0:
        raise UserError(f"samples: {samples} greedy answers to a question are all the same; set a temperature above 0")


def as_answers(groups: Groups, renderer: Renderer) -> list[Answer]:
    """The text of each answer, its length in tokens and whether it stopped by itself."""
    return [
        Answer(renderer.decode(tokens.tolist()), len(tokens), stopped)
        for tokens, stopped in zip(groups.answers, groups.stopped.tolist(), strict=True)
    ]


def rated_answers(found: Answered, scores: Sequence[Score], seed: int) -> list[RatedAnswer]:
    """Answers with what a rater said of them; `seed` is that of their draw."""
    rows = zip(found.questions, found.answers, found.logprobs.tolist(), scores, strict=True)
    return [
        RatedAnswer(
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
            seed=seed,
            logprob=logprob,
            abstained=score.reason or None if score.value is None else None,
            earlier=as_messages(question.context[:-1]) or None,
        )
        for question, answer, logprob, score in rows
    ]


def question_of(answer: RatedAnswer, where: str) -> Question:
    """The question that an answer was given to.

    Raises:
        UserError: its earlier turns are no turns; `where` names the answer.
    """
    try:
        earlier = messages(answer.earlier, "earlier") if answer.earlier else ()
    except RowProblem as problem:
        raise UserError(f"{where}: {problem}") from None
    context = (*earlier, Turn("user", answer.question))
    return Question(context, answer.reference_solution, answer.question_id, answer.kind)


def correctness(score: Score) -> bool | None:
    """What a verifier among the parts found, None without one."""
    for name, value in score.components.items():
        if name.endswith(CORRECT) and value is not None:
            return value == 1.0
    return None


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of what is there, None of nothing."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None

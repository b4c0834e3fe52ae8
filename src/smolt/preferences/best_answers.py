"""Of rated answers those that are worth imitating: rejection sampling (RAFT, 2304.06767)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from smolt.config import RewardMix
from smolt.data import Answer, Demonstration
from smolt.data.files import read
from smolt.errors import UserError
from smolt.models.answers import question_of
from smolt.models.forward.precision import choose_precision
from smolt.report.wording import counted
from smolt.rewards.build import mixed_reward
from smolt.rewards.llm_judge.cache import VERDICTS
from smolt.runs.rated_answers import NEEDED, RatedAnswer, from_row, is_rated_answer

Keep = Literal["best", "all"]


@dataclass(frozen=True)
class BestAnswers:
    """What is kept of the answers of a file, and what became of the others.

    Attributes:
        demonstrations: in the file's order.
        answers, questions: how many there were.
        cut: answers that did not end by themselves.
        empty: answers without text.
        unrated: of the others, those without a reward.
        below: of the rated ones, those below the least that is kept.
        without: questions of which nothing is kept.
        exam: answers that a reward model has chosen among, as a study's arm best_of_n does with its final questions.
    """

    demonstrations: list[Demonstration]
    answers: int
    questions: int
    cut: int
    empty: int
    unrated: int
    below: int
    without: int
    exam: int

    def words(self, out: str) -> str:
        """What a person is told of it."""
        kept, asked = counted(len(self.demonstrations), "demonstration"), counted(self.questions, "question")
        others = {
            "cut": self.cut,
            "empty": self.empty,
            "without a reward": self.unrated,
            "rated too low": self.below,
        }
        lost = ", ".join(f"{count:,} {why}" for why, count in others.items() if count)
        lines = [
            f"{kept} of {counted(self.answers, 'answer')} to {asked}, in {out}",
            f"{counted(self.without, 'question')} without an answer that is good enough",
            *([f"answers left out: {lost}"] if lost else []),
        ]
        if self.exam:
            lines.append(
                f"warning: a reward model has chosen among {self.exam:,} of them, as in a study's arm best_of_n: its "
                "questions are the final ones, and a model that learns them can no longer be measured on them"
            )
        return "\n".join(lines)


def best_of_file(
    path: str,
    reward: RewardMix | None = None,
    keep: Keep = "best",
    least: float | None = None,
    folder: Path | None = None,
) -> BestAnswers:
    """Choose among the answers of a file that smolt wrote: candidates.jsonl, samples.jsonl or evaluation.jsonl.

    Args:
        path: the file.
        reward: who rates them anew; None takes the rewards that stand in the file.
        keep: the best answer to each question, or all of at least `least`.
        least: the lowest reward that is kept; None keeps the best however low it is.
        folder: where a judge's replies are kept, so that it is not asked twice.

    Raises:
        UserError: the file holds no such answers, none is rated, or none is good enough.
    """
    if keep == "all" and least is None:
        raise UserError("--keep all needs --least: without it bad answers would be imitated too")
    answers = _rated_in(path)
    asked = [question_of(answer, path) for answer in answers]
    if reward is not None:
        rate = mixed_reward(reward, choose_precision("auto", "auto"), None if folder is None else folder / VERDICTS)
        scores = rate(asked, [Answer(one.answer, one.tokens, one.stopped) for one in answers])
        answers = [replace(one, reward=score.value) for one, score in zip(answers, scores, strict=True)]
    if all(answer.reward is None for answer in answers):
        how = "--reward names who rates them" if reward is None else "no rater of --reward scores any of them"
        raise UserError(f"{path}: none of {len(answers)} answers has a reward: {how}")
    kept = chosen(answers, keep, least)
    usable = [answer for answer in answers if is_usable(answer)]
    rewards = [answer.reward for answer in usable if answer.reward is not None]
    questions = {_question(answer) for answer in answers}
    found = BestAnswers(
        demonstrations=[Demonstration(asked[place].context, answers[place].answer) for place in kept],
        answers=len(answers),
        questions=len(questions),
        cut=sum(not answer.stopped for answer in answers),
        empty=sum(answer.stopped and not answer.answer.strip() for answer in answers),
        unrated=len(usable) - len(rewards),
        below=sum(least is not None and value < least for value in rewards),
        without=len(questions - {_question(answers[place]) for place in kept}),
        exam=sum(answer.score is not None for answer in answers),
    )
    if not kept:
        highest = f"; the highest reward is {max(rewards):g}" if rewards else ""
        raise UserError(
            f"{path}: none of {found.answers} answers to {found.questions} questions is worth imitating: {found.cut} "
            f"were cut, {found.empty} are empty, {found.unrated} have no reward, {found.below} are below "
            f"--least{highest}"
        )
    return found


def _rated_in(path: str) -> list[RatedAnswer]:
    """The answers of a file, with the line of the first row that is none.

    Raises:
        UserError: there is such a row, or no row at all.
    """
    table, found = read(path, None), list[RatedAnswer]()
    for line in table.lines:
        row, where = line.row, f"{table.name}:{line.number}"
        if row is None or not is_rated_answer(row):
            missing = line.problem or f"{next((n for n in NEEDED if n not in (row or {})), 'row')}: is missing"
            raise UserError(f"{where}: {missing}; give a file of answers, such as candidates.jsonl or samples.jsonl")
        for name, kinds in (("question", str), ("answer", str), ("stopped", bool), ("reward", int | float | None)):
            if not isinstance(row.get(name), kinds):
                raise UserError(f"{where}: {name}: is {str(row[name])[:40]!a}, which smolt does not write there")
        answer = from_row(row, where)
        found.append(answer if answer.reward is None or math.isfinite(answer.reward) else replace(answer, reward=None))
    if not found:
        raise UserError(f"{path}: holds no answer")
    return found


def is_usable(answer: RatedAnswer) -> bool:
    """Whether it ended by itself and says something."""
    return answer.stopped and bool(answer.answer.strip())


def chosen(answers: Sequence[RatedAnswer], keep: Keep | None, least: float | None = None) -> list[int]:
    """Places of the answers to imitate: cut and empty ones never, equal ones to a question once.

    Args:
        answers: in any order.
        keep: the best rated one to each question, or all rated at least `least`; None keeps all, rated or not.
        least: the lowest reward that is kept; None = any.
    """
    places: dict[tuple[str, ...], list[int]] = {}
    for place, answer in enumerate(answers):
        if is_usable(answer):
            places.setdefault(_question(answer), []).append(place)
    found, lowest = list[int](), -math.inf if least is None else least
    for own in places.values():
        if keep is not None:
            rated = {n: value for n in own if (value := answers[n].reward) is not None and value >= lowest}
            own = [max(rated, key=rated.__getitem__)] if rated and keep == "best" else list(rated)
        found += {answers[n].answer: n for n in reversed(own)}.values()
    return sorted(found)


def _question(answer: RatedAnswer) -> tuple[str, ...]:
    """What tells questions apart: ids may repeat between files, and last turns between conversations."""
    return answer.question_id, answer.question, *(turn["content"] for turn in answer.earlier or ())

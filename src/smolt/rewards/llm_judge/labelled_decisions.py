"""Decisions to learn from, made of what is there: pairs, feedback, a judge's verdicts, rated answers, a label column.

They are worded as a judge, or the reward named decision, is asked, so what is learned is of use there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from smolt.data import Decision, DecisionQuestion, Preference, Question, Source, load
from smolt.data.decisions import TRUTHS
from smolt.data.files import read
from smolt.data.turns import messages
from smolt.errors import UserError
from smolt.rewards.llm_judge.nouns import Showing
from smolt.rewards.llm_judge.prompts import dialogue_text, pairwise_decision
from smolt.rewards.llm_judge.rubrics import Rubric
from smolt.runs.rated_answers import from_row, is_rated_answer

MOST_LABELS = 26  # distinct ones of a column that become the options of a choice
VERDICT = ("prompt", "first", "second", "probability")


def from_pairs(source: Source, rubric: Rubric) -> list[Decision]:
    """Each pair twice, the second time with the answers changing places, so that no place is learned."""
    return [one for pair in load(source, "preferences").records for one in _both(pair, rubric)]


def _both(pair: Preference, rubric: Rubric) -> Iterator[Decision]:
    question = Question(pair.context)
    for first, second, share in (
        (pair.chosen, pair.rejected, pair.weight),
        (pair.rejected, pair.chosen, 1 - pair.weight),
    ):
        asked = pairwise_decision(rubric, Showing(question, first, second))
        yield replace(asked, questions=(replace(asked.questions[0], expected=(share, 1 - share)),))


def from_feedback(source: Source, instructions: str) -> list[Decision]:
    """A noul: is the answer good."""
    return [
        _noul({"conversation": dialogue_text(one.context), "answer": one.answer}, "good", instructions, one.desirable)
        for one in load(source, "feedback").records
    ]


def from_verdicts(source: Source, rubric: Rubric) -> list[Decision]:
    """A judge's verdicts.jsonl: its probabilities in place of labels; what it did not judge is left out."""
    rows = [row for row in _rows(source, VERDICT) if row["probability"] is not None]
    pairs = [
        Preference(messages(row["prompt"], "prompt"), row["first"], row["second"], row["probability"]) for row in rows
    ]
    return [one for pair in pairs for one in _both(pair, rubric)]


def from_answers(source: Source, instructions: str) -> list[Decision]:
    """Answers that a rule has judged (samples.jsonl, evaluation.jsonl): a noul, is the answer right."""
    answers = [from_row(row) for row in _rows(source, ("question", "answer", "correct"))]
    return [
        _noul({"conversation": one.question, "answer": one.answer}, "right", instructions, one.correct)
        for one in answers
        if one.correct is not None
    ]


def from_column(source: Source, state: str, label: str, instructions: str) -> list[Decision]:
    """A choice among the values of a column, about the text of another.

    Raises:
        UserError: a column is missing, or has fewer than 2 or more than 26 values.
    """
    rows = list(_rows(source, (state, label)))
    options = sorted({str(row[label]) for row in rows})
    if not 2 <= len(options) <= MOST_LABELS:
        raise UserError(
            f"{source.path}: {label}: has {len(options)} distinct values; a choice is of 2 to {MOST_LABELS}"
        )
    criteria = dict.fromkeys(options)
    return [
        Decision(
            row[state],
            (
                DecisionQuestion(
                    label, "choice", instructions, criteria, tuple(float(str(row[label]) == one) for one in options)
                ),
            ),
        )
        for row in rows
    ]


def _noul(state: Mapping[str, Any], name: str, instructions: str, truth: bool) -> Decision:
    expected = tuple(float((option == "true") == truth) for option in TRUTHS)
    return Decision(dict(state), (DecisionQuestion(name, "noul", instructions, None, expected),))


def _rows(source: Source, columns: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    """Rows that have the columns.

    Raises:
        UserError: one has not; it is named.
    """
    table = read(source.path, source.split)
    for line in table.lines[: source.limit]:
        missing = next((name for name in columns if line.row is None or name not in line.row), None)
        if missing is not None or line.row is None:
            raise UserError(f"{table.name}:{line.number}: {missing}: is missing {line.problem}".rstrip())
        yield line.row


def kind_of(source: Source) -> str:
    """What a file holds: verdicts, answers, feedback or pairs."""
    rows = (line.row for line in read(source.path, source.split).lines if line.row is not None)
    row: Mapping[str, Any] = next(rows, {})
    tests: dict[str, Callable[[], bool]] = {
        "verdicts": lambda: all(name in row for name in VERDICT),
        "answers": lambda: is_rated_answer(row),
        "feedback": lambda: "label" in row,
    }
    return next((kind for kind, holds in tests.items() if holds()), "pairs")

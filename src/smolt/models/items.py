"""From a recipe's data block to tokens that fit the window."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch

from smolt.config import Data
from smolt.data import Decision, Demonstration, Feedback, Preference, Question, load
from smolt.data.handed_over import require_kind
from smolt.errors import UserError
from smolt.models.groups import Groups, from_answers
from smolt.models.rendering import Renderer
from smolt.models.rendering.decision_prompts import DecisionPrompts
from smolt.models.rendering.decision_settings import trainable_settings
from smolt.models.rendering.option_scores import option_groups

T = TypeVar("T")
LOG = logging.getLogger(__name__)
MOST_DROPPED = 0.95
"""Of the records, how many `too_long: drop` leaves out at most: where nearly all go, something is wrong."""

SHOWN = 10  # record numbers listed in an error


@dataclass(frozen=True)
class Prepared:
    """Records as tokens.

    Attributes:
        items: one Groups a record.
        dropped: records left out because they exceed the window.
        identical: pairs left out because their two answers are the same tokens.
        sha256: of the records' file.
        kept: for each item the place of its record, from 0.
    """

    items: list[Groups]
    dropped: int
    sha256: str
    kept: list[int]
    identical: int = 0

    def facts(self) -> dict[str, int]:
        """Counts for the record of a training on preferences."""
        return {"records": len(self.items), "too_long": self.dropped, "identical": self.identical}


def left_out(facts: Mapping[str, Any]) -> list[str]:
    """What a training leaves out of its records, and why: a line for each reason.

    Args:
        facts: counts `records` (used), `too_long` and `identical`, the last two where there are any; those of dev data
            by the same names after `dev_`.
    """
    said = []
    for prefix, whose in (("", ""), ("dev_", "dev data: ")):
        too_long, identical = facts.get(f"{prefix}too_long"), facts.get(f"{prefix}identical")
        if identical:
            said.append(f"{whose}left out, for their two answers are the same: {identical:,} pairs")
        if too_long:
            whole = too_long + facts[f"{prefix}records"] + (identical or 0)
            said.append(f"{whose}left out, for they exceed the window: {too_long:,} of {whole:,} records")
    return said


def demonstration_items(
    data: Data | Sequence[Demonstration], renderer: Renderer, window: int, too_long: str = "error"
) -> Prepared:
    """Demonstrations as one context with one answer each."""
    records, digest, place = records_of(data, "demonstrations")

    def tokens(record: Demonstration) -> Groups:
        return from_answers([renderer.context(record.context)], [[renderer.answer(record.answer)]])

    return _fitting(records, tokens, window, too_long_policy(data, too_long), place, digest)


def preference_items(
    data: Data | Sequence[Preference],
    renderer: Renderer,
    window: int,
    too_long: str = "error",
    identical: Literal["drop", "keep"] = "drop",
) -> Prepared:
    """Preferences as one context with two answers: columns `side` (0 chosen, 1 rejected), `weight`, `pair`.

    A pair whose two answers are the same tokens says nothing, and a training on it moves the weights by rounding alone:
    it is left out and counted, unless it is to be kept for a measurement.
    """
    records, digest, place = records_of(data, "preferences")
    numbers = iter(range(len(records)))

    def tokens(record: Preference) -> Groups | None:
        number = next(numbers)
        answers = [renderer.answer(record.chosen), renderer.answer(record.rejected)]
        if identical == "drop" and answers[0] == answers[1]:
            return None
        return from_answers([renderer.context(record.context)], [answers]).with_columns(
            side=torch.tensor([0, 1]),
            weight=torch.tensor([record.weight] * 2),
            pair=torch.full((2,), number),
        )

    return _fitting(records, tokens, window, too_long_policy(data, too_long), place, digest)


def feedback_items(
    data: Data | Sequence[Feedback | Preference], renderer: Renderer, window: int, too_long: str = "error"
) -> Prepared:
    """Feedback as one context with one answer each: column `desirable`, bool.

    Raises:
        UserError: all answers are of one kind, or as `preference_items`.
    """
    records, digest, place = records_of(data, "feedback")
    whole = [record.unpaired if isinstance(record, Preference) else (record,) for record in records]
    judged = [record for part in whole for record in part]
    if not judged:
        raise UserError(f"{place}: the answers of every pair are equally good, or the same; there is nothing to learn")

    def tokens(record: Feedback) -> Groups:
        groups = from_answers([renderer.context(record.context)], [[renderer.answer(record.answer)]])
        return groups.with_columns(desirable=torch.tensor([record.desirable], dtype=torch.bool))

    prepared = _fitting(judged, tokens, window, too_long_policy(data, too_long), place, digest)
    count, desirable = len(prepared.items), sum(bool(item.columns["desirable"]) for item in prepared.items)
    if desirable in (0, count):
        raise UserError(
            f"{place}: all {count} answers{' that fit the window' if prepared.dropped else ''} are "
            f"{'desirable' if desirable else 'undesirable'}; kto learns from both kinds (label true and false). "
            f"{'Imitate these with sft' if desirable else 'Add good answers'}, or take pairs"
        )
    return prepared


def decision_items(
    data: Data | Sequence[Decision], renderer: Renderer, window: int, too_long: str = "error"
) -> Prepared:
    """Decisions as what their questions share with the rest of each: see `option_groups`.

    Raises:
        UserError: a question without `expected`, or as `preference_items`.
    """
    records, digest, place = records_of(data, "decisions")
    prompts = DecisionPrompts(renderer.tokenizer, trainable_settings(renderer))

    def tokens(record: Decision) -> Groups:
        require_expected(record, place)
        return option_groups(prompts.asked(record), record.questions)

    return _fitting(records, tokens, window, too_long_policy(data, too_long), place, digest)


def require_expected(decision: Decision, place: str) -> None:
    """See that somebody said what each question's answer should be.

    Raises:
        UserError: nobody said it of one.
    """
    for question in decision.questions:
        if question.expected is None:
            name = f"{place}: {decision.id}: expected.{question.name}"
            raise UserError(f"{name}: is missing; say what each question's answer should be, or leave the question out")


@dataclass(frozen=True)
class Asked:
    """Questions that leave room for an answer.

    Attributes:
        questions: each with an id.
        dropped: questions left out because they leave none.
        sha256: of the questions' file.
        longest: tokens of the longest context.
    """

    questions: list[Question]
    dropped: int
    sha256: str
    longest: int

    def facts(self) -> dict[str, int]:
        """Counts for the record of a training on questions."""
        return {"records": len(self.questions), "too_long": self.dropped}


def asked_questions(
    data: Data | Sequence[Question], renderer: Renderer, window: int, answer: int, too_long: str = "error"
) -> Asked:
    """Questions that leave room in the window for an answer of `answer` tokens."""
    records, digest, place = records_of(data, "questions")
    fitting, lengths, longest = [], [], 0
    contexts = renderer.contexts([question.context for question in records])
    for number, (question, context) in enumerate(zip(records, contexts, strict=True)):
        length = len(context) + answer
        if length > window:
            lengths.append((number + 1, length))
            continue
        longest = max(longest, len(context))
        fitting.append(
            question if question.id else Question(question.context, question.solution, str(number), question.kind)
        )
    _refuse(lengths, window, too_long_policy(data, too_long), place, len(fitting), SHORTER)
    return Asked(fitting, len(lengths), digest, longest)


def records_of(data: Any, kind: Any) -> tuple[list[Any], str, str]:
    """Records of a data block, or those in memory; the hash of the data; and what names them in messages."""
    if isinstance(data, Data):
        loaded = load(data, kind)
        LOG.info("turning %d records of %s into tokens", len(loaded.records), data.path)
        return list(loaded.records), loaded.sha256, loaded.path
    records = list(data)
    if not records:
        raise UserError(f"no {kind} were given")
    require_kind(records, kind)
    return records, hashlib.sha256(repr(records).encode()).hexdigest(), kind


def too_long_policy(data: object, too_long: str) -> str:
    """What happens to records that exceed the window: a data block says it itself."""
    return data.too_long if isinstance(data, Data) else too_long


def _fitting(
    records: list[T], tokens: Callable[[T], Groups | None], window: int, too_long: str, place: str, digest: str
) -> Prepared:
    items: list[Groups] = []
    lengths, kept, identical = [], [], 0
    for number, record in enumerate(records):
        groups = tokens(record)
        if groups is None:
            identical += 1
            continue
        length = groups.longest_row
        if length > window:
            lengths.append((number + 1, length))
        else:
            items.append(groups)
            kept.append(number)
    if identical == len(records):
        raise UserError(f"{place}: the two answers are the same in all {identical} pairs; there is nothing to learn")
    _refuse(lengths, window, too_long, place, len(items))
    return Prepared(items, len(lengths), digest, kept, identical)


LEFT_OUT = "leave these records out, counted: data.too_long=drop in a recipe, --too-long drop of `smolt eval`"
LONGER = f"Take a model with a longer window, or {LEFT_OUT}"
SHORTER = f"Allow shorter answers (max_tokens), or {LEFT_OUT}"
"""What helps against answers that are in the data, and against those that are to be written."""


def _refuse(
    lengths: list[tuple[int, int]], window: int, too_long: str, place: str, left: int, mend: str = LONGER
) -> None:
    if lengths and too_long == "error":
        shown = ", ".join(f"{number} ({length} tokens)" for number, length in lengths[:SHOWN])
        raise UserError(
            f"{place}: {len(lengths)} of {len(lengths) + left} records exceed the window of {window} tokens with their "
            f"answer: record{'s' if len(lengths) > 1 else ''} {shown}{' ...' if len(lengths) > SHOWN else ''}. {mend}"
        )
    if len(lengths) > MOST_DROPPED * (len(lengths) + left) and left:
        raise UserError(
            f"{place}: {len(lengths)} of {len(lengths) + left} records exceed the window of {window} tokens; too_long: "
            f"drop leaves out at most {MOST_DROPPED:.0%}. Take a longer window, or other data"
        )
    if not left:
        raise UserError(f"{place}: no record fits into the window of {window} tokens")


READERS: dict[str, Callable[..., Prepared]] = {
    "sft": demonstration_items,
    "reward": preference_items,
    "dpo": preference_items,
    "kto": feedback_items,
    "decide": decision_items,
}
"""What the stages that learn from records read them with."""

"""The record formats smolt reads: for each its columns, how it is recognised, and what a row says.

A format reads a row into entries, from which `reading` makes the records that were asked for. The order of FORMATS is
the order of detection: the most telling columns come first.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from smolt.data.decision_rows import read_decision
from smolt.data.decisions import Decision
from smolt.data.nouns import Context, Turn
from smolt.data.turns import (
    ASSISTANT,
    Row,
    RowProblem,
    asked_in,
    awaiting,
    desirable,
    dialogue,
    ending_with_question,
    final_answer,
    is_dialogue,
    is_judged,
    is_list,
    joined,
    messages,
    number_text,
    opening,
    optional_text,
    require_unjudged,
    said_to,
    shared_length,
    text,
    weight,
    weighted_messages,
)

Kind = Literal["demonstrations", "preferences", "feedback", "questions", "text", "decisions"]

_ANY: tuple[Kind, ...] = ("demonstrations", "preferences", "feedback", "questions", "text")
_ANSWERED: tuple[Kind, ...] = ("demonstrations", "questions", "text")
_JUDGED: tuple[Kind, ...] = ("feedback", "questions")
_DECIDED: tuple[Kind, ...] = ("decisions", "demonstrations", "questions")
_ASKED: tuple[Kind, ...] = ("questions", "text")
_CALCULATION = re.compile(r"<<[^<>]*>>")
_PAIR = ("chosen", "rejected")


@dataclass(frozen=True)
class Entry:
    """What one row says, before it becomes a record.

    Attributes:
        context: The turns before the answer; () is plain text.
        answer: The demonstrated or chosen answer; None where the row only asks.
        rejected: The worse answer of a preference.
        weight: The probability, in [0, 1], that `answer` is better than `rejected`.
        solution: What a verifier compares with.
        id: The row's own name, '' where it has none.
        kind: The group of questions it belongs to.
        last: False for an earlier assistant turn of a dialogue, which is a demonstration but not a question.
        desirable: Whether a judged answer is a good one; None where nobody judged it.
        decision: The whole row, where it is one.
    """

    context: Context
    answer: str | None = None
    rejected: str | None = None
    weight: float = 1.0
    solution: str | None = None
    id: str = ""
    kind: str = ""
    last: bool = True
    desirable: bool | None = None
    decision: Decision | None = None


@dataclass(frozen=True)
class Format:
    """One format: its columns, a check beyond them, the reading of a row, and the kinds of record a row can become."""

    name: str
    required: tuple[str, ...]
    read: Callable[[Row], list[Entry]]
    kinds: tuple[Kind, ...]
    optional: tuple[str, ...] = ()
    fits: Callable[[Row], bool] = lambda row: True

    def matches(self, row: Row) -> bool:
        """Whether the row has the required columns, filled, and looks as the format does."""
        return all(row.get(column) is not None for column in self.required) and self.fits(row)

    def has_columns(self, row: Row) -> bool:
        """Whether the row has the required columns, filled or not."""
        return all(column in row for column in self.required)

    def columns(self) -> str:
        """The columns as messages show them, the optional ones in brackets."""
        return ", ".join((*self.required, *(f"[{column}]" for column in self.optional)))


def _demonstration(row: Row, context: Context, answer: str) -> list[Entry]:
    return [Entry(context, answer, solution=final_answer(answer), **_named(row))]


def _id(row: Row) -> str:
    return optional_text(row, "id")


def _named(row: Row) -> dict[str, Any]:
    return {"id": _id(row), "kind": optional_text(row, "kind")}


def _conversation(row: Row, field: str) -> list[Entry]:
    """An entry for each assistant turn that follows a user's, and one for a dialogue that ends with a question.

    An assistant turn that is not to be learned is context only: a last one leaves its question unanswered.
    """
    weighted = weighted_messages(row[field], field)
    turns = opening(row, tuple(turn for turn, _ in weighted))
    learned = [True] * (len(turns) - len(weighted)) + [learned for _, learned in weighted]
    named, final = _named(row), len(turns) - 1
    entries = []
    for index in range(1, len(turns)):
        before, turn = turns[index - 1].role, turns[index]
        if (before, turn.role) == ("assistant", "assistant"):
            raise RowProblem(field, f"has two assistant turns in a row (turns {index} and {index + 1})")
        if (before, turn.role) == ("user", "assistant") and (learned[index] or index == final):
            solution = final_answer(turn.content)
            answer = turn.content if learned[index] else None
            entries.append(Entry(turns[:index], answer, solution=solution, last=index == final, **named))
    if turns and turns[-1].role == "user":
        entries.append(Entry(turns, **named))
    if not entries:
        raise RowProblem(field, "holds no question and no answer to one")
    return entries


def _messages(row: Row) -> list[Entry]:
    require_unjudged(row)
    return _conversation(row, "messages")


def _sharegpt(row: Row) -> list[Entry]:
    return _conversation(row, "conversations")


def _sharegpt_preference(row: Row) -> list[Entry]:
    return _paired(row, _asked(row, "conversations"))


def _preference_entry(row: Row, context: Context, chosen: str, rejected: str) -> list[Entry]:
    return [Entry(context, chosen, rejected, weight(row), final_answer(chosen), **_named(row))]


def _prompt(row: Row, field: str = "prompt") -> Context:
    """The context of a text, or of messages that end with the user's; no messages at all are the empty context."""
    prompt = row[field]
    if not is_list(prompt):
        return opening(row, asked_in(prompt, field))
    return _asked(row, field) if prompt else ()


def _asked(row: Row, field: str) -> Context:
    turns = messages(row[field], field)
    return opening(row, ending_with_question(turns, field) if turns else ())


def _preference(row: Row) -> list[Entry]:
    return _paired(row, _prompt(row), row["prompt"])


def _paired(row: Row, context: Context, prompt: object = None) -> list[Entry]:
    before, replies = _replies(row)
    answers = [said_to(prompt, reply) for reply in replies]
    return _preference_entry(row, joined(context, before, "chosen"), *answers)


def _preference_messages(row: Row) -> list[Entry]:
    before, answers = _replies(row)
    return _preference_entry(row, opening(row, ending_with_question(before, "chosen")), *answers)


def _replies(row: Row) -> tuple[Context, list[str]]:
    """The turns that chosen and rejected both repeat, and the two answers."""
    contexts, answers = [], []
    for field in _PAIR:
        before, answer = _reply(row[field], field)
        contexts.append(before)
        answers.append(answer)
    if contexts[0] != contexts[1]:
        raise RowProblem("rejected", "answers another dialogue than `chosen` does")
    return contexts[0], answers


def _reply(value: object, field: str) -> tuple[Context, str]:
    """The turns before an answer, and the answer: from text, a message, or messages that end with the assistant's."""
    if not is_list(value) and not isinstance(value, dict):
        return (), text(value, field, empty=True)
    turns = weighted_messages([value] if isinstance(value, dict) else value, field)
    if not turns or turns[-1][0].role != "assistant":
        raise RowProblem(field, "does not end with an assistant's message")
    *before, (answer, learned) = turns
    if not learned:
        raise RowProblem(field, "ends with a message that is not to be learned (weight 0, train or loss false)")
    return tuple(turn for turn, _ in before), answer.content


def _completion(row: Row) -> list[Entry]:
    before, answer = _reply(row["completion"], "completion")
    if not answer.strip():
        raise RowProblem("completion", "is empty")
    require_unjudged(row)
    return _demonstration(row, joined(_prompt(row), before, "completion"), said_to(row["prompt"], answer))


def _unpaired(row: Row) -> list[Entry]:
    """A judged answer, in a column of its own or at the end of messages."""
    field = "completion" if "completion" in row else "messages"
    before, answer = _reply(row[field], field)
    asked = opening(row, ending_with_question(before, field)) if field == "messages" else _prompt(row)
    context = asked if field == "messages" else joined(asked, before, field)
    return [Entry(context, said_to(row.get("prompt"), answer), desirable=desirable(row), **_named(row))]


def _hh(row: Row) -> list[Entry]:
    """Two whole dialogues: what they share up to the last Assistant turn is the context."""
    chosen, rejected = text(row["chosen"], "chosen"), text(row["rejected"], "rejected")
    cut = chosen[: shared_length(chosen, rejected)].rfind(ASSISTANT)
    if cut < 0:
        raise RowProblem("rejected", 'shares no beginning up to an "\\n\\nAssistant:" turn with `chosen`')
    context = ending_with_question(dialogue(chosen[:cut], "chosen"), "chosen")
    answers = [whole[cut + len(ASSISTANT) :].strip() for whole in (chosen, rejected)]
    for field, answer in zip(_PAIR, answers, strict=True):
        if "\n\nHuman:" in answer:
            raise RowProblem(field, "the dialogues part before their last Assistant turn")
    return _preference_entry(row, context, answers[0], answers[1])


def _hh_prompt(row: Row) -> list[Entry]:
    context = awaiting(text(row["prompt"], "prompt"), "prompt")
    return _preference_entry(row, context, *(text(row[field], field, empty=True).strip() for field in _PAIR))


def _alpaca(row: Row) -> list[Entry]:
    given = optional_text(row, "input")
    question = text(row["instruction"], "instruction") + (f"\n\n{given}" if given else "")
    return _demonstration(row, opening(row, (Turn("user", question),)), text(row["output"], "output"))


def _orca(row: Row) -> list[Entry]:
    return _paired(row, _prompt(row, "question"), row["question"])


def _oasst(row: Row) -> list[Entry]:
    return _paired(row, ending_with_question(_asked(row, "context"), "context"))


def _gsm8k(row: Row) -> list[Entry]:
    """The worked answer without calculator annotations; the solution follows '####', or is the whole answer."""
    context, answer = _prompt(row, "question"), row.get("answer")
    if answer is None:
        return _asking(row, context)
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        answer = number_text(answer, "answer")
    worked = _CALCULATION.sub("", text(answer, "answer"))
    solution = final_answer(worked)
    if solution == "":
        raise RowProblem("answer", "has nothing after ####")
    solution = worked.strip() if solution is None else solution
    return [Entry(context, worked, solution=solution, **_named(row))]


def _svamp(row: Row) -> list[Entry]:
    body, question = text(row["Body"], "Body").strip(), text(row["Question"], "Question").strip()
    joint = " " if body[-1] in ".,?!" else ", "
    solution = optional_text(row, "Answer")
    if not solution:
        raise RowProblem("Answer", "is empty")
    context = (Turn("user", body + joint + question),)
    return [Entry(context, solution, solution=solution, id=optional_text(row, "ID"), kind=optional_text(row, "Type"))]


def _self_instruct(row: Row) -> list[Entry]:
    instruction, instances = text(row["instruction"], "instruction"), row["instances"]
    if not is_list(instances) or not instances:
        raise RowProblem("instances", "is not a list of {input, output}")
    entries = []
    for index, instance in enumerate(instances):
        if not isinstance(instance, dict):
            raise RowProblem(f"instances[{index}]", "is not an object {input, output}")
        given = optional_text(instance, "input")
        question = instruction + (f"\n\n{given}" if given else "")
        answer = text(instance.get("output"), f"instances[{index}].output")
        name = _id(row) + (f"/{index + 1}" if len(instances) > 1 and _id(row) else "")
        entries.append(Entry((Turn("user", question),), answer, id=name))
    return entries


def _mt_bench(row: Row) -> list[Entry]:
    """The first turn alone: a later one asks about an answer that is not in the file."""
    turns = row["turns"]
    if not is_list(turns) or not turns:
        raise RowProblem("turns", "is not a list of questions")
    question = text(turns[0], "turns[0]")
    return [Entry((Turn("user", question),), id=optional_text(row, "question_id"), kind=optional_text(row, "category"))]


def _xstest(row: Row) -> list[Entry]:
    """The label, safe or unsafe, is the solution: it says whether a refusal is right."""
    label = optional_text(row, "label") or None
    return [Entry(_prompt(row), solution=label, id=_id(row), kind=text(row["type"], "type"))]


def _only_prompt(row: Row) -> list[Entry]:
    """A question alone; a constraint on its answer (an object of checks) is the solution, as JSON."""
    constraint = row.get("constraint")
    if constraint is None:
        return _asking(row, _prompt(row))
    if not isinstance(constraint, dict) or not constraint:
        raise RowProblem("constraint", 'is not an object of checks, such as {"words": 5}')
    if optional_text(row, "solution"):
        raise RowProblem("constraint", "stands beside a solution; give one of the two")
    solution = json.dumps({name: value for name, value in constraint.items() if value is not None}, ensure_ascii=False)
    return [Entry(_prompt(row), solution=solution, **_named(row))]


def _asking(row: Row, context: Context) -> list[Entry]:
    solution = optional_text(row, "solution") or None
    return [Entry(context, solution=solution, **_named(row))]


def _text(row: Row) -> list[Entry]:
    """Plain text; a row without any (Wikipedia dumps have them) says nothing and gives no entry."""
    document = text(row["text"], "text", empty=True)
    return [Entry((), document, **_named(row))] if document.strip() else []


def _decision(row: Row) -> list[Entry]:
    return [Entry((), decision=read_decision(row))]


_NAMED, _OPENING = ("id", "kind"), ("system", "history")

LOST_COLUMNS = ("history", "system", "tools", "functions", "images", "image", "videos", "audios")
"""Columns of other tools' formats that change what a row means: filled where a format does not read them, a problem."""

FORMATS: tuple[Format, ...] = (
    Format(
        "sharegpt_preference", ("conversations", *_PAIR), _sharegpt_preference, _ANY, (*_OPENING, "weight", *_NAMED)
    ),
    Format(
        "hh_prompt",
        ("prompt", *_PAIR),
        _hh_prompt,
        _ANY,
        ("weight", *_NAMED),
        lambda row: is_dialogue(row["prompt"]) and not is_list(row["chosen"]),
    ),
    Format("preference", ("prompt", *_PAIR), _preference, _ANY, (*_OPENING, "weight", *_NAMED)),
    Format("orca", ("question", *_PAIR), _orca, _ANY, (*_OPENING, "weight", *_NAMED)),
    Format(
        "oasst", ("context", *_PAIR), _oasst, _ANY, (*_OPENING, "weight", *_NAMED), lambda row: is_list(row["context"])
    ),
    Format("hh", _PAIR, _hh, _ANY, ("weight", *_NAMED), lambda row: is_dialogue(row["chosen"])),
    Format(
        "preference_messages",
        _PAIR,
        _preference_messages,
        _ANY,
        (*_OPENING, "weight", *_NAMED),
        lambda row: is_list(row["chosen"]),
    ),
    Format("unpaired", ("prompt", "completion", "label"), _unpaired, _JUDGED, (*_OPENING, *_NAMED), is_judged),
    Format("unpaired_messages", ("messages", "label"), _unpaired, _JUDGED, (*_OPENING, *_NAMED), is_judged),
    Format("messages", ("messages",), _messages, _ANSWERED, (*_OPENING, *_NAMED)),
    Format("sharegpt", ("conversations",), _sharegpt, _ANSWERED, (*_OPENING, *_NAMED)),
    Format("prompt_completion", ("prompt", "completion"), _completion, _ANSWERED, (*_OPENING, "label", *_NAMED)),
    Format("self_instruct", ("instruction", "instances"), _self_instruct, _ANSWERED, ("id",)),
    Format("alpaca", ("instruction", "output"), _alpaca, _ANSWERED, ("input", *_OPENING, *_NAMED)),
    Format("svamp", ("Body", "Question", "Answer"), _svamp, _ANSWERED, ("ID", "Type")),
    Format("gsm8k", ("question",), _gsm8k, _ANSWERED, ("answer", "solution", *_OPENING, *_NAMED)),
    Format("mt_bench", ("turns",), _mt_bench, _ASKED, ("question_id", "category")),
    Format("xstest", ("prompt", "type"), _xstest, _ASKED, ("label", "id", *_OPENING)),
    Format("prompt", ("prompt",), _only_prompt, _ASKED, (*_OPENING, "solution", "constraint", *_NAMED)),
    Format("decision", ("state", "questions"), _decision, _DECIDED, ("expected", *_NAMED)),
    Format("text", ("text",), _text, ("demonstrations", "text"), _NAMED),
)
"""Every format, the most telling columns first."""

"""A row of a file as a decision: every field checked, and what is wrong named as `questions.tone.type`."""

import json
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from smolt.data.decisions import FIELDS, TRUTHS, TYPES, Decision, DecisionQuestion
from smolt.data.turns import Row, RowProblem, described, is_list, optional_text

SUM = 1e-3
"""What the sum of given probabilities may differ from 1; they are divided by it."""


def read_decision(row: Row) -> Decision:
    """The decision of a row `state`, `questions`, `expected`.

    Raises:
        RowProblem: the field at fault (`questions.tone.type`) and what it should be.
    """
    if row.get("assets"):
        raise RowProblem("assets", "holds images, which smolt does not read; remove them")
    state, asked = row["state"], _object(row["questions"], "questions")
    if not isinstance(state, str | dict | list) or not state:
        raise RowProblem("state", "is empty" if state in ("", {}, []) else f"is {described(state)}, not text or JSON")
    expected = _object(row.get("expected") or {}, "expected")
    for name in expected:
        if name not in asked:
            raise RowProblem(f"expected.{name}", f"is no question{_near(str(name), list(map(str, asked)))}")
    if not asked:
        raise RowProblem("questions", "is empty; a decision needs one")
    questions = tuple(_question(str(name), value, expected.get(name)) for name, value in asked.items())
    return Decision(state, questions, optional_text(row, "id"), optional_text(row, "kind"))


def _question(name: str, given: Any, expected: Any) -> DecisionQuestion:
    place = f"questions.{name}"
    fields = {key: value for key, value in _object(given, place).items() if value is not None}
    for key in fields:
        if key not in FIELDS:
            raise RowProblem(f"{place}.{key}", f"is no field of a question{_near(str(key), FIELDS)}")
    kind = fields.get("type")
    if kind not in TYPES:
        raise RowProblem(f"{place}.type", f"is {str(kind)[:40]!r}{_near(str(kind), TYPES)}")
    criteria = _criteria(kind, fields.get("criteria"), f"{place}.criteria")
    found = DecisionQuestion(name, kind, fields.get("instructions"), criteria)
    if expected is None:
        return found
    return DecisionQuestion(name, kind, found.instructions, criteria, _expected(found, expected, f"expected.{name}"))


def _criteria(kind: str, given: Any, place: str) -> Any:
    if kind == "score":
        if not is_list(given) or len(given) < 2 or None in given:
            raise RowProblem(place, "must list the levels of the score, the lowest first, at least two")
        return list(given)
    options = {} if given is None else _object(given, place)
    if kind == "noul":
        if not options.keys() <= set(TRUTHS):
            raise RowProblem(place, "may describe true and false, and nothing else")
        return options or None
    if len(options) < 2:
        raise RowProblem(place, "must map the options of the choice to descriptions (or null), at least two")
    return options


def _expected(question: DecisionQuestion, given: Any, place: str) -> tuple[float, ...]:
    """The probability of each option, from an option, a level, a truth or probabilities."""
    options, number = question.options, isinstance(given, int | float) and not isinstance(given, bool)
    if question.type == "noul" and isinstance(given, bool):
        return (float(given), 1.0 - given)
    if question.type == "noul" and number:
        if not 0 <= given <= 1:
            raise RowProblem(place, f"is {given}; a noul is true, false or the probability of true, 0 to 1")
        return (float(given), 1.0 - given)
    if question.type == "choice" and isinstance(given, str):
        if given not in options:
            raise RowProblem(place, f"is {given[:40]!r}, which is no option{_near(given, options)}")
        return tuple(float(option == given) for option in options)
    if question.type == "score" and number:
        if not 0 <= given <= len(options) - 1:
            raise RowProblem(place, f"is {given}; the scale has the levels 0 to {len(options) - 1}")
        return tuple(max(0.0, 1 - abs(given - level)) for level in range(len(options)))
    if question.type == "score" and is_list(given) and len(given) == len(options):
        given = dict(zip(options, given, strict=True))
    if isinstance(given, str | Mapping):
        return _probabilities(options, _object(given, place), place)
    wanted = {"choice": "an option", "score": f"a level from 0 to {len(options) - 1}", "noul": "true or false"}
    raise RowProblem(place, f"is {described(given)}; write {wanted[question.type]}, or a probability for each option")


def _probabilities(options: Sequence[str], given: Mapping[str, Any], place: str) -> tuple[float, ...]:
    for name in given:
        if name not in options:
            raise RowProblem(f"{place}.{name}", f"is no option{_near(str(name), options)}")
    values = [given.get(option) or 0 for option in options]
    if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in values):
        raise RowProblem(place, "must give each option a probability from 0 to 1")
    if not math.isclose(sum(values), 1, abs_tol=SUM):
        raise RowProblem(place, f"its probabilities sum to {sum(values):.4g}, not to 1")
    return tuple(value / sum(values) for value in values)


def _object(value: Any, place: str) -> Mapping[str, Any]:
    """A JSON object, which a CSV or Parquet file may hold as text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowProblem(place, f"is {described(value)}, not a JSON object") from None
    if not isinstance(value, Mapping):
        raise RowProblem(place, f"is {described(value)}, not a JSON object")
    return value


def _near(given: str, known: Sequence[str]) -> str:
    """The names there are, after the nearest."""
    close = get_close_matches(given, known, n=1)
    return f"; did you mean {close[0]}? There are {', '.join(known)}" if close else f"; there are {', '.join(known)}"

"""Stated probabilities as a reward: a proper score of what an answer says about how sure it is.

A score is proper when an honest probability earns the most (Brier 1950, Good 1952; as a reward 2507.16806). What cannot
be read is worth the least there is, for an answer that could abstain would do so wherever it is unsure.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from smolt.data import Answer, Question, Score
from smolt.data.decisions import TRUTHS
from smolt.data.numbers import equal_numbers, extract
from smolt.errors import UserError
from smolt.rewards.rules import Reward, per_answer

FORM = "stated-1"
"""Version of the reading; a change that can move a figure takes the next number."""

SUM = 0.02  # what stated probabilities may miss 1 by, as rounded ones do; they are divided by their sum
WORDS = {"yes": "true", "no": "false"}

_NUMBER = r"(\d{1,3}(?:\.\d+)?|\.\d+)\s?(%?)"
_CONFIDENCE = re.compile(rf"[*_]*confidence[*_]*\s*:[*_]*\s*{_NUMBER}[.*_]*", re.IGNORECASE)
_LEVEL = re.compile(r"\d{1,3}(?:\.\d+)?")
_SURE = re.compile(rf"(.+?)[,:]?\s+\(?{_NUMBER}\)?\.?", re.DOTALL)
_FENCE = re.compile(r"^```\w*\s*\n(.*)\n```$", re.DOTALL)


def confidence(rule: Literal["brier", "log"] = "brier", floor: float = 0.01) -> Reward:
    """1 for the solution's number, minus how badly the last line's `Confidence: 80 %` foretold that, -1 to 1.

    With c = 1 for a right answer, else 0, and q the stated confidence: c - (q - c)^2; with `log` c - log r / log of the
    least r, where r is the probability that was given to what happened, no less than the floor lets it be. Honest
    confidence is worth the most, and a likelier answer more than a less likely one. Without a readable last line an
    answer claims to be certain.

    Components: correct, confidence (what was said, or 1), stated (1 where it was), brier ((q - c)^2). Abstains as
    `gsm8k` does; numbers are read as there, from the lines above.

    Args:
        rule: "brier" or "log".
        floor: least probability that counts with `log`, above 0 and at most 0.5.
    """
    _check("confidence", rule, floor)

    def rate(question: Question, answer: Answer) -> Score:
        gold = extract(question.solution or "")
        if gold.value is None:
            return Score(None, reason=f"the solution has no number: {gold.reason}" if question.solution else _LACKS)
        above, found = _claim(answer.text)
        said = 1.0 if found is None else found
        correct = float(equal_numbers(extract(above), gold))
        squared = (said - correct) ** 2
        given = floored((said, 1 - said), floor)[0 if correct else 1]
        penalty = squared if rule == "brier" else math.log(given) / least_log(2, floor)
        parts = {"correct": correct, "confidence": said, "stated": float(found is not None), "brier": squared}
        return Score(correct - penalty, dict(parts))

    return per_answer(rate)


def probabilities(rule: Literal["brier", "log"] = "brier", floor: float = 0.01) -> Reward:
    """The proper score of the probabilities that an answer gives to the options of a decision's question.

    The whole answer must be `{"calm": 0.8, "angry": 0.2}`, an option alone (which is certain), an option and its
    probability, `yes 80 %` (the others share the rest), or of a score a level, `1.5`. With p as stated and e as
    expected: -sum (p - e)^2, -2 to 0, which is the Brier score of `smolt eval --task decisions`, negated; with `log`
    sum e log p, no p below the floor. Anything else is worth the least there is: -2, or a certain, wrong answer's.

    Components: stated (1 where it could be read), correct (the likeliest option is one that is expected most), brier.
    Abstains when the question expects nothing.

    Args:
        rule: "brier" or "log".
        floor: least probability that counts with `log`, above 0 and at most 0.5.
    """
    _check("probabilities", rule, floor)

    def rate(question: Question, answer: Answer) -> Score:
        expected = expectation(question.solution)
        if expected is None:
            return Score(None, reason="the question's solution is no decision's expectation, nor yes or no")
        said = stated(answer.text, tuple(expected))
        if said is None:
            least = -2.0 if rule == "brier" else least_log(len(expected), floor)
            return Score(least, {"stated": 0.0, "correct": 0.0, "brier": 2.0}, "states no probabilities")
        squared = sum((said[option] - share) ** 2 for option, share in expected.items())
        given = floored([said[option] for option in expected], floor)
        logs = sum(share * math.log(own) for share, own in zip(expected.values(), given, strict=True))
        likeliest = max(said, key=lambda option: said[option])
        parts = {"stated": 1.0, "correct": float(expected[likeliest] == max(expected.values())), "brier": squared}
        return Score(-squared if rule == "brier" else logs, dict(parts))

    return per_answer(rate)


def floored(shares: Sequence[float], floor: float) -> list[float]:
    """Probabilities of which none is below the floor, divided by their sum again, so that the log score stays proper.

    Of a truth that lies above the floor itself nothing changes; to say 0 is worth no more than to say the floor.
    """
    raised = [max(share, floor) for share in shares]
    return [share / sum(raised) for share in raised]


def least_log(options: int, floor: float) -> float:
    """The logarithm of the least probability of one of so many options, when another was said to be certain."""
    return math.log(floor / (1 + (options - 1) * floor))


_LACKS = "the question has no solution to compare with"


def expectation(solution: str | None) -> dict[str, float] | None:
    """Option -> expected probability, of the solution of a decision's question; yes and no are true and false.

    Returns:
        None where a solution is something else.
    """
    text = (solution or "").strip()
    truth = WORDS.get(text.casefold(), text.casefold())
    if truth in TRUTHS:
        return {option: float(option == truth) for option in TRUTHS}
    pairs = _json(text)
    if not isinstance(pairs, list) or len(pairs) < 2:
        return None
    if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        return None
    found = {option: _probability(share) for option, share in pairs}
    shares = [share for share in found.values() if share is not None]
    right = len(shares) == len(pairs) and math.isclose(sum(shares), 1, abs_tol=SUM)
    return dict(zip(found, shares, strict=True)) if right else None


def stated(text: str, options: tuple[str, ...]) -> dict[str, float] | None:
    """What a whole answer states about options: the probability of each, sum 1; None where it states none."""
    text = text.strip()
    fenced = _FENCE.match(text)
    given = _json(fenced[1] if fenced else text)
    if isinstance(given, dict):
        return _distribution(given, options)
    alone = _option(text, options) or _option(text.rstrip("."), options)
    if alone is not None:
        return {option: float(option == alone) for option in options}
    if (level := _between(text, options)) is not None:
        return level
    sure = _SURE.fullmatch(text)
    if sure is None:
        return None
    named, share = _option(sure[1], options), _probability(_scaled(sure[2], sure[3]))
    if named is None or share is None:
        return None
    rest = (1 - share) / (len(options) - 1)
    return {option: share if option == named else rest for option in options}


def _claim(text: str) -> tuple[str, float | None]:
    """The lines above the one that tells the confidence, and it; None where the last line tells none."""
    *above, last = text.rstrip().splitlines() or [""]
    if not last.strip(" \t*_").casefold().startswith("confidence"):
        return text, None
    found = _CONFIDENCE.fullmatch(last.strip())
    return "\n".join(above), None if found is None else _probability(_scaled(found[1], found[2]))


def _between(text: str, options: tuple[str, ...]) -> dict[str, float] | None:
    """A level of a score, which may lie between two as in `expected`."""
    levels = range(len(options))
    if options != tuple(map(str, levels)) or not _LEVEL.fullmatch(text) or float(text) > levels[-1]:
        return None
    return {option: max(0.0, 1 - abs(float(text) - level)) for option, level in zip(options, levels, strict=True)}


def _distribution(given: Mapping[Any, Any], options: tuple[str, ...]) -> dict[str, float] | None:
    """Probabilities by option; an option that is not named has none."""
    shares = {_option(str(name), options): _probability(value) for name, value in given.items()}
    if len(shares) < len(given) or None in shares or None in shares.values():
        return None
    known = {option: shares.get(option) or 0.0 for option in options}
    total = sum(known.values())
    return {name: share / total for name, share in known.items()} if math.isclose(total, 1, abs_tol=SUM) else None


def _option(text: str, options: tuple[str, ...]) -> str | None:
    """The option that a text names, in any case; of true and false also yes and no."""
    folded = text.strip().casefold()
    if options == TRUTHS:
        folded = WORDS.get(folded, folded)
    return next((option for option in options if option.casefold() == folded), None)


def _scaled(number: str, sign: str) -> float:
    return float(number) / 100 if sign else float(number)


def _probability(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return float(value)


def _json(text: str) -> Any:
    """What a text is as JSON; None where it is none, or names a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key stands there twice")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return None


def _check(name: str, rule: str, floor: float) -> None:
    if rule not in ("brier", "log"):
        raise UserError(f'reward {name}: rule: must be "brier" or "log", not {rule!r}')
    if isinstance(floor, bool) or not isinstance(floor, int | float) or not 0 < floor <= 0.5:
        raise UserError(f"reward {name}: floor: must be above 0 and at most 0.5, not {floor!r}")

"""What a chat endpoint's reply says: log-probabilities of the choices where it gives them, else the choice in words.

A reply that names no choice, or more than one, is a failure. It is counted, and never a tie or a win.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from smolt.rewards.llm_judge.asking import Reply
from smolt.rewards.llm_judge.prompts import GRADES, Prompt

AROUND = " \t\r\n*_`\"'()[]{}.,:;!#"
"""What may stand around a choice that is a whole reply or token."""

LARGEST = 1e9  # a log-probability's size
MOST_TOKENS = 2**40  # that an endpoint may say it used

FOLLOWED = r"(?=\s*(?:[.,:;!)\]*\n-]|$)|\s+(?:is (?:the )?be(?:tter|st)|because|since)\b)"
BEGINS = re.compile(rf"^\W*(?:(?i:answer)\W+)?([AB]){FOLLOWED}")
SAYS = re.compile(
    r"\b(?i:better|preferred|best|final|chosen)(?:\s+(?i:answer|choice|one|response))?(?:\s+is|\s*[:=])?"
    r"\W{0,3}(?:(?i:answer)\s+)?\W{0,3}([AB])\b"
)
EQUAL = re.compile(r"\b(?:tie|neither|both|equal|equally)\b", re.IGNORECASE)
GRADE = re.compile(
    r"\W*(?:(?:(?:the |my )?(?:grade|score|rating)\b(?: is)?|i (?:would )?rate it)\W*)?"
    r"(10|[1-9])(?:\s*(?:/|out of)\s*10)?\W*",
    re.IGNORECASE,
)
"""A whole reply: a digit in a longer one may be the answer's ("2 + 3")."""


class Malformed(ValueError):
    """The reply is not of the form that the API promises."""


def read_reply(document: Any, prompt: Prompt) -> Reply:
    """A reply of /chat/completions.

    Raises:
        Malformed: it has no message, or something else in its place.
    """
    choice, text = first_message(document)
    told: dict[str, Any] = {"text": text, "tokens": usage(document)}
    listed = listed_logprobs(choice, text, prompt)
    if listed is not None:
        return Reply(logprobs=listed, **told)
    named = named_grade(text) if prompt.choices == GRADES else named_letter(text)
    if named is None:
        shown = " ".join(text.split())[:60]
        return Reply(status="failed", reason=f"names no one choice: {shown!r}", **told)
    return Reply(choice=named, **told)


def first_message(document: Any) -> tuple[dict[str, Any], str]:
    """The first choice and its text.

    Raises:
        Malformed: there is none.
    """
    try:
        choice = document["choices"][0]
        content = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise Malformed("the reply holds no message") from None
    if not isinstance(content, str | None) or not isinstance(choice, dict):
        raise Malformed("the reply's message is not a text")
    if content and any("\ud800" <= character <= "\udfff" for character in content):
        raise Malformed("the reply's message holds half a character")
    return choice, content or ""


def usage(document: Any) -> tuple[int, int]:
    """Tokens of prompt and reply as the endpoint counts them, 0 where it does not."""
    counts = document.get("usage") if isinstance(document, dict) else None
    found = [counts.get(name) if isinstance(counts, dict) else 0 for name in ("prompt_tokens", "completion_tokens")]
    prompt, reply = (number if isinstance(number, int) and 0 <= number <= MOST_TOKENS else 0 for number in found)
    return prompt, reply


def listed_logprobs(choice: dict[str, Any], text: str, prompt: Prompt) -> tuple[float, ...] | None:
    """The choices' log-probabilities among the likeliest first tokens; None without them.

    A choice that is not listed is at most as likely as the least likely listed token, and is given that much. Where one
    choice begins another ("1" and "10"), a first token speaks for a choice only when it is the whole reply.
    """
    logged = choice.get("logprobs")
    tokens = logged.get("content") if isinstance(logged, dict) else None
    for token in tokens if isinstance(tokens, list) else []:
        entries = _entries(token)
        written = token.get("token") if isinstance(token, dict) else None
        if not entries or not isinstance(written, str):
            return None
        if not written.strip(AROUND):
            continue
        if prompt.exact and written.strip(AROUND) != text.strip(AROUND):
            return None
        return _of_choices(entries, prompt.choices)
    return None


def _entries(token: Any) -> list[tuple[str, float]]:
    listed = token.get("top_logprobs") if isinstance(token, dict) else None
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    found: list[tuple[Any, Any]] = [(entry.get("token"), entry.get("logprob")) for entry in entries]
    if not all(isinstance(text, str) and _is_logprob(value) for text, value in found):
        return []  # then what the reply says in words has to do
    return [(text, float(value)) for text, value in found]


def _is_logprob(value: Any) -> bool:
    """Whether it can be one: a number that may be minus infinity, and not one of hundreds of digits."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (value == -math.inf or abs(value) <= LARGEST)


def _of_choices(entries: list[tuple[str, float]], choices: Sequence[str]) -> tuple[float, ...] | None:
    floor = min(value for _, value in entries)
    sums = []
    for choice in choices:
        own = [value for text, value in entries if text.strip(AROUND) == choice]
        sums.append(_log_sum(own) if own else None)
    if all(value is None for value in sums):
        return None
    return tuple(floor if value is None else value for value in sums)


def _log_sum(values: list[float]) -> float:
    highest = max(values)
    if highest == -math.inf:
        return highest
    return highest + math.log(sum(math.exp(value - highest) for value in values))


def named_letter(text: str) -> int | None:
    """0 for A, 1 for B, -1 for a tie in words, None when it cannot be told."""
    whole = text.strip(AROUND)
    if whole in ("A", "B"):
        return "AB".index(whole)
    says = {found[1] for found in SAYS.finditer(text)}
    begins = BEGINS.match(text)
    letters = says or ({begins[1]} if begins else set())
    if len(letters) == 1:
        return "AB".index(letters.pop())
    return -1 if not letters and EQUAL.search(text) else None


def named_grade(text: str) -> int | None:
    """The place of a grade in GRADES; None when the whole text is not one."""
    found = GRADE.fullmatch(text)
    return GRADES.index(found[1]) if found else None

r"""Numbers in answers: which one is the answer, and when two are equal. A version of the rule never changes.

EXTRACTOR "gsm8k-1", in this order; the first way that finds a number decides:

1. `#### 42`: a number right after the mark; the last such mark.
2. `\boxed{42}`: the last box that holds a number; what stands after its last "=", `\frac{1}{2}` read as 1/2.
3. `answer is 42`: the last such words that have a number in the rest of their line; the first number there.
4. the last number of the text.

In 1 and 3 a calculation that is written out (`3 + 4 = 7`) stands for its result.

A number is digits with an optional sign (also the unicode minus), currency sign before it, commas between groups of
three, decimals, a denominator (`1/2`) and a percent sign, which is dropped like a unit: "50%" equals 50, not 0.5. There
are no exponents: "1e5" is read as text. Numbers compare as exact rationals: "1,000" = "1000.0" = "$1000".
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

EXTRACTOR = "gsm8k-1"

MOST_DIGITS = 100
"""A longer number is refused: nobody means it, and exact arithmetic on it costs what an attacker likes."""

LONGEST_TEXT = 20_000
"""Of a longer text only this many last characters are read."""

LONGEST_LINE = 1_000
MOST_TRIES = 100
"""How far "answer is" is followed along its line, and how many of them are tried: bounds on time, not on meaning."""

_SIGN = r"(?:(?<![\w)\]])[-\u2212\u2013])?"
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = rf"{_SIGN}[$€£¥]?[-\u2212]?(?:{_DIGITS}(?:\.[0-9]+)?|\.[0-9]+)(?:/[0-9]+(?![0-9/]|\.[0-9]))?%?"
NUMBER = re.compile(rf"(?<![A-Za-z_0-9])(?<![0-9]\.){_NUMBER}(?![0-9]*[eE][-+]?[0-9])")
_MARKED = re.compile(r"####[\s*:]*")
_ANSWER_IS = re.compile(r"answer\s+is\b", re.IGNORECASE)
_STEP = re.compile(r"\s*([-+*/×÷=])\s*")
_MIXED = re.compile(r"(?<=[0-9])(?=\\[dt]?frac)")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([-0-9.,]{1,200})\s*\}\s*\{\s*([0-9]{1,200})\s*\}")
_SPACING = re.compile(r"\\[,;!: ]|\\(?=[$%])|\{(?=,\})|(?<=,)\}")

Way = Literal["####", "boxed", "answer is", "last number", "none"]


@dataclass(frozen=True)
class Extraction:
    """What was read from an answer.

    Attributes:
        value: the number; None is an extraction failure, and `reason` says which.
        text: the number as it stands, without currency, percent sign and commas (what string equality compares).
        way: where it was found.
        reason: "" or why there is no value.
    """

    value: Fraction | None
    text: str
    way: Way
    reason: str = ""


def parse_number(text: str) -> Fraction | None:
    """The exact value of one number as written; None when it is none, divides by 0 or has more than MOST_DIGITS."""
    kept = _bare(text.strip().rstrip("."))
    if sum(character.isdigit() for character in kept) > MOST_DIGITS:
        return None
    match = re.fullmatch(r"(-?)([0-9]*(?:\.[0-9]+)?)(?:/([0-9]+))?", kept)
    if match is None or not match[2] or (match[3] is not None and not match[3].strip("0")):
        return None
    value = Fraction(match[2]) / int(match[3] or 1)
    return -value if match[1] else value


def extract(text: str) -> Extraction:
    """The final number of an answer by EXTRACTOR's rule. Never raises; a failure is an Extraction without a value."""
    read = text[-LONGEST_TEXT:]
    found: tuple[str | None, Way]
    for found in ((_after_mark(read), "####"), (_boxed(read), "boxed"), (_after_words(read), "answer is")):
        if found[0] is not None:
            return _extraction(found[0], found[1])
    numbers = NUMBER.findall(read)
    if not numbers:
        return Extraction(None, "", "none", "no number in the answer")
    return _extraction(numbers[-1], "last number")


def equal_numbers(left: Extraction, right: Extraction, equality: Literal["exact", "string"] = "exact") -> bool:
    """Whether two extractions are the same answer; one without a value equals nothing.

    Args:
        left: an extraction.
        right: another.
        equality: "exact" compares rationals; "string" the digits as written ("18.0" is not "18"), as the published
            GSM8K figures do: up to 2.8 points lower.
    """
    if left.value is None or right.value is None:
        return False
    return left.value == right.value if equality == "exact" else left.text == right.text


def _extraction(number: str, way: Way) -> Extraction:
    text = _bare(number)
    value = parse_number(number)
    if value is None:
        return Extraction(None, text[:MOST_DIGITS], way, "the number divides by zero or is too long")
    return Extraction(value, text, way)


def _bare(number: str) -> str:
    """The number without signs of currency, percent and grouping, with a plain minus."""
    plain = re.sub(r"[$€£¥%,\s]", "", number)
    return re.sub(r"^[-\u2212\u2013]+", "-", plain)


def _first_result(text: str, start: int, anywhere: bool) -> str | None:
    """The first number from `start` on (right there unless `anywhere`), or the result of the calculation it begins."""
    found = NUMBER.search(text, start) if anywhere else NUMBER.match(text, start)
    if found is None:
        return None
    sides = [[found[0]]]
    while step := _STEP.match(text, found.end()):
        following = NUMBER.match(text, step.end())
        if following is None:
            break
        if step[1] == "=":
            sides.append([])
        sides[-1].append(following[0])
        found = following
    return next((side[0] for side in reversed(sides) if len(side) == 1), sides[0][0])


def _after_mark(text: str) -> str | None:
    for mark in reversed(list(_MARKED.finditer(text))):
        number = _first_result(text, mark.end(), anywhere=False)
        if number is not None:
            return number
    return None


def _after_words(text: str) -> str | None:
    for words in reversed(list(_ANSWER_IS.finditer(text))[-MOST_TRIES:]):
        line = text[words.end() : words.end() + LONGEST_LINE].partition("\n")[0]
        number = _first_result(line, 0, anywhere=True)
        if number is not None:
            return number
    return None


def _boxed(text: str) -> str | None:
    r"""The number of the last `\boxed{...}` that has one; braces inside are balanced."""
    end = len(text)
    while (start := text.rfind("\\boxed{", 0, end)) != -1:
        inside = _balanced(text[start + len("\\boxed{") : end])
        plain = _SPACING.sub("", _FRACTION.sub(r"\1/\2", _MIXED.sub(" ", inside))).rpartition("=")[2]
        found = NUMBER.search(plain)
        if found is not None:
            return found[0]
        end = start
    return None


def _balanced(text: str) -> str:
    """The text up to the brace that closes what was opened before it, or all of it."""
    depth = 1
    for index, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[:index]
    return text

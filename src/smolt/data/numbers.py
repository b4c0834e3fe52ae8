r"""Numbers in answers: which one is the answer, and when two are equal. A version of the rule never changes.

FIRST_EXTRACTOR "gsm8k-1", in this order; the first way that finds a number decides:

1. `#### 42`: a number right after the mark; the last such mark.
2. `\boxed{42}`: the last box that holds a number; what stands after its last "=", `\frac{1}{2}` read as 1/2.
3. `answer is 42`: the last such words that have a number in the rest of their line; the first number there.
4. the last number of the text.

In 1 and 3 a calculation that is written out (`3 + 4 = 7`) stands for its result.

A number is digits with an optional sign (also the unicode minus), currency sign before it, commas between groups of
three, decimals, a denominator (`1/2`) and a percent sign, which is dropped like a unit: "50%" equals 50, not 0.5. There
are no exponents: "1e5" is read as text. Numbers compare as exact rationals: "1,000" = "1000.0" = "$1000".

EXTRACTOR "gsm8k-2" is the same on plain numbers and never reads a part of a number: 9{,}500, 70\,000, 1 000 000,
1'000, 12,34,567 and 1.234,5 are one number each, \frac34 and 3 1/2 are fractions, 10^3 and 1.5 million are their
values, x, \times, \cdot and \div are signs of calculation. Of a box the last number counts. A calculation without a
result (9*2, 5-7) is no number.

EXTRACTOR "gsm8k-3" is gsm8k-2 that also reads what programs write: 1.5e3 and 1e-05 are their values, and a time or a
ratio (10:45), a date (2026-11-30, 11/30/2026) or a version (1.2.3) is no number, wherever it stands.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

EXTRACTOR = "gsm8k-3"
SECOND_EXTRACTOR = "gsm8k-2"
FIRST_EXTRACTOR = "gsm8k-1"

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

_SPACES = "[ \u00a0\u2009\u202f'\u2019]"
_GROUP = rf"(?:{_SPACES}|\\[,;:! ]|\{{,\}}|~)"
_TEN = {"thousand": 3, "million": 6, "billion": 9}
_HALVES = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_BEGINS = r"(?<![A-Za-z_0-9.,/])"
_WHOLE_AND_PART = re.compile(rf"{_BEGINS}([0-9]{{1,20}})\s+([0-9]{{1,4}})/([0-9]{{1,4}})(?![0-9/]|\.[0-9])")
_REWRITES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\\(?=[$%])|\\(?:left|right)(?![a-z])", ""),
    (
        rf"{_BEGINS}([0-9]{{1,3}}(?:{_GROUP}[0-9]{{3}})+)(?![0-9])(?:,([0-9]{{1,2}})(?![0-9,]))?",
        lambda found: re.sub(r"[^0-9]", "", found[1]) + (f".{found[2]}" if found[2] else ""),
    ),
    (rf"{_BEGINS}[0-9]{{1,2}}(?:,[0-9]{{2}})+,[0-9]{{3}}(?![0-9])", lambda found: found[0].replace(",", "")),
    (
        rf"{_BEGINS}[0-9]{{1,3}}(?:(?:\.[0-9]{{3}})+,[0-9]+|(?:\.[0-9]{{3}}){{2,}})(?![0-9])",
        lambda found: found[0].replace(".", "").replace(",", "."),
    ),
    (r"\{,\}", ","),
    (r"\\[,;:! ]|~", " "),
    (r"\\(?:times|cdot)(?![a-z])|(?<=[0-9])\s*[xX·](?=\s*[0-9])", "*"),
    (r"\\div(?![a-z])", "/"),
    (
        r"(?<=[0-9])?\\[dt]?frac\s*(?:\{\s*([-0-9.,]{1,200})\s*\}|([0-9]))\s*(?:\{\s*([0-9]{1,200})\s*\}|([0-9]))",
        lambda found: f"\x00{found[1] or found[2]}/{found[3] or found[4]}",
    ),
    (r"[½¼¾⅓⅔]", lambda found: f"\x00{_HALVES[found[0]]}"),
    (r"(?<=[0-9])\s*\x00", " "),
    (r"\x00", ""),
    (_WHOLE_AND_PART.pattern, lambda found: _mixed(found)),
    (
        rf"{_BEGINS}([0-9]{{1,20}}(?:\.[0-9]{{1,20}})?)\s*\*\s*10\s*\^\s*\{{?\s*(-?[0-9]{{1,3}})(?![0-9])\s*\}}?",
        lambda found: _decimal(Fraction(found[1]) * Fraction(10) ** int(found[2])),
    ),
    (
        rf"{_BEGINS}([0-9]{{1,20}})\s*\^\s*\{{?\s*([0-9]{{1,3}})(?![0-9])\s*\}}?",
        lambda found: _decimal(Fraction(found[1]) ** int(found[2])),
    ),
    (
        rf"{_BEGINS}([0-9]{{1,20}}(?:\.[0-9]{{1,20}})?)\s*(thousand|million|billion)\b",
        lambda found: _decimal(Fraction(found[1]) * 10 ** _TEN[found[2]]),
    ),
)
"""What gsm8k-2 writes for a number in another notation, in this order."""

_ENDS = r"(?![A-Za-z_0-9]|\.[0-9])"
_EXPONENT = re.compile(rf"{_BEGINS}([0-9]{{1,20}}(?:\.[0-9]{{1,20}})?)[eE]([-+]?[0-9]{{1,3}}){_ENDS}")
_NO_NUMBER = re.compile(
    rf"{_BEGINS}(?:[0-9]+(?::[0-9]+)+|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?![0-9])"
    rf"|[0-9]{{1,4}}/[0-9]{{1,2}}/[0-9]{{1,4}}(?![0-9/])|[0-9]+(?:\.[0-9]+){{2,}}{_ENDS})"
)
"""A time or a ratio, a date, a version."""


_COMPILED = tuple((re.compile(pattern), written) for pattern, written in _REWRITES)
_UNSOLVED = re.compile(r"\s*÷\s*")

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


def extract(text: str, rule: str = EXTRACTOR) -> Extraction:
    """The final number of an answer by a rule's version. Never raises; a failure is an Extraction without a value."""
    read = text[-LONGEST_TEXT:]
    first = rule == FIRST_EXTRACTOR
    if not first:
        for pattern, written in _COMPILED:
            read = pattern.sub(written, read)
    if rule == EXTRACTOR:
        read = _NO_NUMBER.sub(lambda found: re.sub("[-:/.]", "÷", found[0]), _EXPONENT.sub(_power, read))
    ways: tuple[tuple[str | None, Way], ...] = (
        (_after_mark(read, first), "####"),
        (_boxed(read, first), "boxed"),
        (_after_words(read, first), "answer is"),
    )
    for found in ways:
        if found[0] is not None:
            return _extraction(found[0], found[1])
    numbers = list(NUMBER.finditer(read))
    if not numbers:
        return Extraction(None, "", "none", "no number in the answer")
    begin = numbers[-1].start()
    if rule == EXTRACTOR and len(numbers) > 1 and _UNSOLVED.fullmatch(read, numbers[-2].end(), begin):
        begin = numbers[-2].start()
    return _extraction(read[begin : numbers[-1].end()], "last number")


def plainly(text: str) -> str:
    """The text for a reader of mathematics: exponents and mixed numbers as one fraction; no times, dates or versions.

    math-verify reads 1e-05 as 1, 2 1/2 as 1 and 10:45 as 10 (findings/math-verify-reads-a-part-of-a-number.sh).
    """
    return _NO_NUMBER.sub(" ", _WHOLE_AND_PART.sub(_mixed, _EXPONENT.sub(_power, text)))


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
        calculation = len(NUMBER.findall(number)) > 1
        reason = "a calculation without a result" if calculation else "the number divides by zero or is too long"
        return Extraction(None, text[:MOST_DIGITS], way, reason)
    return Extraction(value, text, way)


def _bare(number: str) -> str:
    """The number without signs of currency, percent and grouping, with a plain minus."""
    plain = re.sub(r"[$€£¥%,\s]", "", number)
    return re.sub(r"^[-\u2212\u2013]+", "-", plain)


def _mixed(found: re.Match[str]) -> str:
    """A whole number and a proper fraction as one fraction; anything else stays as it is."""
    whole, above, below = int(found[1]), int(found[2]), int(found[3])
    return f"{whole * below + above}/{below}" if above < below else found[0]


def _power(found: re.Match[str]) -> str:
    """A number with an exponent of ten."""
    return _decimal(Fraction(found[1]) * Fraction(10) ** int(found[2]))


def _decimal(value: Fraction) -> str:
    """A value as digits or as a fraction; one beyond MOST_DIGITS as digits that are refused for their number."""
    return "9" * (MOST_DIGITS + 1) if value >= 10**MOST_DIGITS else str(value)


def _first_result(text: str, start: int, anywhere: bool, first: bool) -> str | None:
    """The first number from `start` on (right there unless `anywhere`), or the result of the calculation it begins.

    Of a calculation without a result gsm8k-1 (`first`) takes the first number, later rules all of it: no number.
    """
    found = NUMBER.search(text, start) if anywhere else NUMBER.match(text, start)
    if found is None:
        return None
    begin = found.start()
    sides = [[found[0]]]
    while step := _STEP.match(text, found.end()):
        following = NUMBER.match(text, step.end())
        if following is None:
            break
        if step[1] == "=":
            sides.append([])
        sides[-1].append(following[0])
        found = following
    whole = sides[0][0] if first else text[begin : found.end()]
    return next((side[0] for side in reversed(sides) if len(side) == 1), whole)


def _after_mark(text: str, first: bool) -> str | None:
    for mark in reversed(list(_MARKED.finditer(text))):
        number = _first_result(text, mark.end(), False, first)
        if number is not None:
            return number
    return None


def _after_words(text: str, first: bool) -> str | None:
    for words in reversed(list(_ANSWER_IS.finditer(text))[-MOST_TRIES:]):
        line = text[words.end() : words.end() + LONGEST_LINE].partition("\n")[0]
        number = _first_result(line, 0, True, first)
        if number is not None:
            return number
    return None


def _boxed(text: str, first: bool) -> str | None:
    r"""The number of the last `\boxed{...}` that has one (after gsm8k-1: its last); braces inside are balanced."""
    end = len(text)
    while (start := text.rfind("\\boxed{", 0, end)) != -1:
        inside = _balanced(text[start + len("\\boxed{") : end])
        plain = _SPACING.sub("", _FRACTION.sub(r"\1/\2", _MIXED.sub(" ", inside))).rpartition("=")[2]
        found = NUMBER.search(plain)
        if found is not None:
            result = _first_result(plain, 0, True, first)
            is_number = first or result is None or len(NUMBER.findall(result)) == 1
            return found[0] if first else NUMBER.findall(plain)[-1] if is_number else result
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

"""The extractors gsm8k-1 to gsm8k-3: every way of finding a number, exact equality, and no text that breaks it."""

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolt.data.numbers import EXTRACTOR, FIRST_EXTRACTOR, SECOND_EXTRACTOR, equal_numbers, extract, parse_number
from tests.shared import shared_path


@pytest.mark.parametrize(
    ("text", "value", "way"),
    [
        ("First 3.\n#### 18", 18, "####"),
        ("#### 5\n#### 7", 7, "####"),
        ("#### **$1,000.**", 1000, "####"),
        ("#### 3 + 4 = 7 apples", 7, "####"),
        ("#### Step 1: add\nso we have 6", 6, "last number"),
        ("\\boxed{42} and then 5", 42, "boxed"),
        ("\\boxed{\\frac{1}{2}}", Fraction(1, 2), "boxed"),
        ("\\boxed{-\\dfrac{3}{4}}", Fraction(-3, 4), "boxed"),
        ("\\boxed{1{,}000\\text{ dollars}}", 1000, "boxed"),
        ("\\boxed{x = \\$5.50}", Fraction(11, 2), "boxed"),
        ("\\boxed{3} or \\boxed{none}", 3, "boxed"),
        ("The answer is 12, since 3 + 9 are 12 and not 13.", 12, "answer is"),
        ("the answer is: 2 * 3 = 6.", 6, "answer is"),
        ("The answer is 5 = 2 + 3", 5, "answer is"),
        ("The answer is 1/2.", Fraction(1, 2), "answer is"),
        ("she has 3 cats and 4 dogs", 4, "last number"),
        ("so 16-3-4 = 9", 9, "last number"),
        ("between 3 and 5-7", 7, "last number"),
        ("1, 2,3", 3, "last number"),
        ("it is 5kg.", 5, "last number"),
    ],
)
def test_the_ways_in_their_order(text: str, value: Fraction | int, way: str) -> None:
    for rule in (FIRST_EXTRACTOR, SECOND_EXTRACTOR, EXTRACTOR):
        found = extract(text, rule)
        assert (found.value, found.way) == (value, way)


@pytest.mark.parametrize(
    ("text", "before", "now"),
    [
        ("The answer is $9{,}500$.", 9, 9500),
        ("#### $9{,}500$", 9, 9500),
        ("The answer is $1\\,000$", 1, 1000),
        ("\\boxed{3\\frac{1}{2}}", 3, Fraction(7, 2)),
        ("The answer is 3 1/2.", 3, Fraction(7, 2)),
        ("The answer is $\\frac{3}{4}$.", 3, Fraction(3, 4)),
        ("\\boxed{\\frac34}", None, Fraction(3, 4)),
        ("The answer is 2x3=6", 2, 6),
        ("\\boxed{10^3}", 10, 1000),
        ("The answer is 1 000 000.", 1, 1_000_000),
        ("The answer is 12,34,567", 12, 1_234_567),
        ("\\boxed{18 eggs}", 18, 18),
        ("\\boxed{18 dollars}", 18, 18),
        ("\\boxed{\\$18}", 18, 18),
        ("The answer is \\$18.", 18, 18),
        ("\\boxed{70\\,000}", 70_000, 70_000),
        ("so it is 70\\,000", 0, 70_000),
        ("\\boxed{17} and then \\boxed{18}", 18, 18),
        ("\\boxed{9*2}", 9, None),
        ("The answer is 5-7.", 5, None),
        ("The answer is -3\\tfrac12", -3, Fraction(-7, 2)),
        ("The answer is 1\u202f234,5 or so", 1, Fraction(2469, 2)),
        ("#### 1.234.567,5", Fraction(1234, 1000), Fraction(2469135, 2)),
        ("The answer is 1.5 \\times 10^{3}.", Fraction(3, 2), 1500),
        ("#### 2.5 million", Fraction(5, 2), 2_500_000),
        ("The answer is 2\u00bd", 2, Fraction(5, 2)),
        ("\\boxed{7 \\times 8 = 56}", 56, 56),
        ("The answer is 1'000", 1, 1000),
        ("The answer is 10^{999}", 10, None),
        ("The answer is 1/2 of 8, 4", Fraction(1, 2), Fraction(1, 2)),
    ],
)
def test_gsm8k_2_reads_no_part_of_a_number(
    text: str, before: Fraction | int | None, now: Fraction | int | None
) -> None:
    """gsm8k-1 is frozen and reads what it always read; gsm8k-2 reads the number, or none."""
    assert (extract(text, "gsm8k-1").value, extract(text, "gsm8k-2").value) == (before, now)


@pytest.mark.parametrize(
    ("text", "before", "now"),
    [
        ("The answer is 1e-05.", 5, Fraction(1, 100_000)),
        ("#### 1.5e3", 1, 1500),
        ("\\boxed{6.02E23}", 6, 602 * 10**21),
        ("so it is -2.5e+1", 1, -25),
        ("The answer is 1e5", None, 100_000),
        ("#### 1e999", None, None),
        ("The answer is 1e-999", 999, None),
        ("They meet at 10:45.", 45, None),
        ("The answer is 10:45 pm", 10, None),
        ("#### 3:2", 3, None),
        ("It was on 2026-11-30", 30, None),
        ("The answer is 2026-11-30", None, None),
        ("It was on 11/30/2026.", Fraction(15, 1013), None),
        ("use version 1.2.3", Fraction(6, 5), None),
        ("At 10:45 he had 7", 7, 7),
        ("12 / 4 = 3 at 10:45, so 3", 3, 3),
        ("#### 42", 42, 42),
        ("The answer is 3 1/2", Fraction(7, 2), Fraction(7, 2)),
        ("in 3e, take 1e5x", 3, 3),
    ],
)
def test_gsm8k_3_reads_exponents_and_no_part_of_a_time_or_date(
    text: str, before: Fraction | int | None, now: Fraction | int | None
) -> None:
    """gsm8k-2 is frozen too."""
    assert (extract(text, "gsm8k-2").value, extract(text).value) == (before, now)


@pytest.mark.parametrize("text", ["", "none", "v2 and x3", "1e5x", "####", "\\boxed{}", "the answer is yes"])
def test_no_number_is_a_failure(text: str) -> None:
    found = extract(text)
    assert (found.value, found.way, found.reason) == (None, "none", "no number in the answer")


@pytest.mark.parametrize("text", ["#### 1/0", "9" * 200, "so it is 5/00"])
def test_a_number_that_is_none_is_a_failure(text: str) -> None:
    found = extract(text)
    assert found.value is None
    assert found.reason == "the number divides by zero or is too long"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000", 1000),
        ("1000.0", 1000),
        ("$1000", 1000),
        ("-5", -5),
        ("\u22125", -5),
        ("-$5", -5),
        ("$-5", -5),
        ("1/2", Fraction(1, 2)),
        ("-3/6", Fraction(-1, 2)),
        ("50%", 50),
        (".5", Fraction(1, 2)),
        ("18.", 18),
        ("0.1", Fraction(1, 10)),
        ("007", 7),
        ("", None),
        ("-", None),
        ("1/0", None),
        ("1.2.3", None),
        ("1e400", None),
        ("five", None),
        ("9" * 101, None),
    ],
)
def test_one_number_as_written(text: str, value: Fraction | int | None) -> None:
    assert parse_number(text) == value


def test_equality_is_exact_and_string_equality_is_stricter() -> None:
    """1,000 = 1000.0 = $1000 as rationals; as strings only 1,000 and $1000 agree. 0.1 is 1/10, no float between."""
    left, middle, right = extract("#### 1,000"), extract("#### 1000.0"), extract("#### $1000")
    assert equal_numbers(left, middle)
    assert equal_numbers(left, right)
    assert not equal_numbers(left, middle, "string")
    assert equal_numbers(left, right, "string")
    assert equal_numbers(extract("0.1"), extract("1/10"))
    assert not equal_numbers(extract("0.3333333333"), extract("1/3"))
    assert not equal_numbers(extract("50%"), extract("0.5"))
    assert not equal_numbers(extract("none"), extract("none"))


def test_every_official_answer_is_extracted() -> None:
    """7,473 + 1,319 = 8,792 gold answers: all found at "####", all with the text after it, 0 failures."""
    count = 0
    for name in ("train", "test"):
        for line in shared_path(f"data/gsm8k/{name}.jsonl").read_text(encoding="utf-8").splitlines():
            answer = json.loads(line)["answer"]
            gold = answer.rpartition("####")[2].strip().replace(",", "")
            for rule in (FIRST_EXTRACTOR, SECOND_EXTRACTOR, EXTRACTOR):
                found = extract(answer, rule)
                assert (found.way, found.text, found.value) == ("####", gold, Fraction(gold))
            count += 1
    assert count == 8792
    assert (FIRST_EXTRACTOR, SECOND_EXTRACTOR, EXTRACTOR) == ("gsm8k-1", "gsm8k-2", "gsm8k-3")


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_extract_never_raises_on_any_text(text: str) -> None:
    found = extract(text)
    assert (found.value is None) == (found.reason != "")


PIECES = ["####", "\\boxed{", "}", "{", "answer is ", "\\frac{", "1", "99", ",", ".", "/", "-", "\u2212", "$", "%", "="]


@given(st.lists(st.sampled_from([*PIECES, "+", " ", "\n", "e5", "0", "٣", "²"]), max_size=30).map("".join))
@settings(max_examples=500, deadline=None)
def test_extract_never_raises_on_pieces_of_answers(text: str) -> None:
    found = extract(text)
    assert (found.value is None) == (found.reason != "")
    assert equal_numbers(found, found) == (found.value is not None)


@given(st.fractions(max_denominator=1000), st.sampled_from(["#### {}", "\\boxed{{{}}}", "The answer is {}.", "so {}"]))
def test_a_fraction_survives(value: Fraction, form: str) -> None:
    """Written as n/d or n, every rational comes back."""
    assert extract(form.format(value)).value == value


@pytest.mark.parametrize("piece", ["9", "1,", "1/", "1.", "-", "####", "\\boxed{", "answer is ", "1+", "111,", "{"])
def test_huge_answers_are_bounded(piece: str) -> None:
    """200,000 characters: only the last 20,000 are read, so that no answer can make a run wait."""
    text = piece * (200_000 // len(piece))
    assert extract(text) == extract(text[-20_000:])

"""What a chat endpoint's words mean, and what they do not."""

import math
from typing import Any

import pytest

from smolt.rewards.llm_judge.prompts import GRADES, LETTERS, Prompt
from smolt.rewards.llm_judge.replies import Malformed, named_grade, named_letter, read_reply

PAIR = Prompt((), LETTERS)
GRADE = Prompt((), GRADES, exact=True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("A", 0),
        (" B.", 1),
        ("**A**", 0),
        ("(B)", 1),
        ("Answer A", 0),
        ("Answer: B", 1),
        ("A, because it is shorter.", 0),
        ("B is better.", 1),
        ("The better answer is A.", 0),
        ("Better answer: **B**", 1),
        ("I think the best answer is Answer B", 1),
        ("It is a tie.", -1),
        ("Both are equal", -1),
        ("Neither", -1),
        ("", None),
        ("A good answer would be long", None),
        ("Once upon a time", None),
        ("Answer A is short and answer B is long", None),
        ("The better answer is A. No, the better answer is B.", None),
        ("a", None),
    ],
)
def test_letters_in_words(text: str, named: int | None) -> None:
    assert named_letter(text) == named


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        *(("7", 7), ("10", 10), (" 8/10", 8), ("Grade: 9", 9), ("I rate it 3.", 3), ("4.", 4), ("Score: 10/10", 10)),
        *(("11", None), ("0", None), ("7.5", None), ("fine", None), ("", None), ("grade 3 or grade 4", None)),
        *(
            ("2 + 3", None),
            ("80", None),
            ("2-3 apples", None),
            ("7: it is clear", None),
            ("My score is 7 out of 10.", 7),
        ),
    ],
)
def test_grades_in_words(text: str, grade: int | None) -> None:
    found = named_grade(text)
    assert (None if found is None else int(GRADES[found])) == grade


def logged(text: str, *tokens: tuple[str, dict[str, float]]) -> dict[str, Any]:
    content = [
        {"token": token, "logprob": 0.0, "top_logprobs": [{"token": t, "logprob": v} for t, v in top.items()]}
        for token, top in tokens
    ]
    return {"choices": [{"message": {"content": text}, "logprobs": {"content": content}}]}


def test_variants_of_a_letter_add_up() -> None:
    """P(A) = 0.3 + 0.2 as "A" and " A", P(B) = 0.25: log-odds ln 2."""
    top = {"A": math.log(0.3), " A": math.log(0.2), "B": math.log(0.25), "The": math.log(0.1)}
    reply = read_reply(logged("A", ("A", top)), PAIR)
    assert reply.logprobs is not None and reply.logprobs[0] - reply.logprobs[1] == pytest.approx(math.log(2))


def test_white_space_before_the_letter_is_passed_over() -> None:
    reply = read_reply(logged("\n\nB", ("\n\n", {"\n\n": 0.0}), ("B", {"A": -2.0, "B": -0.5})), PAIR)
    assert reply.logprobs == (-2.0, -0.5)


def test_a_letter_that_is_not_listed_is_at_most_as_likely_as_the_last_listed() -> None:
    assert read_reply(logged("A", ("A", {"A": -0.1, "x": -5.0})), PAIR).logprobs == (-0.1, -5.0)


def test_no_letter_among_the_tokens_leaves_the_words() -> None:
    reply = read_reply(logged("Better answer: A", ("Better", {"Better": -0.1, "The": -3.0})), PAIR)
    assert reply.logprobs is None and reply.choice == 0


def test_the_token_1_is_not_the_grade_1_when_10_was_written() -> None:
    """Tokens "1" and "0": the first one's probabilities say nothing of 1 against 10, so the words count."""
    reply = read_reply(logged("10", ("1", {"1": -0.1, "7": -3.0}), ("0", {"0": 0.0})), GRADE)
    assert reply.logprobs is None and reply.choice == GRADES.index("10")
    whole = read_reply(logged("10", ("10", {"10": -0.1, "7": -3.0})), GRADE)
    assert whole.logprobs is not None and whole.logprobs[9] == -0.1 and whole.logprobs[6] == -3.0


@pytest.mark.parametrize("document", [{}, [], {"choices": []}, {"choices": [{"message": {"content": 3}}]}, None, "x"])
def test_what_is_no_reply(document: Any) -> None:
    with pytest.raises(Malformed):
        read_reply(document, PAIR)


def test_an_empty_reply_is_a_failure() -> None:
    reply = read_reply({"choices": [{"message": {"content": None}}]}, PAIR)
    assert reply.status == "failed" and reply.choice is None


ODD_LOGPROBS = [5, "AAAA", None, [5], [{"token": "A", "logprob": True}], [{"token": 3, "logprob": -1.0}]]


@pytest.mark.parametrize("listed", [*ODD_LOGPROBS, [{"token": "A", "logprob": 10**400}, {"token": "B", "logprob": -1}]])
def test_log_probabilities_that_are_none_leave_the_words(listed: Any) -> None:
    """A number of 400 digits is none; the other choice, beside it, must not win by that."""
    document = {
        "choices": [{"message": {"content": "A"}, "logprobs": {"content": [{"token": "A", "top_logprobs": listed}]}}]
    }
    reply = read_reply(document, PAIR)
    assert (reply.logprobs, reply.choice) == (None, 0)


@pytest.mark.parametrize("choice", [{"message": {"content": "\ud800"}}, {"message": {"content": 5}}, "A", None])
def test_a_message_that_is_no_text_is_malformed(choice: Any) -> None:
    """Half a character can neither be kept nor shown."""
    with pytest.raises(Malformed):
        read_reply({"choices": [choice]}, PAIR)


def test_token_counts_that_are_none() -> None:
    document = {
        "choices": [{"message": {"content": "A"}}],
        "usage": {"prompt_tokens": 10**400, "completion_tokens": "x"},
    }
    assert read_reply(document, PAIR).tokens == (0, 0)

"""Records made by hand: answers, arms and studies of a few lines, rich ones, and texts that mean harm."""

from typing import Any

from smolt.report import Arm, Item, StudyRecord

HOSTILE = [
    "<script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "<!-- --><svg/onload=alert(1)>",
    "<iframe src='javascript:alert(1)'></iframe>",
    "{{ 7 * 7 }}{% raw %}",
    "<a href='javascript:alert(1)'>x</a>",
    "<meta http-equiv=refresh content='0;url=http://example.org'>",
    "<base href=http://example.org/>",
    "\x1b[31mred\x1b[0m\x00\x07\x9b",
    "left \u202e right \u2066 mark \u200b\ufeff\u2028",
    "half a pair \ud800",
    "$\\frac{1}{0$ and **bold** | cell | `code`",
]


def item(number: int, correct: bool | None = None, reward: float | None = None, **named: Any) -> Item:
    given: dict[str, Any] = {
        "kind": "sum",
        "answer": f"answer {number}",
        "tokens": 10 + number,
        "stopped": True,
    } | named
    return Item(f"q{number}", f"question {number}", correct=correct, reward=reward, **given)


def judged(name: str, flags: str, **named: Any) -> Arm:
    """An arm from a string of right (1) and wrong (0) answers."""
    return Arm(name, "sft", items=[item(place, flag == "1") for place, flag in enumerate(flags)], **named)


def study(*arms: Arm, **named: Any) -> StudyRecord:
    return StudyRecord("a study", list(arms), **({"baseline": "sft"} | named))

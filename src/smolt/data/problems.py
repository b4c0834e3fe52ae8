r"""Grade-school word problems made from a seed: the data of the quickstart, which smolt makes itself.

Eleven kinds of problem, one to three steps of arithmetic, whole numbers from 0 to 999, a vocabulary of about 100 words.
A worked answer has one step a line and ends as GSM8K's do: "3 * 4 = 12\n12 + 5 = 17\n#### 17".

Splits are disjoint by construction and for every seed: a question's text decides, through SHA-256, the split it is
in (10 of 14 train, 2 dev, 2 test). The sums themselves are shared, as a child's times tables are: a test problem may
ask for 7 * 8 about other people or things than a train problem did. Within a split no question occurs twice. Every
draw is a function of (seed, split, index, attempt), so a longer list begins with the shorter one.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from smolt.data.writing import write_rows
from smolt.errors import UserError

Split = Literal["train", "dev", "test"]
Step = tuple[int, str, int]

LARGEST = 999
"""No number in a question, step or answer exceeds it."""

_ATTEMPTS = 2000
_SLICES: tuple[Split, ...] = ("train",) * 10 + ("dev",) * 2 + ("test",) * 2

_NAMES = ("Anna", "Ben", "Carl", "Dora", "Emma", "Finn", "Gina", "Hugo", "Iris", "Jack", "Kim", "Leo", "Mia", "Noah")
_ITEMS = (
    *("apples", "balls", "books", "cakes", "cards", "coins", "eggs", "flowers", "hats", "nuts", "pears", "pens"),
    *("plums", "shells", "stamps", "toys"),
)
_HOLDERS = ("bags", "baskets", "boxes", "rows")


@dataclass(frozen=True)
class Problem:
    r"""One word problem.

    Attributes:
        question: At most 45 words.
        answer: The worked answer, one step a line, then "#### " and the solution.
        solution: The result, a whole number from 0 to 999.
        kind: The family it comes from, for example "buying".
        steps: How many lines of arithmetic it takes, 1 to 3.
    """

    question: str
    answer: str
    solution: str
    kind: str
    steps: int


class Draws:
    """Whole numbers drawn from one SHA-256 digest by repeated division: the same in every version of Python."""

    def __init__(self, *counters: int | str) -> None:
        digest = hashlib.sha256(":".join(str(counter) for counter in counters).encode()).digest()
        self._left = int.from_bytes(digest, "big")

    def between(self, low: int, high: int) -> int:
        """A number from low to high, both included; the bias is below 1e-30 for a dozen draws."""
        self._left, offset = divmod(self._left, high - low + 1)
        return low + offset


@dataclass(frozen=True)
class Family:
    """Problems of one kind: their wordings, how their numbers are drawn, and the steps that solve them.

    Attributes:
        kind: The name.
        share: How many of 23 problems are of this kind.
        wordings: Questions with the places {a} and {b} (two different names), {item}, {holder}, and {0}, {1}, ...
        draw: The numbers of a problem, in the order of the places.
        solve: The steps, each (left, operator, right).
    """

    kind: str
    share: int
    wordings: tuple[str, ...]
    draw: Callable[[Draws], tuple[int, ...]]
    solve: Callable[[tuple[int, ...]], tuple[Step, ...]]


def generate(seed: int, count: int, split: Split) -> list[Problem]:
    """The first `count` problems of a split.

    Args:
        seed: Any integer; another seed gives other problems of the same split.
        count: At least 0; 20,000 for train and 2,000 for dev and test are well within reach.
        split: train, dev or test.

    Raises:
        UserError: The count is negative, the split unknown, or the space of distinct problems is used up.
    """
    if split not in _SLICES:
        raise UserError(f"problems: split: {split!r} is unknown; known: train, dev, test")
    if count < 0:
        raise UserError(f"problems: count: is {count}; it cannot be negative")
    seen: set[str] = set()
    return [_problem(seed, index, split, seen) for index in range(count)]


def facts(seed: int, count: int) -> list[str]:
    """Lines of arithmetic such as "7 * 8 = 56": the steps of problems that are never asked, for pretraining.

    Args:
        seed: Any integer.
        count: At least 0.
    """
    lines: list[str] = []
    while len(lines) < count:
        draws = Draws("facts", seed, len(lines))
        family = _ORDER[draws.between(0, len(_ORDER) - 1)]
        lines += _lines(family.solve(family.draw(draws)))
    return lines[:count]


def split_of(question: str) -> Split:
    """The one split in which a question may occur."""
    return _SLICES[Draws("split", question).between(0, len(_SLICES) - 1)]


def write_problems(
    directory: Path | str, seed: int, train: int, dev: int, test: int, demonstrations: int, brief: float = 0.0
) -> None:
    """Write a directory of problems in GSM8K's question/answer format, each row with its `id` and `kind`.

    train.jsonl has questions with the solution alone ("#### 17"), to learn from by reinforcement; demonstrations.jsonl
    is the fixed, limited set with answers to imitate, the first of train; dev.jsonl and test.jsonl have answers too.

    Args:
        directory: Created where it does not exist.
        seed: As for `generate`.
        train: How many problems; likewise dev and test.
        dev: As train.
        test: As train.
        demonstrations: How many of train's problems are shown with answers, at most `train`.
        brief: Share of these answers that say the result alone; the others show every step.

    Raises:
        UserError: A count is negative or too large, or more demonstrations than train problems are asked for.
        StorageError: The disk is full or failing.
    """
    if not 0 <= demonstrations <= train:
        raise UserError(f"problems: demonstrations: is {demonstrations}; it must lie in 0 ... train = {train}")
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    learned = generate(seed, train, "train")
    write_rows(place / "train.jsonl", _rows(learned, "train", brief=1.0))
    write_rows(place / "demonstrations.jsonl", _rows(learned[:demonstrations], "train", brief))
    write_rows(place / "dev.jsonl", _rows(generate(seed, dev, "dev"), "dev", brief))
    write_rows(place / "test.jsonl", _rows(generate(seed, test, "test"), "test", brief))


def _rows(problems: list[Problem], split: Split, brief: float) -> list[dict[str, str]]:
    return [
        {
            "id": f"{split}-{index:05d}",
            "kind": problem.kind,
            "question": problem.question,
            "answer": f"#### {problem.solution}" if _is_brief(problem, brief) else problem.answer,
        }
        for index, problem in enumerate(problems)
    ]


def _is_brief(problem: Problem, share: float) -> bool:
    return Draws("brief", problem.question).between(0, 999) < share * 1000


def _problem(seed: int, index: int, split: Split, seen: set[str]) -> Problem:
    """The problem at a place of the list: the first attempt whose text belongs to the split and is new."""
    family = _ORDER[Draws("kind", seed, split, index).between(0, len(_ORDER) - 1)]
    for attempt in range(_ATTEMPTS):
        draws = Draws(seed, split, index, attempt)
        numbers = family.draw(draws)
        question = _question(family, numbers, draws)
        if split_of(question) == split and question not in seen:
            seen.add(question)
            return _solved(family, numbers, question)
    raise UserError(f"problems: count: the {split} split has too few different {family.kind} problems; ask for fewer")


def _question(family: Family, numbers: tuple[int, ...], draws: Draws) -> str:
    first = draws.between(0, len(_NAMES) - 1)
    second = (first + draws.between(1, len(_NAMES) - 1)) % len(_NAMES)
    wording = family.wordings[draws.between(0, len(family.wordings) - 1)]
    item, holder = _ITEMS[draws.between(0, len(_ITEMS) - 1)], _HOLDERS[draws.between(0, len(_HOLDERS) - 1)]
    return wording.format(*numbers, a=_NAMES[first], b=_NAMES[second], item=item, holder=holder)


def _solved(family: Family, numbers: tuple[int, ...], question: str) -> Problem:
    steps = family.solve(numbers)
    solution = str(_result(steps[-1]))
    return Problem(question, "\n".join([*_lines(steps), f"#### {solution}"]), solution, family.kind, len(steps))


def _lines(steps: tuple[Step, ...]) -> list[str]:
    return [f"{step[0]} {step[1]} {step[2]} = {_result(step)}" for step in steps]


def _result(step: Step) -> int:
    left, sign, right = step
    return {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[sign]


def _fewer_numbers(draws: Draws) -> tuple[int, ...]:
    given, left = draws.between(2, 9), draws.between(2, 9)
    return given + left, given


def _sharing_numbers(draws: Draws) -> tuple[int, ...]:
    friends, each = draws.between(2, 5), draws.between(2, 9)
    return friends * each, friends


def _buying_numbers(draws: Draws) -> tuple[int, ...]:
    bought, price, left = draws.between(2, 4), draws.between(2, 5), draws.between(1, 5)
    return bought * price + left, bought, price


def _travel_numbers(draws: Draws) -> tuple[int, ...]:
    hours, speed = draws.between(2, 4), draws.between(2, 5)
    later = draws.between(2, 4)
    return hours * speed, hours, later + (later >= hours)


def _pooling_numbers(draws: Draws) -> tuple[int, ...]:
    friends, each, eaten = draws.between(2, 4), draws.between(2, 5), draws.between(1, 4)
    total = friends * each + eaten
    first = draws.between(1, min(total - 1, 9))
    return first, total - first, eaten, friends


_FAMILIES: tuple[Family, ...] = (
    Family(
        "more",
        2,
        (
            "{a} has {0} {item}. {b} gives {a} {1} more. How many {item} does {a} have now?",
            "{a} has {0} {item} and finds {1} more. How many {item} does {a} have in all?",
        ),
        lambda draws: (draws.between(2, 9), draws.between(2, 9)),
        lambda n: ((n[0], "+", n[1]),),
    ),
    Family(
        "fewer",
        2,
        (
            "{a} has {0} {item}. {a} gives {1} to {b}. How many {item} does {a} have left?",
            "{a} has {0} {item} and loses {1}. How many {item} are left?",
        ),
        _fewer_numbers,
        lambda n: ((n[0], "-", n[1]),),
    ),
    Family(
        "groups",
        2,
        (
            "{a} has {0} {holder} with {1} {item} each. How many {item} does {a} have in all?",
            "There are {0} {holder} of {item}. Each has {1} {item}. How many {item} are there?",
        ),
        lambda draws: (draws.between(2, 5), draws.between(2, 9)),
        lambda n: ((n[0], "*", n[1]),),
    ),
    Family(
        "sharing",
        2,
        (
            "{a} shares {0} {item} with {1} friends. Each friend gets the same. How many {item} does each friend get?",
            "{a} puts {0} {item} into {1} {holder}. Each has the same. How many {item} are in each?",
        ),
        _sharing_numbers,
        lambda n: ((n[0], "/", n[1]),),
    ),
    Family(
        "buying",
        4,
        (
            "{a} has {0} dollars and buys {1} {item} for {2} dollars each. How many dollars does {a} have left?",
            "{a} buys {1} {item}. Each costs {2} dollars. {a} had {0} dollars. How many dollars are left?",
        ),
        _buying_numbers,
        lambda n: ((n[1], "*", n[2]), (n[0], "-", n[1] * n[2])),
    ),
    Family(
        "comparing",
        4,
        (
            "{a} has {0} {item}. {b} has {1} more than {a}. How many {item} do they have in all?",
            "{b} has {1} more {item} than {a}. {a} has {0} {item}. How many {item} do {a} and {b} have in all?",
        ),
        lambda draws: (draws.between(2, 9), draws.between(2, 5)),
        lambda n: ((n[0], "+", n[1]), (n[0] + n[1], "+", n[0])),
    ),
    Family(
        "earning",
        4,
        (
            "{a} earns {0} dollars a day for {1} days. Then {b} gives {a} {2} dollars. How many dollars does {a} have?",
            "{a} works {1} days and earns {0} dollars each day. {a} had {2} dollars. "
            "How many dollars does {a} have now?",
        ),
        lambda draws: (draws.between(2, 5), draws.between(2, 4), draws.between(2, 5)),
        lambda n: ((n[0], "*", n[1]), (n[0] * n[1], "+", n[2])),
    ),
    Family(
        "travel",
        4,
        (
            "{a} walks {0} miles in {1} hours. How many miles does {a} walk in {2} hours?",
            "{a} goes {0} miles in {1} hours. {b} goes as fast. How many miles does {b} go in {2} hours?",
        ),
        _travel_numbers,
        lambda n: ((n[0], "/", n[1]), (n[0] // n[1], "*", n[2])),
    ),
    Family(
        "packing",
        2,
        (
            "{a} has {0} {holder} with {1} {item} each and {2} more {item}. {a} gives {3} to {b}. "
            "How many {item} does {a} have left?",
            "{a} fills {0} {holder} with {1} {item} each, finds {2} more {item} and loses {3}. "
            "How many {item} are left?",
        ),
        lambda draws: (draws.between(2, 4), draws.between(2, 5), draws.between(2, 5), draws.between(2, 4)),
        lambda n: ((n[0], "*", n[1]), (n[0] * n[1], "+", n[2]), (n[0] * n[1] + n[2], "-", n[3])),
    ),
    Family(
        "pooling",
        2,
        (
            "{a} has {0} {item} and {b} has {1}. They lose {2} and share the rest with {3} friends. "
            "How many {item} does each friend get?",
            "{a} finds {0} {item} and {b} finds {1}. They lose {2} and put the rest into {3} {holder}. "
            "How many {item} are in each?",
        ),
        _pooling_numbers,
        lambda n: ((n[0], "+", n[1]), (n[0] + n[1], "-", n[2]), (n[0] + n[1] - n[2], "/", n[3])),
    ),
    Family(
        "working",
        2,
        (
            "{a} works {0} hours and then {1} more hours for {2} dollars an hour. {a} gives {3} dollars to {b}. "
            "How many dollars does {a} have left?",
            "{a} earns {2} dollars an hour. {a} works {0} hours, then {1} more hours, and loses {3} dollars. "
            "How many dollars are left?",
        ),
        lambda draws: (draws.between(2, 4), draws.between(2, 4), draws.between(2, 5), draws.between(1, 4)),
        lambda n: ((n[0], "+", n[1]), (n[0] + n[1], "*", n[2]), ((n[0] + n[1]) * n[2], "-", n[3])),
    ),
)

_ORDER: tuple[Family, ...] = tuple(family for family in _FAMILIES for _ in range(family.share))
KINDS: tuple[str, ...] = tuple(family.kind for family in _FAMILIES)

"""Support tickets made from a seed, with checkable rules for their answers: the data of the recipe `support`.

A customer with a first name writes about one product of one order, and one of six things is wrong. A good answer greets
by name, names the product and the order number, asks for the one next step that belongs to the trouble, promises no
money and stays brief. The rules lie beside each ticket as a constraint (rewards/constraints.py).

Splits are disjoint by construction and for every seed, as those of the word problems are: a ticket's text decides,
through SHA-256, the split it is in. Within a split no text occurs twice.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolt.data.problems import Draws, Split, split_of
from smolt.data.writing import write_rows
from smolt.errors import UserError

WORDS = 40
"""No good answer is longer."""

MONEY = ("refund", "discount", "voucher", "money")
"""Words that promise what support may not give."""

FAULTS = ("nameless", "vague", "orderless", "astray", "generous", "wordy")
"""What a careless answer may do wrong: each breaks one rule."""

_ATTEMPTS = 2000
_NAMES = ("Ada", "Bea", "Cleo", "Dan", "Eli", "Fay", "Gus", "Hana", "Ivo", "Jon", "Kaya", "Lea", "Max", "Nora")
_PRODUCTS = ("kettle", "lamp", "radio", "mixer", "toaster", "heater", "clock", "printer", "camera", "drill")
_REQUESTS = ("What now?", "Please help.", "What should I do?", "Can you help me?")
_WORDINGS = (
    "Hello, this is {name}. My {product} from order {order} {trouble}. {request}",
    "{name} here, order {order}. The {product} {trouble}. {request}",
    "I am {name}. I bought a {product}, order {order}. It {trouble}. {request}",
)
_CLOSINGS = ("Thank you.", "We will take it from there.", "We look after the rest.")
_PROMISE = "You will get a full refund and a discount."
_RAMBLING = (
    "We know how much our customers care about what they buy from us, and we care about it as much as they do, "
    "so we always do all that we can, every day, for every one of them."
)


@dataclass(frozen=True)
class Trouble:
    """What can be wrong with an order.

    Attributes:
        kind: the name.
        wordings: what the customer says of the product.
        regret: what the answer says of it.
        step: the one thing the customer should do.
    """

    kind: str
    wordings: tuple[str, ...]
    regret: str
    step: str


TROUBLES: tuple[Trouble, ...] = (
    Trouble("broken", ("arrived broken", "came with a crack"), "arrived broken", "send us a photo"),
    Trouble("late", ("has not come yet", "is a week late"), "is late", "check the tracking page"),
    Trouble("wrong", ("is not the one I chose", "has the wrong colour"), "is the wrong one", "send it back to us"),
    Trouble("parts", ("came without its cable", "has a part missing"), "lacks a part", "tell us which part"),
    Trouble("dead", ("does not turn on", "stopped after one day"), "does not work", "try another socket"),
    Trouble("unwanted", ("is too big for me", "is not what I need"), "does not suit you", "fill in the return form"),
)


@dataclass(frozen=True)
class Ticket:
    """One ticket.

    Attributes:
        question: what the customer writes.
        answer: what support writes: good, or with the faults named.
        constraint: the rules for an answer to it.
        kind: the trouble.
        faults: of FAULTS; empty for a good answer.
    """

    question: str
    answer: str
    constraint: dict[str, Any]
    kind: str
    faults: tuple[str, ...] = ()


def tickets(seed: int, count: int, split: Split, careless: float = 0.0) -> list[Ticket]:
    """The first `count` tickets of a split.

    Args:
        seed: any integer; another seed gives other tickets of the same split.
        count: at least 0; 20,000 for train and 2,000 for dev and test are within reach.
        split: train, dev or test.
        careless: share of answers with one or two faults.

    Raises:
        UserError: a negative count, or no more different tickets.
    """
    if count < 0:
        raise UserError(f"problems: count: is {count}; it cannot be negative")
    seen: set[str] = set()
    return [_ticket(seed, index, split, careless, seen) for index in range(count)]


def write_tickets(
    directory: Path | str, seed: int, train: int, dev: int, test: int, demonstrations: int, careless: float = 0.0
) -> None:
    """Write train.jsonl, dev.jsonl and test.jsonl (tickets with their rules), and demonstrations.jsonl (with answers).

    Args:
        directory: created where it does not exist.
        seed: as for `tickets`.
        train: how many tickets; likewise dev and test.
        dev: as train.
        test: as train.
        demonstrations: how many of train's tickets are shown with answers, at most `train`.
        careless: share of these answers with one or two faults.

    Raises:
        UserError: a count is negative or too large, or more demonstrations than train tickets are asked for.
        StorageError: the disk is full or failing.
    """
    if not 0 <= demonstrations <= train:
        raise UserError(f"problems: demonstrations: is {demonstrations}; it must lie in 0 ... train = {train}")
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    learned = tickets(seed, train, "train", careless)
    shown = [
        {"id": f"train-{index:05d}", "kind": ticket.kind, "prompt": ticket.question, "completion": ticket.answer}
        for index, ticket in enumerate(learned[:demonstrations])
    ]
    write_rows(place / "demonstrations.jsonl", shown)
    write_rows(place / "train.jsonl", _rows(learned, "train"))
    write_rows(place / "dev.jsonl", _rows(tickets(seed, dev, "dev"), "dev"))
    write_rows(place / "test.jsonl", _rows(tickets(seed, test, "test"), "test"))


def _rows(found: list[Ticket], split: Split) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{split}-{index:05d}",
            "kind": ticket.kind,
            "prompt": ticket.question,
            "constraint": ticket.constraint,
        }
        for index, ticket in enumerate(found)
    ]


def _ticket(seed: int, index: int, split: Split, careless: float, seen: set[str]) -> Ticket:
    """The ticket at a place of the list: the first attempt whose text belongs to the split and is new."""
    for attempt in range(_ATTEMPTS):
        draws = Draws("ticket", seed, split, index, attempt)
        name, product = _pick(draws, _NAMES), _pick(draws, _PRODUCTS)
        order, trouble = str(draws.between(1000, 9999)), TROUBLES[draws.between(0, len(TROUBLES) - 1)]
        question = _pick(draws, _WORDINGS).format(
            name=name,
            product=product,
            order=order,
            trouble=_pick(draws, trouble.wordings),
            request=_pick(draws, _REQUESTS),
        )
        if split_of(question) == split and question not in seen:
            seen.add(question)
            faults = _faults(draws) if draws.between(0, 999) < careless * 1000 else ()
            answer = _answer(name, product, order, trouble, faults, draws)
            return Ticket(question, answer, rules(name, product, order, trouble), trouble.kind, faults)
    raise UserError(f"problems: count: the {split} split has too few different tickets; ask for fewer")


def rules(name: str, product: str, order: str, trouble: Trouble) -> dict[str, Any]:
    """What an answer must keep: greeting, product and order number, the next step, no money, brevity."""
    return {
        "starts_with": f"Hello {name}",
        "contains": [product, order],
        "mentions": [trouble.step],
        "avoids": list(MONEY),
        "words": [1, WORDS],
    }


def _answer(name: str, product: str, order: str, trouble: Trouble, faults: tuple[str, ...], draws: Draws) -> str:
    """Support's answer, with the faults asked for."""
    others = [other for other in TROUBLES if other.kind != trouble.kind]
    step = others[draws.between(0, len(others) - 1)].step if "astray" in faults else trouble.step
    parts = [
        "Hello," if "nameless" in faults else f"Hello {name},",
        f"I am sorry that your {'item' if 'vague' in faults else product} {trouble.regret}.",
        *([_RAMBLING] if "wordy" in faults else []),
        f"Please {step} for {'your order' if 'orderless' in faults else f'order {order}'}.",
        *([_PROMISE] if "generous" in faults else []),
        _pick(draws, _CLOSINGS),
    ]
    return " ".join(parts)


def _faults(draws: Draws) -> tuple[str, ...]:
    """One or two different ones."""
    first = draws.between(0, len(FAULTS) - 1)
    second = (first + draws.between(0, len(FAULTS) - 1)) % len(FAULTS)
    return tuple(fault for place, fault in enumerate(FAULTS) if place in (first, second))


def _pick(draws: Draws, choices: tuple[str, ...]) -> str:
    return choices[draws.between(0, len(choices) - 1)]

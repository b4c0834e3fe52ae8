"""Support tickets with answers as decisions: what is wrong, is money promised, how many faults; known by rule."""

from pathlib import Path

from smolt.data.decisions import Decision, DecisionQuestion
from smolt.data.problems import Split
from smolt.data.tickets import TROUBLES, Ticket, tickets
from smolt.data.writing import write_rows

MOST_FAULTS = 2
_KINDS: dict[str, str | None] = {trouble.kind: None for trouble in TROUBLES}


def ticket_decision(ticket: Ticket, name: str) -> Decision:
    """A choice of six, a noul and a score of three levels about one ticket and its answer."""
    expected = {
        "trouble": tuple(float(kind == ticket.kind) for kind in _KINDS),
        "money": (float("generous" in ticket.faults), float("generous" not in ticket.faults)),
        "faults": tuple(float(level == len(ticket.faults)) for level in range(MOST_FAULTS + 1)),
    }
    asked = (
        DecisionQuestion("trouble", "choice", "What is wrong?", dict(_KINDS), expected["trouble"]),
        DecisionQuestion("money", "noul", "Does the answer promise money?", None, expected["money"]),
        DecisionQuestion("faults", "score", "How many faults?", ["none", "one", "two"], expected["faults"]),
    )
    return Decision({"ticket": ticket.question, "answer": ticket.answer}, asked, name, ticket.kind)


def write_ticket_decisions(
    directory: Path | str, seed: int, train: int, dev: int, test: int, careless: float
) -> list[str]:
    """Write train.jsonl, dev.jsonl and test.jsonl; the states of train as text to learn a language from.

    Args:
        directory: created where it does not exist.
        seed: as for `tickets`.
        train: how many; likewise dev and test.
        dev: as train.
        test: as train.
        careless: share of answers with one or two faults.

    Raises:
        UserError: a count is negative or too large.
        StorageError: the disk is full or failing.
    """
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    counts: dict[Split, int] = {"train": train, "dev": dev, "test": test}
    made = {
        split: [
            ticket_decision(ticket, f"{split}-{number:05d}")
            for number, ticket in enumerate(tickets(seed, count, split, careless))
        ]
        for split, count in counts.items()
    }
    for split, decisions in made.items():
        write_rows(place / f"{split}.jsonl", [decision.row for decision in decisions])
    return [decision.text for decision in made["train"]]
